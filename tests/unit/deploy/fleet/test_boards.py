"""The table of boards: what it says is what pip and systemd take."""

from dataclasses import replace

import pytest
from packaging.tags import compatible_tags, cpython_tags

from deploy.fleet.boards import BOARDS, BOOKWORM, NOBLE, Board, find_board, with_python
from fedpt.errors import UsageError


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_board_takes_wheels_of_its_own_processor_only(board: Board) -> None:
    assert all(platform.endswith(f"_{board.architecture}") for platform in board.platforms)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_board_leaves_memory_to_its_system(board: Board) -> None:
    assert board.memory_high_percent < board.memory_max_percent < 90


def test_platforms_are_newest_first_and_none_is_newer_than_the_system() -> None:
    platforms = find_board("rpi5").platforms
    assert platforms[0] == "manylinux_2_41_aarch64"
    assert platforms[-3:] == ("manylinux_2_17_aarch64", "manylinux2014_aarch64", "linux_aarch64")


def test_the_python_tag_is_as_in_the_names_of_wheels() -> None:
    board = find_board("rpi5")
    tags = [*cpython_tags((3, 13), platforms=board.platforms), *compatible_tags((3, 13))]
    assert board.python_tag in {tag.interpreter for tag in tags}


def test_longer_waits_between_restarts_are_only_for_a_systemd_that_knows_them() -> None:
    board = find_board("rpi5")
    assert "RestartSteps=" in board.limits
    assert "RestartSteps=" not in replace(board, system=BOOKWORM).limits


def test_another_python_brings_the_system_that_has_it() -> None:
    assert with_python(find_board("rpi5"), "3.11").system == BOOKWORM
    assert with_python(find_board("rpi5"), "3.12").system == NOBLE


def test_a_python_of_no_known_system_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'3\.10'.*3\.11, 3\.12, 3\.13"):
        with_python(find_board("rpi5"), "3.10")


def test_an_unknown_board_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match=r"'rpi3'; boards: rpi5, rpi4"):
        find_board("rpi3")
