"""What a board needs of the wheels at hand, judged for its own Python and processor."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy.fleet.boards import find_board
from deploy.fleet.closure import environment_of, find_closure, read_wheel, read_wheels
from fedpt.errors import FleetError
from tests.fakes.wheels import make_wheel

RPI5 = environment_of(find_board("rpi5"))


def _find(folder: Path, *roots: str) -> tuple[set[str], set[str]]:
    closure = find_closure(map(Requirement, roots), read_wheels(folder), RPI5)
    return set(closure.wheels), set(closure.missing)


def test_requirements_are_followed_and_what_nobody_needs_is_left_out(tmp_path: Path) -> None:
    make_wheel(tmp_path, "top", "1", requires=["middle>=1"])
    make_wheel(tmp_path, "middle", "1", requires=["bottom"])
    make_wheel(tmp_path, "other", "1")
    assert _find(tmp_path, "top") == ({"top", "middle"}, {"bottom"})


def test_markers_are_those_of_the_board_not_of_this_machine(tmp_path: Path) -> None:
    requires = ['new; python_version >= "3.13"', 'old; python_version < "3.13"']
    requires += ['arm; platform_machine == "aarch64"', 'pc; platform_machine == "x86_64"']
    make_wheel(tmp_path, "top", "1", requires=requires)
    assert _find(tmp_path, "top") == ({"top"}, {"new", "arm"})


def test_only_the_extras_asked_for_are_followed(tmp_path: Path) -> None:
    requires = ['a; extra == "one"', 'b; extra == "two"']
    make_wheel(tmp_path, "top", "1", requires=requires)
    assert _find(tmp_path, "top[one]")[1] == {"a"}


def test_an_extra_asked_for_later_is_still_followed(tmp_path: Path) -> None:
    make_wheel(tmp_path, "top", "1", requires=["mid", "other"])
    make_wheel(tmp_path, "mid", "1", requires=["leaf"])
    make_wheel(tmp_path, "other", "1", requires=["leaf[more]"])
    make_wheel(tmp_path, "leaf", "1", requires=['extra-thing; extra == "more"'])
    assert _find(tmp_path, "top")[1] == {"extra-thing"}


def test_wheels_that_need_each_other_come_to_an_end(tmp_path: Path) -> None:
    make_wheel(tmp_path, "a", "1", requires=["b"])
    make_wheel(tmp_path, "b", "1", requires=["a"])
    assert _find(tmp_path, "a") == ({"a", "b"}, set())


def test_a_version_that_is_not_allowed_counts_as_missing(tmp_path: Path) -> None:
    make_wheel(tmp_path, "a", "1", requires=["b>=2"])
    make_wheel(tmp_path, "b", "1")
    assert _find(tmp_path, "a") == ({"a"}, {"b"})


def test_two_wheels_of_one_project_are_refused(tmp_path: Path) -> None:
    make_wheel(tmp_path, "a", "1")
    make_wheel(tmp_path, "a", "2")
    with pytest.raises(FleetError, match=r"two wheels of a: a-1-.* and a-2-.*; remove one"):
        read_wheels(tmp_path)


@pytest.mark.parametrize("name", ["a-1-py3-none-any.whl", "nonsense.whl"])
@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_wheel_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FleetError, match=name) as caught:
        read_wheel(path)
    assert "\n" not in str(caught.value)
