"""`fedpt device data …`, as people and scripts call it: real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.data.store import Counts, DataStore
from fedpt.examples import Example, read_examples

PAIR = '{"instruction": "Good night", "response": "Sleep well."}'
ALPACA = '{"instruction": "Sum up", "input": "a b c", "output": "abc"}'
CHAT = json.dumps(
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
)
CARD = '{"instruction": "my card?", "response": "It is 4111 1111 1111 1111."}'


class Board:
    """A device's folder, and its command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "device.toml"
        self.config.write_text(
            'name = "kitchen"\nsmall = "s.gguf"\ndata = "private.db"\nstate_dir = "state"\n'
        )
        self.store = DataStore(folder / "private.db")

    def file(self, name: str, *lines: str) -> Path:
        (self.folder / name).write_text("\n".join(lines), encoding="utf-8")
        return self.folder / name

    def data(self, *words: object, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fedpt.cli", "device", "data", *map(str, words)]
        return subprocess.run(
            [*command, "--config", str(self.config)],
            capture_output=True,
            text=True,
            input=given,
            check=False,
        )

    def done(self, *words: object, given: str = "") -> str:
        """What it prints; it must end well."""
        result = self.data(*words, given=given)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refused(self, *words: object, given: str = "") -> str:
        """The one line of complaint."""
        result = self.data(*words, given=given)
        assert result.returncode in (1, 2)
        (line,) = result.stderr.splitlines()
        return line


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_files_of_all_forms_are_added_and_what_became_of_them_told(board: Board) -> None:
    one = board.file("one.jsonl", PAIR, "", ALPACA, CHAT, PAIR)
    two = board.file("two.jsonl", PAIR, CARD)
    told = board.done("add", one, two).splitlines()
    assert told[0] == f"{one}: 3 new, 1 known already, 0 flagged"
    assert told[1] == f"{two}: 1 new, 1 known already, 1 flagged"
    assert told[2] == "  example 4 seems to hold a secret (card number): not learnt from"
    assert board.store.counts() == Counts(usable=3, flagged=1)
    assert Example("Sum up\n\na b c", "abc") in board.store.usable().values()


def test_of_many_flagged_examples_the_first_are_told(board: Board) -> None:
    cards = [CARD.replace("my card", f"card {number}") for number in range(14)]
    lines = board.done("add", board.file("cards.jsonl", *cards)).splitlines()
    assert len(lines) == 13
    assert lines[-2] == "  … and 4 more"


def test_standard_input_is_added_and_told_as_json(board: Board) -> None:
    told = json.loads(board.done("add", "-", "--json", given=f"{PAIR}\n{CARD}\n"))
    assert told == {"file": "-", "new": 2, "known": 0, "flagged": {"2": ["card number"]}}
    again = json.loads(board.done("add", "-", "--json", "--allow-flagged", given=CARD))
    assert again == {"file": "-", "new": 0, "known": 1, "flagged": {}}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{broken", "bad.jsonl, line 2: not JSON"),
        (b'{"instruction": "a", "response": " "}', "bad.jsonl, line 2: the answer is missing"),
        (b'{"instruction": "K\xfcche", "response": "b"}', "bad.jsonl, line 2: not UTF-8"),
        (b'{"instruction": "\\ud800", "response": "b"}', "bad.jsonl, line 2: '\\ud800' is half"),
    ],
)
def test_a_bad_line_is_told_and_nothing_of_its_file_is_added(
    board: Board, line: bytes, complaint: str
) -> None:
    good = board.file("good.jsonl", ALPACA)
    bad = board.file("bad.jsonl")
    bad.write_bytes(PAIR.encode() + b"\n" + line + b"\n")
    assert complaint in board.refused("add", good, bad)
    assert list(board.store.usable().values()) == read_examples(good)


def test_a_list_shows_no_secret_in_any_form(board: Board) -> None:
    board.done("add", "-", given=f"{PAIR}\n{CARD}\n")
    lines = board.data("list")
    assert "Good night -> Sleep well." in lines.stdout
    assert "flagged (card number)  my card? -> It is [card number]." in lines.stdout
    assert "1 examples to learn from, 1 flagged" in lines.stderr
    (flagged,) = board.done("list", "--flagged").splitlines()
    shown = json.loads(board.done("list", "--flagged", "--json"))
    assert [one["answer"] for one in shown["examples"]] == ["It is [card number]."]
    assert (shown["usable"], shown["flagged"]) == (1, 1)
    assert not any("4111" in text for text in (lines.stdout, flagged, json.dumps(shown)))


def test_a_long_or_hostile_text_is_a_short_line(board: Board) -> None:
    board.store.add([Example("\x1b]0;owned\x07" + "long " * 50, "a\nb\tc")])
    (line,) = board.done("list").splitlines()
    assert "\x1b" not in line
    assert line.endswith("… -> a b c")


def test_what_is_allowed_is_learnt_and_what_is_removed_is_gone(board: Board) -> None:
    board.done("add", "-", given=f"{PAIR}\n{CARD}\n{ALPACA}\n")
    assert board.done("allow", 2) == "allowed: example 2; the next training learns from them\n"
    assert board.store.counts() == Counts(usable=3)
    assert board.done("remove", 1, 2, 1) == "removed: examples 1, 2\n"
    assert list(board.store.usable()) == [3]


def test_an_unknown_id_is_refused_and_nothing_done(board: Board) -> None:
    assert "holds no examples yet" in board.refused("remove", 1)
    board.done("add", "-", given=PAIR)
    assert "no example 9 in" in board.refused("remove", 1, 9)
    assert board.store.counts() == Counts(usable=1)


def test_what_is_exported_is_added_again_and_for_its_owner_alone(board: Board) -> None:
    board.done("add", "-", given=f"{PAIR}\n{CARD}\n{CHAT}\n")
    out = board.folder / "out.jsonl"
    out.write_text("an older one")
    before = os.umask(0)
    try:
        told = board.done("export", out)
    finally:
        os.umask(before)
    assert told == f"wrote 3 examples to {out}; 1 of them seem to hold secrets\n"
    assert out.stat().st_mode & 0o777 == 0o600
    assert read_examples(out) == [one.example for one in board.store.entries()]
    assert "3 known already" in board.done("add", out)


def test_an_export_that_cannot_be_is_refused(board: Board) -> None:
    out = board.folder / "out.jsonl"
    assert "nothing to write" in board.refused("export", out)
    assert not out.exists()
    board.done("add", "-", given=PAIR)
    assert "is the store itself" in board.refused("export", board.folder / "private.db")
    assert "cannot write" in board.refused("export", "/proc/out.jsonl")
    assert board.store.counts() == Counts(usable=1)


def test_a_settings_file_that_names_plain_text_says_what_to_do(board: Board) -> None:
    board.config.write_text(board.config.read_text().replace("private.db", "mine.jsonl"))
    line = board.refused("list")
    assert 'set data = "mine.db"' in line
    assert "fedpt device data add mine.jsonl --config" in line


def test_a_device_that_only_answers_says_so(board: Board) -> None:
    board.config.write_text('name = "kitchen"\nsmall = "s.gguf"\nstate_dir = "state"\n')
    assert 'set data = "private.db" in' in board.refused("list")


@pytest.mark.parametrize("command", ["add", "list", "allow", "remove", "export"])
def test_each_command_shows_an_example_of_itself(command: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "fedpt.cli", "device", "data", command, "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"fedpt device data {command} " in " ".join(shown.split())
