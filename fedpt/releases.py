"""Releases: models, adapters, runtimes and keys for a fleet, each named by a signed manifest.

Knows what a manifest says, who may sign it and whether it is news; nothing here touches a disk or
a network. After TUF (theupdateframework.io): a counter against downgrade and replay, an expiry
against being held at an old release, keys that are replaced by a release of their own.
"""

import re
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta
from packaging.version import InvalidVersion, Version

from fedpt.errors import ReleaseError
from fedpt.files import sha256_bytes
from fedpt.ids import DeviceId
from fedpt.signing import PublicKey, Signature, SigningKey
from fedpt.wire.messages import BlobRef, ReleaseKind, Sha256Text, SignedRelease, Size

Kind = ReleaseKind
KINDS: Final[tuple[Kind, ...]] = get_args(ReleaseKind)

MANIFEST_FILE: Final = "manifest.json"
SIGNATURE_FILE: Final = "manifest.sig"
ROLL_OUT_FILE: Final = "roll-out.json"

MODEL_FILE: Final = "model.gguf"
ADAPTER_FILE: Final = "adapter.safetensors"
TRUST_FILE: Final = "trust.json"
CANARY_FILE: Final = "canary.txt"
WHEELS_FOLDER: Final = "wheels"
REQUIREMENTS_FILE: Final = "requirements.lock"

_OWN_NAMES: Final = frozenset({MANIFEST_FILE, SIGNATURE_FILE, ROLL_OUT_FILE, "current", "previous"})
"""What a release's file may not be called, for its folder holds something of that name."""

_MOST_FILES: Final = 1000
_LONGEST_PATH: Final = 200
_LARGEST_MANIFEST: Final = 512 * 1024
_PART: Final = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]*")


class ReleaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a release; `path` is relative to the release's folder."""

    path: str
    sha256: Sha256Text
    size_bytes: Size


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a release is. Its bytes as signed are the release's identity."""

    format: Literal[1] = 1
    kind: Kind
    counter: Annotated[int, Meta(ge=1, le=2**53)]
    """Grows with every release of its kind."""
    created_unix_s: float
    expires_unix_s: float
    """Not installed afterwards; what is installed stays."""
    files: Annotated[list[ReleaseFile], Meta(min_length=1, max_length=_MOST_FILES)]
    base_weights: str = ""
    """For a model its own `fedpt.weights.sha256`, for an adapter its base's."""
    minimum_runtime: str = ""
    """The fedpt version that can use it; empty: any."""
    note: str = ""

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size_bytes for file in self.files)


class SignedManifest(msgspec.Struct, frozen=True):
    """A manifest's exact bytes, and who signed them."""

    content: bytes
    signature: Signature

    @property
    def id(self) -> str:
        """The release's name, safe in file names: `<counter>-<12 digits of the sha256>`.

        Raises:
            ReleaseError: The content is no manifest.
        """
        return f"{read_manifest(self.content).counter}-{sha256_bytes(self.content)[:12]}"

    def to_wire(self) -> SignedRelease:
        """As a part of a message."""
        signature = self.signature
        return SignedRelease(
            manifest=self.content, key=signature.key, signature=signature.signature
        )

    @classmethod
    def from_wire(cls, message: SignedRelease) -> "SignedManifest":
        """From a part of a message; nothing is believed yet."""
        return cls(message.manifest, Signature(message.key, message.signature))


class RollOut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`roll-out.json`: which release of a kind the coordinator announces, and to how many."""

    id: Annotated[str, Meta(pattern=r"^[0-9]{1,16}-[0-9a-z]{1,12}\Z")]
    fraction: Annotated[float, Meta(ge=0, le=1)] = 1.0
    url: str = ""
    """Folder with its files on an HTTP server; empty: the coordinator serves them itself."""


class TrustedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A public key and what it may sign."""

    key: PublicKey
    kinds: Annotated[list[Kind], Meta(min_length=1)]


