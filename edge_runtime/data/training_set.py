"""What a training trains on: a device's store, or a JSONL file that somebody names."""

from pathlib import Path

from edge_runtime.data.database import is_database
from edge_runtime.data.store import DataStore
from fedpt.examples import Example, read_examples


def read_training_set(path: Path, *, up_to_place: int | None = None) -> dict[int, Example]:
    """The examples by number, in order: a store's by their ids, a file's counted from 1 on.

    Args:
        path: A store, or a JSONL file.
        up_to_place: Of a store, see `DataStore.usable`; None: all that is there.

    Raises:
        DataFileError: There are none, the store is damaged, or the file has a bad line.
        StorageError: The store cannot be read.
    """
    if up_to_place is not None or is_database(path):
        return DataStore(path).usable(up_to_place=up_to_place)
    return dict(enumerate(read_examples(path), start=1))
