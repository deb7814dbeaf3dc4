"""Before every start of the device: take back a release that does not get the device running.

A release that was switched to is a *candidate* until the device has been well for a while and says
so. Every start costs it a try; without tries left, `current` becomes `previous` again. Also ends a
switch that a power cut left half done.

Runs outside of the runtime that it guards: as a file of its own, under the system's Python 3.9 or
newer, with the standard library only. The device's own code imports it, so that `boot.json` and the
links are written in this one place:

    <releases>/boot.json                    what `Record` says, of every kind
    <releases>/<kind>/<id>/.complete        the marker, written last: without it a folder is nothing
    <releases>/<kind>/current, previous     links to ids
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = ("model", "adapter", "runtime", "keys")
OPTIONAL_KINDS = ("adapter", "keys")
"""Those without which a device works too."""

BOOT_FILE = "boot.json"
LOCK_FILE = ".lock"
MARKER = ".complete"
CURRENT = "current"
PREVIOUS = "previous"

_MOST_REFUSED = 100
_LOCK_WAIT_S = 5.0
_POLL_S = 0.1
_ARGUMENTS = 2


@dataclass
class Record:
    """What is remembered of a kind of releases."""

    candidate: str = ""
    """The release that must still prove itself; noted before the switch to it."""
    tries_left: int = 0
    """Starts that it may still take."""
    highest_counter: int = 0
    """The newest that was ever accepted, rolled back or not."""
    round_release: str = ""
    """For adapters: the last one that came with a round."""
    refused: dict[str, str] = field(default_factory=dict)
    """Releases that are not tried again, and why."""
    rolled_back: dict[str, Any] = field(default_factory=dict)
    """The last that was taken back: `id`, `unix_s`, `why`."""


def read_records(root: Path) -> dict[str, Record]:
    """What `boot.json` says; whatever is damaged or missing counts as never written.

    Counters are never lower than those of the releases in use. One that only lies there, complete,
    may still have to be switched to after a power cut: it does not count as seen.
    """
    try:
        with (root / BOOT_FILE).open(encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError):
        content = None
    kinds = content.get("kinds") if isinstance(content, dict) else None
    records = {}
    for kind in KINDS:
        records[kind] = _record(kinds.get(kind) if isinstance(kinds, dict) else None)
        used = [counter_of(linked(root / kind, name)) for name in (CURRENT, PREVIOUS)]
        records[kind].highest_counter = max([records[kind].highest_counter, *used])
    return records


def write_records(root: Path, records: dict[str, Record]) -> None:
    """Write `boot.json`, whole or not at all; it is on disk when this returns.

    Raises:
        OSError: It cannot be written.
    """
    content = {"format": 1, "kinds": {kind: vars(record) for kind, record in records.items()}}
    aside = root / f".{BOOT_FILE}.{os.getpid()}"
    try:
        with aside.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(root / BOOT_FILE)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
    sync(root)


@contextlib.contextmanager
def locked(root: Path, wait_s: float = _LOCK_WAIT_S) -> Iterator[bool]:
    """Hold the releases while the block runs; False if another still does after `wait_s`."""
    descriptor = os.open(root / LOCK_FILE, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        yield _lock(descriptor, time.monotonic() + wait_s)
    finally:
        os.close(descriptor)


def linked(folder: Path, name: str) -> str:
    """The release that a link names; empty if there is none or it is not complete."""
    try:
        target = str((folder / name).readlink())
    except OSError:
        return ""
    return target if is_complete(folder, target) else ""


def link(folder: Path, name: str, release: str) -> None:
    """Let a link name a release, in one step.

    Raises:
        OSError: It cannot be written.
    """
    aside = folder / f".{name}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    aside.symlink_to(release)
    aside.replace(folder / name)
    sync(folder)


def is_complete(folder: Path, release: str) -> bool:
    """Whether a release lies there as a whole."""
    is_plain = bool(release) and "/" not in release and not release.startswith(".")
    return is_plain and (folder / release / MARKER).is_file()


def counter_of(release: str) -> int:
    """The counter that a release's name begins with."""
    digits = release.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def complete_switch(
    folder: Path, record: Record, on_step: Callable[[str], None] = lambda _name: None
) -> None:
    """Let `current` be the candidate; safe to repeat.

    `previous` is what was current, unless that never proved itself: see `Record.candidate`.

    Raises:
        OSError: A link cannot be written.
    """
    current = linked(folder, CURRENT)
    if current == record.candidate:
        return
    if current:
        link(folder, PREVIOUS, current)
        on_step("previous")
    link(folder, CURRENT, record.candidate)
    on_step("switched")