class Trust(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keys that a device or coordinator believes."""

    keys: Annotated[list[TrustedKey], Meta(min_length=1, max_length=16)]

    def to_json(self) -> bytes:
        """As `trust.json` holds it."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> "Trust":
        """Read `trust.json`.

        Raises:
            ReleaseError: It is something else.
        """
        try:
            return msgspec.json.decode(content, type=cls)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ReleaseError(f"not a file of trusted keys: {error}") from error


def sign_manifest(manifest: Manifest, key: SigningKey) -> SignedManifest:
    """Make the bytes of a manifest and sign them.

    Raises:
        ReleaseError: The manifest could not be accepted by anyone.
    """
    _require_safe_paths(manifest)
    content = msgspec.json.format(msgspec.json.encode(manifest, order="deterministic")) + b"\n"
    return SignedManifest(content, key.sign(content, purpose="release"))


def read_manifest(content: bytes) -> Manifest:
    """Read a manifest without asking who signed it.

    Raises:
        ReleaseError: It is none, or a path in it leaves the release's folder.
    """
    if len(content) > _LARGEST_MANIFEST:
        raise ReleaseError(f"a manifest of {len(content)} bytes; {_LARGEST_MANIFEST} is the most")
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ReleaseError(f"not a release's manifest: {error}") from error
    _require_safe_paths(manifest)
    return manifest


def verify_manifest(signed: SignedManifest, trust: Trust) -> Manifest:
    """The manifest, if a key that may sign its kind has signed it.

    Raises:
        ReleaseError: The signature is wrong, of an unknown key, or of one for other kinds.
    """
    known = next((one for one in trust.keys if one.key.id == signed.signature.key), None)
    if known is None:
        raise ReleaseError(f"a release signed by an unknown key, {signed.signature.key}")
    if not known.key.verifies(signed.signature, signed.content, purpose="release"):
        raise ReleaseError(f"a release with a wrong signature, said to be by {known.key.id}")
    manifest = read_manifest(signed.content)
    if manifest.kind not in known.kinds:
        raise ReleaseError(
            f"key {known.key.id} signed a {manifest.kind} release; it may sign only"
            f" {', '.join(known.kinds)}"
        )
    return manifest


def require_news(manifest: Manifest, *, highest_counter: int, now_unix_s: float) -> None:
    """Refuse what is expired, or not newer than what this device has ever accepted.

    Raises:
        ReleaseError: Says which.
    """
    if manifest.counter <= highest_counter:
        raise ReleaseError(
            f"a {manifest.kind} release with counter {manifest.counter}; this device has already"
            f" seen {highest_counter}"
        )
    if now_unix_s >= manifest.expires_unix_s:
        late_h = (now_unix_s - manifest.expires_unix_s) / 3600
        raise ReleaseError(f"a {manifest.kind} release that expired {late_h:.1f} hours ago")


def require_usable(manifest: Manifest, *, runtime: str, base_weights: str | None) -> None:
    """Refuse what this device cannot use.

    Args:
        manifest: What is offered.
        runtime: The version of fedpt that runs here.
        base_weights: `fedpt.weights.sha256` of the small model here; None if there is none yet.

    Raises:
        ReleaseError: It needs a newer runtime, or is an adapter for another model.
    """
    if manifest.minimum_runtime and _version(runtime) < _version(manifest.minimum_runtime):
        raise ReleaseError(
            f"a {manifest.kind} release for fedpt {manifest.minimum_runtime} or newer; this is"
            f" {runtime}: install the runtime's release first"
        )
    if manifest.kind == "adapter" and manifest.base_weights != base_weights:
        raise ReleaseError(
            f"an adapter release for base {manifest.base_weights[:12]}…; the small model here is"
            f" {(base_weights or 'none')[:12]}"
        )


def require_vouched_adapter(manifest: Manifest, adapter: BlobRef) -> None:
    """Refuse a manifest that is about something else than this adapter's blob.

    Raises:
        ReleaseError: Says so.
    """
    files = [(file.sha256, file.size_bytes) for file in manifest.files]
    if manifest.kind != "adapter" or files != [(adapter.sha256, adapter.size_bytes)]:
        raise ReleaseError(
            f"the round's manifest is not about its adapter {adapter.sha256[:12]}, but a"
            f" {manifest.kind} release"
        )


def next_counter(highest: int, now_unix_s: float) -> int:
    """The counter of a new release: milliseconds since 1970, above `highest` in any case.

    Time, so that who lost all records can go on; `highest`, for a clock that was set back.
    """
    return max(highest + 1, int(now_unix_s * 1000))


def is_in_roll_out(device: DeviceId, release: str, fraction: float) -> bool:
    """Whether a staged roll-out has reached this device; growing the fraction only adds devices.

    Which devices come first differs from release to release, so that it is not always the same
    board that tries things out.
    """
    draw = int(sha256_bytes(f"{device} {release}".encode())[:13], 16) / 16**13
    return draw < fraction


def _require_safe_paths(manifest: Manifest) -> None:
    seen: set[str] = set()
    for file in manifest.files:
        path = file.path
        parts = PurePosixPath(path).parts
        is_plain = parts and "/".join(parts) == path and all(map(_PART.fullmatch, parts))
        if not is_plain or len(path) > _LONGEST_PATH or path.lower() in _OWN_NAMES:
            raise ReleaseError(f"a release with a file that may not be: {path[:80]!r}")
        if path.lower() in seen:
            raise ReleaseError(f"a release with the file {path!r} twice")
        seen.add(path.lower())


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise ReleaseError(f"not a version: {text[:60]!r}") from None
