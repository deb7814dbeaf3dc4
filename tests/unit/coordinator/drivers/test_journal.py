"""What was appended is there after anything but the loss of the disk."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from coordinator.drivers.journal import Journal, decode_event, read_journal
from coordinator.state import AnyEvent
from coordinator.transitions import fold
from fedpt.errors import StorageError
from tests.fakes.histories import (
    histories,
    round_started,
    run_started,
    update_accepted,
    whole_round,
)

EVENTS: list[AnyEvent] = [run_started(), *whole_round(1), round_started(2)]

WRITER = """
import sys
from pathlib import Path
from coordinator.drivers.journal import Journal, decode_event
from tests.fakes.histories import run_started, whole_round
journal = Journal(Path(sys.argv[1]), decode_event)
for event in [run_started(), *whole_round()]:
    journal.append(event)
    print("appended", flush=True)
sys.stdin.read()
"""


def write(path: Path, events: list[AnyEvent]) -> None:
    with closing(Journal(path, decode_event)) as journal:
        for event in events:
            journal.append(event)


@pytest.mark.parametrize("name", ["state", "a state? 100%#1"])
def test_events_survive_reopening_in_order(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "journal.sqlite"
    write(path, EVENTS[:3])
    write(path, EVENTS[3:])
    with closing(Journal(path, decode_event)) as journal:
        assert journal.read() == EVENTS
    assert path.is_file()


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories())
def test_the_state_is_the_fold_of_the_journal(tmp_path: Path, events: list[AnyEvent]) -> None:
    path = tmp_path / "journal.sqlite"
    path.unlink(missing_ok=True)
    write(path, events)
    assert fold(read_journal(path)) == fold(events)


def test_another_process_reads_along(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    assert read_journal(path) == []
    with closing(Journal(path, decode_event)) as journal:
        journal.append(EVENTS[0])
        assert read_journal(path) == EVENTS[:1]


def test_an_event_is_there_although_its_writer_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(3):
            assert writer.stdout.readline() == b"appended\n"
        os.kill(writer.pid, signal.SIGKILL)
    with closing(Journal(path, decode_event)) as journal:
        events = journal.read()
        assert events[:3] == EVENTS[:3]
        journal.append(update_accepted("board-2"))
        assert journal.read() == [*events, update_accepted("board-2")]


@pytest.mark.parametrize("content", [b"rubbish" * 500, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="cannot open the journal") as caught:
        Journal(path, decode_event)
    assert "\n" not in str(caught.value)


def test_an_event_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    write(path, EVENTS)
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE events SET event = x'c1' WHERE number = 2")
        database.commit()
    with (
        closing(Journal(path, decode_event)) as journal,
        pytest.raises(StorageError, match="move it away to begin anew") as caught,
    ):
        journal.read()
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot open the journal"):
        Journal(tmp_path / "file" / "journal.sqlite", decode_event)
