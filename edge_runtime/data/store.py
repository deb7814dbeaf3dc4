"""The store of a device's private examples: each kept once, none with a secret trained on unasked.

Every call is one transaction on a connection of its own, so any number of threads and processes may
use a store at once: the daemon, its training, command lines.

An example is *usable* once it has a place in the order of training. A new one's place is after all
others, so those up to a place stay the same however many are added or allowed later.
"""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_runtime.data.database import create, is_there, opened, wipe_log
from edge_runtime.data.sameness import digest_of
from edge_runtime.data.secrets import secret_kinds
from fedpt.errors import DataFileError, UsageError
from fedpt.examples import Example

PATIENCE_S: Final = 30.0
"""A slow card writes thousands of examples in less."""

_GIVE_PLACE: Final = (
    "UPDATE examples SET place ="
    " COALESCE(place, (SELECT COALESCE(MAX(place), 0) + 1 FROM examples))"
)
"""The next one, to whoever has none."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an example that was to be added."""

    id: int
    is_new: bool
    """False: it was there already."""
    secrets: tuple[str, ...]
    """Kinds of secrets found in it."""
    is_usable: bool
    """False: flagged, and waiting for a person's word."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An example as the store has it."""

    id: int
    example: Example
    secrets: tuple[str, ...]
    is_usable: bool
    added_unix_s: float


@dataclass(frozen=True, slots=True)
class Counts:
    """How many examples there are."""

    usable: int = 0
    flagged: int = 0
    """Not trained on: they seem to hold secrets, and nobody has allowed them."""


class DataStore:
    """A store; its file need not exist before something is added."""

    def __init__(self, path: Path, *, patience_s: float = PATIENCE_S) -> None:
        """Touches nothing.

        Args:
            path: The file.
            patience_s: How long to wait for another who writes.
        """
        self.path = path
        self._patience_s = patience_s

    def add(self, examples: Sequence[Example], *, allow_flagged: bool = False) -> list[Kept]:
        """Add all of them, or none if anything fails.

        Args:
            examples: Any that are there already stay as they are.
            allow_flagged: Whether a person vouches for those that seem to hold secrets.

        Raises:
            DataFileError: The store is damaged.
            StorageError: It cannot be written.
        """
        if not is_there(self.path):
            create(self.path)
        looked_at = [(one, secret_kinds(_texts(one))) for one in examples]  # nobody waits for this
        with opened(self.path, patience_s=self._patience_s, may_write=True) as database:
            return [
                _keep(database, one, kinds, allow_flagged=allow_flagged) for one, kinds in looked_at
            ]

    def allow(self, ids: Sequence[int]) -> None:
        """Have flagged examples trained on; those that are already stay so.

        Raises:
            UsageError: One of them is not there; nothing was allowed.
            DataFileError: The store is damaged.
            StorageError: It cannot be written.
        """
        self._change(f"{_GIVE_PLACE} WHERE id = ?", ids)

    def remove(self, ids: Sequence[int]) -> None:
        """Remove examples, their texts too: what is deleted is overwritten.

        Raises:
            UsageError: One of them is not there; nothing was removed.
            DataFileError: The store is damaged.
            StorageError: It cannot be written.
        """
        self._change("DELETE FROM examples WHERE id = ?", ids)
        wipe_log(self.path, patience_s=self._patience_s)

    def entries(self) -> list[Entry]:
        """All of them, the first one first.

        Raises:
            DataFileError: The store is damaged.
            StorageError: It cannot be read.
        """
        rows = self._read(
            "SELECT id, question, answer, system, secrets, place, added_unix_s FROM examples"
            " ORDER BY id"
        )
        return [
            Entry(
                id=row[0],
                example=Example(*row[1:4]),
                secrets=tuple(row[4].splitlines()),
                is_usable=row[5] is not None,
                added_unix_s=row[6],
            )
            for row in rows
        ]

    def counts(self) -> Counts:
        """How many there are.

        Raises:
            DataFileError: The store is damaged.
            StorageError: It cannot be read.
        """
        rows = self._read("SELECT COUNT(place), COUNT(*) - COUNT(place) FROM examples")
        return Counts(*rows[0]) if rows else Counts()

    def last_place(self) -> int:
        """The last one's in the order of training; 0: nothing can be trained on.

        Raises:
            DataFileError: The store is damaged.
            StorageError: It cannot be read.
        """
        rows = self._read("SELECT COALESCE(MAX(place), 0) FROM examples")
        return int(rows[0][0]) if rows else 0

    def usable(self, *, up_to_place: int | None = None) -> dict[int, Example]:
        """What is trained on, by id and in order.

        Args:
            up_to_place: As `last_place` was at some time: what could be trained on then. None:
                all.

        Raises:
            DataFileError: There is nothing, or the store is damaged.
            StorageError: It cannot be read.
        """
        rows = self._read(
            "SELECT id, question, answer, system FROM examples"
            " WHERE place <= COALESCE(?, place) ORDER BY place",
            up_to_place,
        )
        if not rows:
            raise DataFileError(self._nothing_usable())
        return {row[0]: Example(*row[1:]) for row in rows}

    def require_sound(self) -> None:
        """Look at the whole file.

        Raises:
            DataFileError: It is damaged.
            StorageError: It cannot be read.
        """
        faults = [row[0] for row in self._read("PRAGMA integrity_check(1)")]
        if faults and faults != ["ok"]:
            raise DataFileError(f"{self.path} is damaged: {' '.join(faults[0].split())}")

    def _read(self, query: str, *values: object) -> list[Any]:  # Any: rows, as the query has them
        if not is_there(self.path):
            return []
        with opened(self.path, patience_s=self._patience_s, may_write=False) as database:
            return database.execute(query, values).fetchall()

    def _change(self, statement: str, ids: Sequence[int]) -> None:
        """One that names an id, for each of them or for none."""
        if not is_there(self.path):
            raise UsageError(f"{self.path} holds no examples yet")
        with opened(self.path, patience_s=self._patience_s, may_write=True) as database:
            for one in dict.fromkeys(ids):
                if database.execute(statement, (one,)).rowcount == 0:
                    raise UsageError(
                        f"no example {one} in {self.path}, so nothing was changed:"
                        " fedpt device data list"
                    )

    def _nothing_usable(self) -> str:
        flagged = self.counts().flagged
        if flagged:
            return (
                f"all {flagged} examples in {self.path} seem to hold secrets: look at them (fedpt"
                " device data list --flagged), then allow them"
            )
        return f"{self.path} holds no examples to train on: fedpt device data add"


def _texts(example: Example) -> tuple[str, str, str]:
    return example.system, example.prompt, example.answer


def _keep(
    database: sqlite3.Connection, example: Example, kinds: tuple[str, ...], *, allow_flagged: bool
) -> Kept:
    """Add one example, or find it."""
    digest = digest_of(example)
    is_new = _find(database, digest) is None
    if is_new:
        database.execute(
            "INSERT INTO examples (digest, system, question, answer, secrets, added_unix_s)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (digest, *_texts(example), "\n".join(kinds), time.time()),
        )
    if allow_flagged or (is_new and not kinds):
        database.execute(f"{_GIVE_PLACE} WHERE digest = ?", (digest,))
    number, place = _find(database, digest)
    return Kept(number, is_new, kinds, is_usable=place is not None)


def _find(database: sqlite3.Connection, digest: bytes) -> Any:  # Any: id and place, or None
    return database.execute("SELECT id, place FROM examples WHERE digest = ?", (digest,)).fetchone()
