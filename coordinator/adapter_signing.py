"""The coordinator's signature under each round's adapter.

The key may sign adapters only: who takes the coordinator over can steer the rounds, as ever, but
cannot give the devices another model or runtime. The counter is the time in milliseconds, and above
the last one's in any case; the last manifest is on disk before anybody hears of it. So the same
adapter has the same manifest after a restart, and a coordinator that lost its disk can go on.
"""

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class _Signed:
    """A signature, and what it is under: the daemon's loop looks at the expiry all the time."""

    signed: SignedManifest
    manifest: Manifest


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
        last = self._last
        if last is None or not self._is_good(last, adapter, base_weights, now_unix_s):
            manifest = self._manifest(adapter, base_weights, now_unix_s)
            last = _Signed(sign_manifest(manifest, self._key), manifest)
            write_bytes(self._record, msgspec.json.encode(last.signed))
            self._last = last
        return last.signed.to_wire()

    def is_due(self, now_unix_s: float) -> bool:
        """Whether the last signature should be renewed."""
        if self._last is None:
            return False
        return self._last.manifest.expires_unix_s - now_unix_s < self._valid_s / 2

    def _is_good(
        self, last: _Signed, adapter: BlobRef, base_weights: str, now_unix_s: float
    ) -> bool:
        return (
            not self.is_due(now_unix_s)
            and last.manifest.files == _files(adapter)
            and last.manifest.base_weights == base_weights
            and last.signed.signature.key == self._key.public.id
        )

    def _manifest(self, adapter: BlobRef, base_weights: str, now_unix_s: float) -> Manifest:
        highest = self._last.manifest.counter if self._last is not None else 0
        return Manifest(
            kind="adapter",
            counter=next_counter(highest, now_unix_s),
            created_unix_s=now_unix_s,
            expires_unix_s=now_unix_s + self._valid_s,
            files=_files(adapter),
            base_weights=base_weights,
            note="round",
        )

    def _read_last(self) -> _Signed | None:
        """A damaged record costs a new signature, no more: the time keeps the counter growing."""
        try:
            signed = msgspec.json.decode(self._record.read_bytes(), type=SignedManifest)
            return _Signed(signed, read_manifest(signed.content))
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError, ReleaseError):
            return None


def _files(adapter: BlobRef) -> list[ReleaseFile]:
    return [ReleaseFile(path=ADAPTER_FILE, sha256=adapter.sha256, size_bytes=adapter.size_bytes)]
