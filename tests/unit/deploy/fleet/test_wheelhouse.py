"""Wheelhouses made by the real pip, of tiny wheels in a folder that is its only index."""

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.fleet import special_wheels
from deploy.fleet.boards import Board, find_board
from deploy.fleet.wheelhouse import WheelhouseRequest, build_wheelhouse
from fedpt.errors import FleetError
from fedpt.progress import Progress
from fedpt.releases import REQUIREMENTS_FILE
from tests.fakes.wheels import make_wheel

RPI5 = find_board("rpi5")
ANSWERS_ONLY = replace(RPI5, extra="assistant")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where pip finds what an index would have."""
    folder = tmp_path / "index"
    make_wheel(folder, "pip", "26.3")
    make_wheel(folder, "numpy", "2.0", tag="cp313-cp313-manylinux_2_28_aarch64")
    make_wheel(folder, "numpy", "2.0", tag="cp311-cp311-manylinux_2_28_x86_64")
    make_wheel(folder, "only-new", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    return folder


def _given(folder: Path, board: Board) -> Path:
    """What the operator made: fedpt, and llama.cpp for the board."""
    requires = [
        'numpy; extra == "assistant"',
        'llama-cpp-python; extra == "assistant"',
        'only-new; python_version >= "3.13" and extra == "assistant"',
        'fedpt[assistant]; extra == "device"',
        'torch; extra == "device"',
    ]
    make_wheel(folder, "fedpt", "0.1.0", requires=requires)
    tag = f"py3-none-linux_{board.architecture}"
    make_wheel(folder, "llama-cpp-python", "0.3.36", tag=tag)
    return folder


def _request(tmp_path: Path, board: Board) -> WheelhouseRequest:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("# why\nllama-cpp-python==0.3.36\ntorch==2.13.0\n")
    return WheelhouseRequest(
        board=board,
        constraints=constraints,
        project=None,
        given=_given(tmp_path / "given", board),
        cache=tmp_path / "cache",
    )


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_it_holds_what_the_board_needs_and_a_lock_with_hashes(tmp_path: Path) -> None:
    folder = build_wheelhouse(_request(tmp_path, ANSWERS_ONLY))
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "fedpt-0.1.0-py3-none-any.whl",
        "llama_cpp_python-0.3.36-py3-none-linux_aarch64.whl",
        "numpy-2.0-cp313-cp313-manylinux_2_28_aarch64.whl",
        "only_new-1-py3-none-any.whl",  # whatever Python this test runs with
        "pip-26.3-py3-none-any.whl",
        REQUIREMENTS_FILE,
    ]
    lines = (folder / REQUIREMENTS_FILE).read_text().splitlines()
    assert [line.split()[0] for line in lines] == [
        "fedpt==0.1.0",
        "llama-cpp-python==0.3.36",
        "numpy==2.0",
        "only-new==1",
        "pip==26.3",
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_a_wheelhouse_that_still_fits_is_used_again_and_another_board_gets_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = _request(tmp_path, ANSWERS_ONLY)
    first = build_wheelhouse(request)
    with monkeypatch.context() as without_pip:
        without_pip.setattr("deploy.fleet.wheelhouse.run_pip", None)
        assert build_wheelhouse(request) == first
    request.constraints.write_text(request.constraints.read_text() + "numpy==2.0\n")
    assert build_wheelhouse(request) != first


@pytest.mark.slow
def test_torch_is_the_cpu_build_even_where_an_index_has_a_newer_looking_one(
    tmp_path: Path, index: Path
) -> None:
    tag = "cp313-cp313-manylinux_2_28_aarch64"
    make_wheel(index, "torch", "2.13.0", tag=tag, requires=["gigabytes-of-cuda"])
    make_wheel(index, "torch", "2.13.0+cpu", tag=tag)
    folder = build_wheelhouse(_request(tmp_path, RPI5))
    assert "torch==2.13.0+cpu " in (folder / REQUIREMENTS_FILE).read_text()


@pytest.mark.slow
def test_without_a_cpu_build_one_line_says_where_to_get_it(tmp_path: Path, index: Path) -> None:
    make_wheel(index, "torch", "2.13.0", tag="cp313-cp313-manylinux_2_28_aarch64")
    with pytest.raises(FleetError, match=r"no wheel of torch==2\.13\.0\+cpu.*--wheels") as caught:
        build_wheelhouse(_request(tmp_path, RPI5))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("*"))


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_without_llama_cpp_one_line_says_how_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(special_wheels, "can_compile_for", lambda _: False)
    request = _request(tmp_path, ANSWERS_ONLY)
    next(request.given.glob("llama*") if request.given else iter(())).unlink()
    how = r"pip wheel --no-deps llama-cpp-python==0\.3\.36 -w wheels"
    with pytest.raises(FleetError, match=how) as caught:
        build_wheelhouse(request)
    assert "dotprod" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_pip_reports_what_it_does(tmp_path: Path) -> None:
    seen: list[Progress] = []
    build_wheelhouse(_request(tmp_path, ANSWERS_ONLY), on_progress=seen.append)
    assert any("numpy" in progress.note for progress in seen)
    assert all(progress.done <= progress.total for progress in seen)


def test_constraints_that_pin_no_llama_cpp_are_refused(tmp_path: Path) -> None:
    request = _request(tmp_path, ANSWERS_ONLY)
    request.constraints.write_text("torch==2.13.0\n")
    with pytest.raises(FleetError, match="do not pin llama-cpp-python"):
        build_wheelhouse(request)


def test_an_installed_fedpt_needs_its_wheel_from_the_operator(tmp_path: Path) -> None:
    request = replace(_request(tmp_path, ANSWERS_ONLY), given=None)
    with pytest.raises(FleetError, match="put its one wheel"):
        build_wheelhouse(request)


def test_nothing_is_compiled_for_another_processor_or_an_older_libc() -> None:
    old = replace(RPI5.system, glibc=(2, 1))
    machine = "x86_64" if special_wheels.platform.machine() == "aarch64" else "aarch64"
    other = replace(find_board("generic-x86"), architecture=machine)
    assert not special_wheels.can_compile_for(other)
    assert not special_wheels.can_compile_for(replace(find_board("generic-x86"), system=old))
