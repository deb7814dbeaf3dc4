"""The guard as it runs on a board: a file of its own, under the system's Python."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.updates import boot_guard
from edge_runtime.updates.boot_guard import guard, read_records
from edge_runtime.updates.release_store import ReleaseStore
from tests.fakes.releases import put_complete

SCRIPT = Path(boot_guard.__file__)
PYTHON = shutil.which("python3", path="/usr/bin") or sys.executable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "releases"


@pytest.fixture
def store(root: Path) -> ReleaseStore:
    """A proven release, and a newer one on trial with three starts."""
    store = ReleaseStore(root)
    store.switch("model", put_complete(store, "model", 1), starts=3)
    store.mark_good()
    store.switch("model", put_complete(store, "model", 2), starts=3)
    return store


def start(root: Path | str, folder: Path) -> str:
    """Run a copy of the script without our packages in reach; what it says."""
    script = folder / "boot-guard.py"
    shutil.copyfile(SCRIPT, script)
    ended = subprocess.run(
        [PYTHON, "-I", "-S", str(script), str(root)], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "")
    return ended.stderr


def test_after_so_many_starts_the_release_before_is_back(
    root: Path, store: ReleaseStore, tmp_path: Path
) -> None:
    bad, good = store.shelf("model").current, store.shelf("model").previous
    for left in (2, 1, 0):
        assert f"on trial, {left} more starts" in start(root, tmp_path)
        assert store.shelf("model").current == bad
    assert f"{bad} taken back" in start(root, tmp_path)
    shelf = store.shelf("model")
    assert (shelf.current, shelf.candidate, shelf.highest_counter) == (good, "", 2)
    assert shelf.rolled_back["id"] == bad
    assert "did not stay up" in shelf.refused[bad]
    assert start(root, tmp_path) == ""


def test_a_release_that_proved_itself_stays(
    root: Path, store: ReleaseStore, tmp_path: Path
) -> None:
    start(root, tmp_path)
    store.mark_good()
    current = store.shelf("model").current
    for _ in range(5):
        assert start(root, tmp_path) == ""
    assert store.shelf("model").current == current


def test_a_switch_that_was_cut_off_is_ended(root: Path, store: ReleaseStore) -> None:
    new = store.shelf("model").candidate
    boot_guard.link(root / "model", "current", store.shelf("model").previous)
    guard(root, 0.0)
    assert store.shelf("model").current == new


def test_a_rollback_that_was_cut_off_is_ended_and_not_undone(
    root: Path, store: ReleaseStore
) -> None:
    records = read_records(root)
    records["model"].tries_left = 0
    boot_guard.write_records(root, records)
    boot_guard.link(root / "model", "current", good := store.shelf("model").previous)
    guard(root, 5.0)
    shelf = store.shelf("model")
    assert (shelf.current, shelf.candidate) == (good, "")
    assert shelf.rolled_back["unix_s"] == 5.0


def test_a_damaged_current_release_gives_way_to_the_one_before(
    root: Path, store: ReleaseStore
) -> None:
    store.mark_good()
    before = store.shelf("model").previous
    shutil.rmtree(store.path("model", store.shelf("model").current))
    assert "damaged; back to" in guard(root, 0.0)[0]
    assert store.shelf("model").current == before


def test_a_candidate_that_vanished_gives_way_too(root: Path, store: ReleaseStore) -> None:
    before = store.shelf("model").previous
    shutil.rmtree(store.path("model", store.shelf("model").current))
    guard(root, 0.0)
    assert (store.shelf("model").current, store.shelf("model").candidate) == (before, "")


def test_nothing_to_go_back_to_is_told_and_nothing_changes(root: Path) -> None:
    store = ReleaseStore(root)
    store.switch("runtime", only := put_complete(store, "runtime", 1), starts=1)
    guard(root, 0.0)
    assert "nothing to go back to" in guard(root, 0.0)[0]
    assert store.shelf("runtime").current == only


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"kinds": 3}', b"\xff\xfe", b"[" * 5000])
def test_a_damaged_memory_never_stops_a_start(
    root: Path, store: ReleaseStore, tmp_path: Path, content: bytes
) -> None:
    (root / "boot.json").write_bytes(content)
    current = store.shelf("model").current
    start(root, tmp_path)
    assert store.shelf("model").current == current
    assert json.loads((root / "boot.json").read_text())["format"] == 1


def test_no_folder_never_stops_a_start(tmp_path: Path) -> None:
    assert "cannot look after" in start(tmp_path / "nowhere", tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kinds", "model", "candidate", "tries_left", "highest_counter",
                             "refused", "rolled_back", "round_release"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_whatever_json_is_there_is_read_as_records(
    tmp_path_factory: pytest.TempPathFactory, content: object
) -> None:
    root = tmp_path_factory.getbasetemp() / "any-json"
    root.mkdir(exist_ok=True)
    (root / "boot.json").write_text(json.dumps(content))
    for record in read_records(root).values():
        assert isinstance(record.candidate, str)
        assert record.tries_left >= 0
        assert record.highest_counter >= 0
        assert all(isinstance(why, str) for why in record.refused.values())


def test_python_3_9_and_its_standard_library_are_enough() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert {str(name).partition(".")[0] for name in imported} <= sys.stdlib_module_names
