"""The personal adapter on disk: its blob, its GGUF, and a record of how it was made.

The record is written last and names the others, so a power cut leaves the adapter of before. Not
in the blob store: what lies there may be asked for by others.
"""

import shutil
from pathlib import Path
from typing import Final

import msgspec

from edge_runtime.personal import PersonalRecord
from fedpt.adapters import Adapter, adapter_from_bytes, adapter_to_bytes
from fedpt.errors import AdapterError, StorageError
from fedpt.files import sha256_bytes, write_bytes
from fedpt.ids import Sha256
from fedpt.struct_file import read_struct

PERSONAL_FOLDER: Final = "personal"
"""Below the device's state folder."""
TRAINING_FOLDER: Final = f"{PERSONAL_FOLDER}/training"
FORGOTTEN: Final = "forgotten; trained again from the federation's next adapter"
_RECORD_NAME: Final = "record.json"
_START_NAME: Final = "start.blob"
_MODE: Final = 0o600
"""It has learnt what nobody else shall read."""


class PersonalShelf:
    """One board's."""

    def __init__(self, state_dir: Path) -> None:
        """Touches nothing."""
        self._folder = state_dir / PERSONAL_FOLDER
        self._state_dir = state_dir

    def record(self) -> PersonalRecord | None:
        """The record; None: there is none, or none that can be read."""
        lost = "the personal adapter is lost"
        return read_struct(self._folder / _RECORD_NAME, PersonalRecord, lost=lost)

    def keep(self, blob: bytes) -> Sha256:
        """Put an adapter beside that of before; its id. `settle` makes it the one that counts.

        Raises:
            StorageError: It could not be written.
        """
        adapter = sha256_bytes(blob)
        write_bytes(self._blob(adapter), blob, mode=_MODE)
        return adapter

    def settle(self, record: PersonalRecord) -> None:
        """Keep what came of a training; all adapters but the one that it names are deleted.

        Raises:
            StorageError: It could not be written.
        """
        write_bytes(self._folder / _RECORD_NAME, msgspec.json.encode(record), mode=_MODE)
        kept = (self._blob(record.adapter), self.gguf(record.adapter))
        for path in (*self._folder.glob("*.blob"), *self._folder.glob("*.gguf")):
            if path not in kept:
                path.unlink(missing_ok=True)
        shutil.rmtree(self._state_dir / TRAINING_FOLDER, ignore_errors=True)

    def adapter(self, sha256: str) -> Adapter:
        """A personal adapter.

        Raises:
            AdapterError: It is not there, or damaged.
        """
        try:
            return adapter_from_bytes(self._blob(sha256).read_bytes())
        except OSError as error:
            raise AdapterError(f"the personal adapter cannot be read: {error}") from error

    def gguf(self, sha256: str) -> Path:
        """Where it lies for llama.cpp."""
        return self._folder / f"{sha256}.gguf"

    def put_start(self, adapter: Adapter) -> Path:
        """Write what a training starts from; the same bytes for the same adapter.

        Raises:
            StorageError: It could not be written.
        """
        path = self._folder / _START_NAME
        write_bytes(path, adapter_to_bytes(adapter), mode=_MODE)
        return path

    def forget(self) -> None:
        """Delete the personal adapter; none is trained again from the same one of the federation.

        Raises:
            StorageError: That could not be noted; it is deleted all the same.
        """
        record = self.record()
        if record is None:
            self.clear()
            return
        note = PersonalRecord(base=record.base, federation=record.federation, fault=FORGOTTEN)
        try:
            self.settle(note)  # the note first: killed after it, nothing is trained again
        except StorageError:
            self.clear()
            raise

    def clear(self) -> None:
        """Delete all of it."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _blob(self, adapter: str) -> Path:
        return self._folder / f"{adapter}.blob"
