"""The number of a daemon's start."""

from pathlib import Path

import pytest

from edge_runtime.drivers.sessions import next_session


def test_a_start_with_a_clock_in_the_past_still_gets_a_higher_number(tmp_path: Path) -> None:
    first = next_session(tmp_path / "session", 1_000)
    assert next_session(tmp_path / "session", 5) == first + 1


def test_a_clock_that_is_right_is_the_number(tmp_path: Path) -> None:
    next_session(tmp_path / "session", 5)
    assert next_session(tmp_path / "session", 1_000) == 1_000


@pytest.mark.parametrize("content", ["", "soon", "\0"])
def test_a_damaged_file_begins_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "session").write_text(content)
    assert next_session(tmp_path / "session", 7) == 7
