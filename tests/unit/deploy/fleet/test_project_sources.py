"""Which of a checkout's files make its wheel."""

from pathlib import Path

import pytest

from deploy.fleet.project_sources import find_constraints, find_project, sources_sha256


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The smallest checkout."""
    (tmp_path / "pyproject.toml").write_text('[tool.setuptools]\npackages = ["a", "a.b"]\n')
    (tmp_path / "README.md").touch()
    (tmp_path / "LICENSE").touch()
    (tmp_path / "constraints.txt").touch()
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "code.py").write_text("1")
    return tmp_path


def test_a_change_of_any_source_changes_the_hash(project: Path) -> None:
    before = sources_sha256(project)
    (project / "a" / "b" / "code.py").write_text("2")
    assert sources_sha256(project) != before


def test_a_new_file_that_is_shipped_changes_the_hash(project: Path) -> None:
    before = sources_sha256(project)
    (project / "a" / "unit.service").write_text("")
    assert sources_sha256(project) != before


@pytest.mark.parametrize(
    "path", ["a/__pycache__/x.pyc", "a/.mypy_cache/x", "build/x", "tests/t.py"]
)
def test_leftovers_and_tests_do_not(project: Path, path: str) -> None:
    before = sources_sha256(project)
    (project / path).parent.mkdir(parents=True, exist_ok=True)
    (project / path).write_text("x")
    assert sources_sha256(project) == before


def test_this_checkout_is_found_with_its_constraints() -> None:
    project = find_project()
    assert project is not None
    assert find_constraints() == project / "constraints.txt"