def roll_back(folder: Path, record: Record, why: str, now_unix_s: float) -> bool:
    """Take the candidate back, if there is something to go back to; safe to repeat.

    The link first: with no tries left in `boot.json`, an interruption in between only repeats it.

    Raises:
        OSError: The link cannot be written.
    """
    previous = linked(folder, PREVIOUS)
    if linked(folder, CURRENT) == record.candidate:
        if previous not in ("", record.candidate):
            link(folder, CURRENT, previous)
        elif folder.name in OPTIONAL_KINDS:
            (folder / CURRENT).unlink()
            sync(folder)
        else:
            return False
    refuse(record, record.candidate, why)
    record.rolled_back = {"id": record.candidate, "unix_s": now_unix_s, "why": why}
    record.candidate, record.tries_left = "", 0
    return True


def refuse(record: Record, release: str, why: str) -> None:
    """Remember a release as one not to try again."""
    record.refused[release] = why
    while len(record.refused) > _MOST_REFUSED:
        del record.refused[next(iter(record.refused))]


def guard(root: Path, now_unix_s: float) -> list[str]:
    """Do what is due before a start.

    Returns:
        What happened, a line each.
    """
    records, lines = read_records(root), []
    for kind in KINDS:
        try:
            lines += _guard_kind(root / kind, kind, records[kind], now_unix_s)
        except OSError as error:
            lines.append(f"{kind}: {error}")
    write_records(root, records)
    return lines


def _guard_kind(folder: Path, kind: str, record: Record, now_unix_s: float) -> list[str]:
    candidate = record.candidate
    if candidate and not is_complete(folder, candidate):
        record.candidate, record.tries_left = "", 0
        return _mend(folder, kind)
    if candidate and record.tries_left > 0:
        complete_switch(folder, record)
        record.tries_left -= 1
        return [f"{kind}: {candidate} is on trial, {record.tries_left} more starts after this"]
    if candidate:
        why = "the device did not stay up with it"
        if roll_back(folder, record, why, now_unix_s):
            return [f"{kind}: {candidate} taken back: {why}"]
        return [f"{kind}: {candidate} does not work, and there is nothing to go back to"]
    return _mend(folder, kind)


def _mend(folder: Path, kind: str) -> list[str]:
    """A `current` that names nothing, after a damaged disk, say."""
    previous = linked(folder, PREVIOUS)
    if not (folder / CURRENT).is_symlink() or linked(folder, CURRENT):
        return []
    if not previous:
        return [f"{kind}: the current release is damaged, and there is no previous one"]
    link(folder, CURRENT, previous)
    return [f"{kind}: the current release is damaged; back to {previous}"]


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, last.

    Raises:
        OSError: The disk fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, end: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)
        else:
            return True


def _record(content: Any) -> Record:
    """Trusts nothing: a field of another type is as if it were not there."""
    record = Record()
    for name, usual in vars(Record()).items():
        value = content.get(name) if isinstance(content, dict) else None
        if type(value) is type(usual) and (not isinstance(value, int) or value >= 0):
            setattr(record, name, value)
    record.refused = {str(one): str(why) for one, why in record.refused.items()}
    return record


def main(arguments: list[str]) -> int:
    """Guard the folder that is named; never an obstacle to a start."""
    if len(arguments) != _ARGUMENTS:
        print("usage: boot-guard.py RELEASES", file=sys.stderr)  # noqa: T201
        return 0
    try:
        root = Path(arguments[1])
        with locked(root):
            lines = guard(root, time.time())
    except Exception as error:  # noqa: BLE001  # a device that starts can be mended
        lines = [f"cannot look after {arguments[1]}: {error}"]
    for line in lines:
        print(f"boot-guard: {line}", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
