"""A release's folder: the manifest as it was signed, beside the files that it names."""

from pathlib import Path

import msgspec

from fedpt.errors import ReleaseError
from fedpt.files import write_bytes
from fedpt.releases import MANIFEST_FILE, SIGNATURE_FILE, SignedManifest
from fedpt.signing import Signature


def read_signed(folder: Path) -> SignedManifest:
    """The manifest in a release's folder, as signed; nothing is believed yet.

    Raises:
        ReleaseError: There is none.
    """
    try:
        content = (folder / MANIFEST_FILE).read_bytes()
        signature = (folder / SIGNATURE_FILE).read_bytes()
        return signed_manifest(content, signature)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ReleaseError(f"{folder} holds no signed release: {error}") from error


def signed_manifest(content: bytes, signature: bytes) -> SignedManifest:
    """Both files' content as one value.

    Raises:
        msgspec.MsgspecError: The signature's file is none.
    """
    return SignedManifest(content, msgspec.json.decode(signature, type=Signature))


def write_signed(folder: Path, signed: SignedManifest) -> None:
    """Write both.

    Raises:
        StorageError: The disk is full.
    """
    write_bytes(folder / MANIFEST_FILE, signed.content)
    write_bytes(folder / SIGNATURE_FILE, msgspec.json.encode(signed.signature))
