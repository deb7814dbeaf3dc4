"""The coordinator's signature under each round's adapter.

The key may sign adapters only: who takes the coordinator over can steer the rounds, as ever, but
cannot give the devices another model or runtime. The counter is the time in milliseconds, and above
the last one's in any case; the last manifest is on disk before anybody hears of it. So the same
adapter has the same manifest after a restart, and a coordinator that lost its disk can go on.
"""

from pathlib import Path
from typing import Final

import msgspec

from fedpt.errors import FleetError, ReleaseError
from fedpt.files import write_bytes
from fedpt.releases import (
    ADAPTER_FILE,
    Manifest,
    ReleaseFile,
    SignedManifest,
    next_counter,
    read_manifest,
    sign_manifest,
)
from fedpt.signing import SigningKey
from fedpt.wire.messages import BlobRef, SignedRelease

_DAY_S: Final = 24 * 3600


class AdapterSigner:
    """Signs adapters, each once for as long as that is good."""

    def __init__(self, key_file: Path, record: Path, *, valid_days: float) -> None:
        """Read the key, and what was signed last.

        Args:
            key_file: PEM, not encrypted: the coordinator starts without a person.
            record: File for the last signed manifest.
            valid_days: How long a signature is good; it is renewed at half of that.

        Raises:
            FleetError: The key cannot be used.
        """
        try:
            pem = key_file.read_bytes()
        except OSError as error:
            raise FleetError(f"cannot read the key {key_file}: {error.strerror}") from error
        self._key = SigningKey.from_pem(pem)
        self._record = record
        self._valid_s = valid_days * _DAY_S
        self._last = self._read_last()

    def sign(self, adapter: BlobRef, base_weights: str, now_unix_s: float) -> SignedRelease:
        """The signed manifest of an adapter: the last one, if that is it and is still fresh.

        Raises:
            StorageError: It could not be recorded; nobody must hear of it.
        """
        if not self._is_good(adapter, base_weights, now_unix_s):
            signed = sign_manifest(self._manifest(adapter, base_weights, now_unix_s), self._key)
            write_bytes(self._record, msgspec.json.encode(signed))
            self._last = signed
        assert self._last is not None  # it is good, or was made above
        return self._last.to_wire()

    def is_due(self, now_unix_s: float) -> bool:
        """Whether the last signature should be renewed."""
        if self._last is None:
            return False
        return read_manifest(self._last.content).expires_unix_s - now_unix_s < self._valid_s / 2

    def _is_good(self, adapter: BlobRef, base_weights: str, now_unix_s: float) -> bool:
        if self._last is None or self.is_due(now_unix_s):
            return False
        manifest = read_manifest(self._last.content)
        return (
            manifest.files == _files(adapter)
            and manifest.base_weights == base_weights
            and self._last.signature.key == self._key.public.id
        )

    def _manifest(self, adapter: BlobRef, base_weights: str, now_unix_s: float) -> Manifest:
        highest = read_manifest(self._last.content).counter if self._last is not None else 0
        return Manifest(
            kind="adapter",
            counter=next_counter(highest, now_unix_s),
            created_unix_s=now_unix_s,
            expires_unix_s=now_unix_s + self._valid_s,
            files=_files(adapter),
            base_weights=base_weights,
            note="round",
        )

    def _read_last(self) -> SignedManifest | None:
        """A damaged record costs a new signature, no more: the time keeps the counter growing."""
        try:
            last = msgspec.json.decode(self._record.read_bytes(), type=SignedManifest)
            read_manifest(last.content)
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError, ReleaseError):
            return None
        return last


def _files(adapter: BlobRef) -> list[ReleaseFile]:
    return [ReleaseFile(path=ADAPTER_FILE, sha256=adapter.sha256, size_bytes=adapter.size_bytes)]
