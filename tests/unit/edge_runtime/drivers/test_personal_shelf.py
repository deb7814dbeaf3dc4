"""The personal adapter's files: what counts, and what a power cut leaves."""

from pathlib import Path

import msgspec
import pytest

from edge_runtime.drivers.personal_shelf import FORGOTTEN, PERSONAL_FOLDER, PersonalShelf
from edge_runtime.personal import PersonalRecord
from fedpt.adapters import require_averageable
from fedpt.errors import AdapterError
from tests.fakes.tiny_federation import TinyFederation

RECORD = PersonalRecord(base="b" * 64, federation="f" * 64, example_count=30, nll_after=0.5)


@pytest.fixture
def shelf(tmp_path: Path) -> PersonalShelf:
    return PersonalShelf(tmp_path)


def settled(shelf: PersonalShelf, blob: bytes) -> PersonalRecord:
    record = msgspec.structs.replace(RECORD, adapter=shelf.keep(blob))
    shelf.settle(record)
    return record


def test_what_was_settled_is_there_after_a_restart(
    shelf: PersonalShelf, tiny: TinyFederation, tmp_path: Path
) -> None:
    record = settled(shelf, tiny.adapter_blob.read_bytes())
    again = PersonalShelf(tmp_path)
    assert again.record() == record
    require_averageable(again.adapter(record.adapter), tiny.adapter)


def test_until_the_next_is_settled_the_one_before_counts(shelf: PersonalShelf) -> None:
    record = settled(shelf, b"the first")
    shelf.keep(b"the second")  # and the power is cut
    assert shelf.record() == record
    settled(shelf, b"the third")
    assert len(list(shelf.gguf("x").parent.glob("*.blob"))) == 1


def test_a_failed_training_leaves_no_adapter_and_no_checkpoint(
    shelf: PersonalShelf, tmp_path: Path
) -> None:
    settled(shelf, b"the first")
    training = tmp_path / PERSONAL_FOLDER / "training"
    training.mkdir()
    (training / "checkpoint").write_bytes(b"...")
    failed = msgspec.structs.replace(RECORD, fault="worse than before")
    shelf.settle(failed)
    assert shelf.record() == failed
    assert [path.name for path in (tmp_path / PERSONAL_FOLDER).iterdir()] == ["record.json"]


def test_forgetting_leaves_a_note_without_the_adapter(shelf: PersonalShelf, tmp_path: Path) -> None:
    shelf.forget()
    assert shelf.record() is None  # there was none
    settled(shelf, b"ours")
    shelf.forget()
    assert shelf.record() == PersonalRecord(
        base=RECORD.base, federation=RECORD.federation, fault=FORGOTTEN
    )
    assert [path.name for path in (tmp_path / PERSONAL_FOLDER).iterdir()] == ["record.json"]


def test_damaged_files_are_as_good_as_none(shelf: PersonalShelf, tmp_path: Path) -> None:
    record = settled(shelf, b"no adapter")
    with pytest.raises(AdapterError):
        shelf.adapter(record.adapter)
    with pytest.raises(AdapterError):
        shelf.adapter("0" * 64)
    (tmp_path / PERSONAL_FOLDER / "record.json").write_bytes(b'{"base": 7')
    assert shelf.record() is None
