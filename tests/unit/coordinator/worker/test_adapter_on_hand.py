"""The federation's adapter: from the coordinator's folder or in chunks, and never by halves."""

from pathlib import Path

import pytest

from coordinator.worker.adapter_on_hand import AdapterOnHand
from fedpt.blobs import BlobStore
from fedpt.errors import BlobError, FedptError
from fedpt.gguf_file import read_gguf
from fedpt.wire.messages import ChunkRequest
from tests.fakes.tiny_federation import TinyFederation
from tests.fakes.wire_messages import announcement, ref


@pytest.fixture
def asked() -> list[ChunkRequest]:
    return []


@pytest.fixture
def on_hand(tiny: TinyFederation, tmp_path: Path) -> AdapterOnHand:
    return AdapterOnHand(
        read_gguf(tiny.small),
        BlobStore(tmp_path / "coordinator"),
        BlobStore(tmp_path / "own" / "blobs"),
        folder=tmp_path / "own",
    )


def test_before_any_announcement_there_is_nothing_to_do(
    on_hand: AdapterOnHand, asked: list[ChunkRequest]
) -> None:
    assert on_hand.step(asked.append) is None
    assert asked == []


def test_what_the_coordinator_has_on_this_machine_is_used_at_once(
    tiny: TinyFederation, on_hand: AdapterOnHand, tmp_path: Path, asked: list[ChunkRequest]
) -> None:
    blob = tiny.adapter_blob.read_bytes()
    BlobStore(tmp_path / "coordinator").put(blob)
    on_hand.hear(announcement(adapter=ref(blob)))
    found = on_hand.step(asked.append)
    assert found is not None
    assert found[0] == ref(blob).sha256
    assert found[1].read_bytes() == tiny.adapter_gguf.read_bytes()
    assert asked == []
    assert on_hand.step(asked.append) is None


def test_elsewhere_it_comes_in_chunks(
    tiny: TinyFederation, on_hand: AdapterOnHand, asked: list[ChunkRequest]
) -> None:
    blob = tiny.adapter_blob.read_bytes()
    wanted = ref(blob)
    on_hand.hear(announcement(adapter=wanted))
    assert on_hand.step(asked.append) is None
    assert asked == [ChunkRequest(sha256=wanted.sha256, indices=list(range(wanted.chunk_count)))]
    for index in range(wanted.chunk_count):
        on_hand.accept("f" * 64, index, b"of another")
        start = index * wanted.chunk_bytes
        on_hand.accept(wanted.sha256, index, blob[start : start + wanted.chunk_bytes])
    assert on_hand.step(asked.append) is None
    found = on_hand.step(asked.append)
    assert found is not None
    assert found[0] == wanted.sha256


def test_a_new_adapter_takes_the_place_of_the_old_one_on_disk(
    tiny: TinyFederation, on_hand: AdapterOnHand, tmp_path: Path, asked: list[ChunkRequest]
) -> None:
    blob = tiny.adapter_blob.read_bytes()
    BlobStore(tmp_path / "coordinator").put(blob)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "old.gguf").write_bytes(b"x")
    on_hand.hear(announcement(adapter=ref(blob)))
    on_hand.step(asked.append)
    assert [one.name for one in (tmp_path / "own").glob("*.gguf")] == [f"{ref(blob).sha256}.gguf"]


def test_a_damaged_adapter_is_told_and_not_tried_for_ever(
    on_hand: AdapterOnHand, tmp_path: Path, asked: list[ChunkRequest]
) -> None:
    BlobStore(tmp_path / "coordinator").put(b"no adapter")
    on_hand.hear(announcement(adapter=ref(b"no adapter")))
    with pytest.raises(FedptError):
        on_hand.step(asked.append)
    assert on_hand.step(asked.append) is None


def test_too_large_an_adapter_is_not_even_asked_for(
    on_hand: AdapterOnHand, asked: list[ChunkRequest]
) -> None:
    large = ref(b"x")
    huge = type(large)(sha256=large.sha256, size_bytes=2**40, chunk_bytes=large.chunk_bytes)
    with pytest.raises(BlobError, match="is the most here"):
        on_hand.hear(announcement(adapter=huge))
    assert on_hand.step(asked.append) is None
