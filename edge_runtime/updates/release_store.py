"""The releases on a device's disk: `<kind>/<id>/`, the links `current` and `previous`, `boot.json`.

Made so that a power cut at any moment leaves the old or the new release in use: a folder counts
only with its marker, the candidate is noted before the links change, a link changes in one step.
What is written is in `boot_guard`, which must do without the rest of us.
"""

import shutil
import time
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.updates import boot_guard
from edge_runtime.updates.boot_guard import CURRENT, MARKER, PREVIOUS, Record
from edge_runtime.updates.shelf import Shelf
from fedpt.errors import ReleaseError, StorageError
from fedpt.files import write_bytes
from fedpt.release_folder import write_signed
from fedpt.releases import KINDS, Kind, SignedManifest

OnStep = Callable[[str], None]
"""Told after each step that lasts; tests cut the power there."""


class ReleaseStore:
    """The releases of a device. Any process of the device may use it; `boot.json` is locked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def shelf(self, kind: Kind) -> Shelf:
        """What there is of a kind."""
        record = boot_guard.read_records(self._folder)[kind]
        return Shelf(
            current=boot_guard.linked(self._folder / kind, CURRENT),
            previous=boot_guard.linked(self._folder / kind, PREVIOUS),
            candidate=record.candidate,
            tries_left=record.tries_left,
            highest_counter=record.highest_counter,
            refused=record.refused,
            rolled_back=record.rolled_back,
            round_release=record.round_release,
        )

    def shelves(self) -> dict[Kind, Shelf]:
        """What there is of every kind."""
        return {kind: self.shelf(kind) for kind in KINDS}

    def path(self, kind: Kind, release: str) -> Path:
        """Where a release is, or will be."""
        return self._folder / kind / release

    def current_path(self, kind: Kind, name: str) -> Path | None:
        """A file of the release in use, if there is such a release and file."""
        release = boot_guard.linked(self._folder / kind, CURRENT)
        path = self.path(kind, release) / name
        return path if release and path.is_file() else None

    def is_complete(self, kind: Kind, release: str) -> bool:
        """Whether it was fetched, checked and tried."""
        return boot_guard.is_complete(self._folder / kind, release)

    def begin(self, kind: Kind, signed: SignedManifest) -> Path:
        """The folder of a release that is to come; what an interrupted try left there stays.

        Raises:
            StorageError: It cannot be written.
        """
        folder = self.path(kind, signed.id)
        write_signed(folder, signed)
        return folder

    def complete(self, kind: Kind, release: str) -> None:
        """Mark a release as whole, after all of it is on disk.

        Raises:
            StorageError: It cannot be written.
        """
        folder = self.path(kind, release)
        with _storage_errors(folder):
            _sync_tree(folder)
        write_bytes(folder / MARKER, f"{release}\n".encode())

    def switch(
        self, kind: Kind, release: str, *, starts: int, on_step: OnStep = lambda _name: None
    ) -> None:
        """Use a complete release from now on, on trial.

        Raises:
            ReleaseError: It is not complete.
            StorageError: It cannot be written; the old or the new one is in use.
        """
        if not self.is_complete(kind, release):
            raise ReleaseError(f"the {kind} release {release} is not complete")
        folder = self._folder / kind
        with self._records() as records:
            record = records[kind]
            self._keep_last_good(folder, record)
            record.candidate, record.tries_left = release, starts
            record.highest_counter = max(record.highest_counter, boot_guard.counter_of(release))
        on_step("noted")
        with _storage_errors(folder):
            boot_guard.complete_switch(folder, record, on_step)

    def finish_interrupted(self) -> list[Kind]:
        """End switches that a power cut left half done; says of which kinds.

        The boot guard has done so already where it runs.

        Raises:
            StorageError: A link cannot be written.
        """
        ended: list[Kind] = []
        for kind, shelf in self.shelves().items():
            record = Record(shelf.candidate, shelf.tries_left)
            due = shelf.candidate != shelf.current and shelf.tries_left > 0
            if due and self.is_complete(kind, shelf.candidate):
                with _storage_errors(self._folder):
                    boot_guard.complete_switch(self._folder / kind, record)
                ended.append(kind)
        return ended

    def mark_good(
        self, kinds: Iterable[Kind] = KINDS, *, running: Container[str] | None = None
    ) -> list[str]:
        """What is on trial has proved itself; says what that was.

        Args:
            kinds: Of these kinds.
            running: Only if it is among these: another may have been installed by hand since.

        Raises:
            StorageError: It cannot be written.
        """
        if not any(self.shelf(kind).candidate for kind in kinds):
            return []
        good = []
        with self._records() as records:
            for kind in kinds:
                current = boot_guard.linked(self._folder / kind, CURRENT)
                is_meant = running is None or current in running
                if current and is_meant and records[kind].candidate == current:
                    good.append(current)
                    records[kind].candidate, records[kind].tries_left = "", 0
        return good

    def give_start_back(self, kinds: Iterable[Kind], *, starts: int) -> None:
        """This start says nothing about what is on trial: it was ended on purpose, say.

        Raises:
            StorageError: It cannot be written.
        """
        with self._records() as records:
            for kind in kinds:
                record = records[kind]
                if record.candidate:
                    record.tries_left = min(starts, record.tries_left + 1)

    def refuse(self, kind: Kind, release: str, why: str) -> None:
        """Remember not to try a release again.

        Raises:
            StorageError: It cannot be written.
        """
        with self._records() as records:
            boot_guard.refuse(records[kind], release, why)

    def roll_back(self, kind: Kind, why: str) -> bool:
        """Take back what is on trial, if there is something to go back to.

        Raises:
            StorageError: It cannot be written.
        """
        with self._records() as records:
            records[kind].tries_left = 0
        with self._records() as records, _storage_errors(self._folder):
            folder = self._folder / kind
            is_on_trial = bool(records[kind].candidate)
            return is_on_trial and boot_guard.roll_back(folder, records[kind], why, time.time())

    def note_round_release(self, release: str) -> None:
        """An adapter that came with a round was accepted; older ones are refused from now on.

        Raises:
            StorageError: It cannot be written.
        """
        counter = boot_guard.counter_of(release)
        with self._records() as records:
            record = records["adapter"]
            record.round_release = release
            record.highest_counter = max(record.highest_counter, counter)

    def prune(self, kind: Kind, *, keep: Iterable[str] = ()) -> None:
        """Delete everything of a kind but what is in use, what was before, and `keep`."""
        shelf = self.shelf(kind)
        wanted = {CURRENT, PREVIOUS, shelf.current, shelf.previous, shelf.candidate, *keep}
        for path in (self._folder / kind).glob("*"):
            if path.name in wanted:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    @contextmanager
    def _records(self) -> Iterator[dict[Kind, Record]]:
        """All records, to be changed; written at the end of the block."""
        with _storage_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            with boot_guard.locked(self._folder) as is_ours:
                if not is_ours:
                    raise StorageError(f"another process installs into {self._folder}; wait for it")
                records = boot_guard.read_records(self._folder)
                yield {kind: records[kind] for kind in KINDS}
                boot_guard.write_records(self._folder, records)

    @staticmethod
    def _keep_last_good(folder: Path, record: Record) -> None:
        """One that never proved itself is not what to go back to: go back before leaving it."""
        previous = boot_guard.linked(folder, PREVIOUS)
        if record.candidate and previous and boot_guard.linked(folder, CURRENT) == record.candidate:
            boot_guard.link(folder, CURRENT, previous)


def _sync_tree(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            boot_guard.sync(path)


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
