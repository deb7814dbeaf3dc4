import os
from pathlib import Path

import pytest

from edge_runtime.data.counting import ExampleCounter
from edge_runtime.data.store import Counts, DataStore
from fedpt.errors import DataFileError
from fedpt.examples import Example

CARD = Example("pay with 4111 1111 1111 1111", "done")


def test_whatever_others_add_allow_or_remove_is_counted(tmp_path: Path) -> None:
    store = DataStore(tmp_path / "private.db")
    counter = ExampleCounter(store.path)
    assert counter.counts == Counts()
    store.add([Example("a", "b"), CARD])
    assert counter.counts == Counts(usable=1, flagged=1)
    store.allow([2])
    assert counter.counts == Counts(usable=2)
    store.remove([1, 2])
    assert counter.counts == Counts()


def test_a_store_that_has_not_changed_is_not_touched(tmp_path: Path) -> None:
    store = DataStore(tmp_path / "private.db")
    store.add([Example("a", "b")])
    os.utime(store.path, (1e9, 1e9))
    counter = ExampleCounter(store.path)
    before = tmp_path.stat().st_mtime_ns  # changes with every file beside the store
    assert [counter.counts for _ in range(3)] == [Counts(1)] * 3
    assert tmp_path.stat().st_mtime_ns == before


def test_a_fault_in_between_is_logged_once_and_the_counts_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = DataStore(tmp_path / "private.db")
    store.add([Example("a", "b")])
    counter = ExampleCounter(store.path)
    store.path.write_text("half a li")
    assert [counter.counts for _ in range(3)] == [Counts(1)] * 3
    assert len(caplog.records) == 1


def test_a_damaged_store_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "private.db").write_text("half a li")
    with pytest.raises(DataFileError, match="no data store"):
        ExampleCounter(tmp_path / "private.db")


def test_a_device_without_a_store_has_no_examples() -> None:
    assert ExampleCounter(None).counts == Counts()
