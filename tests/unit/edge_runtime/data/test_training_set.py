from pathlib import Path

import pytest

from edge_runtime.data.store import DataStore
from edge_runtime.data.training_set import read_training_set
from fedpt.errors import DataFileError
from fedpt.examples import Example, write_examples

EXAMPLES = [Example("a", "b"), Example("c", "d")]


def test_a_files_examples_are_numbered_from_one(tmp_path: Path) -> None:
    write_examples(tmp_path / "d.jsonl", EXAMPLES)
    assert read_training_set(tmp_path / "d.jsonl") == dict(enumerate(EXAMPLES, start=1))


def test_a_stores_examples_are_known_by_their_ids(tmp_path: Path) -> None:
    store = DataStore(tmp_path / "private.db")
    store.add([Example("removed", "b"), *EXAMPLES])
    store.remove([1])
    assert read_training_set(store.path) == {2: EXAMPLES[0], 3: EXAMPLES[1]}
    assert list(read_training_set(store.path, up_to_place=2)) == [2]


def test_what_is_neither_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="no such data file"):
        read_training_set(tmp_path / "none.jsonl")
    with pytest.raises(DataFileError, match="no examples to train on"):
        read_training_set(tmp_path / "none.db", up_to_place=0)
