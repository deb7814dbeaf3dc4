"""Updates on their way, from honest devices and from others."""

from pathlib import Path

import pytest

from coordinator.uploads import Uploads
from fedpt.blobs import CHUNK_BYTES, BlobStore
from fedpt.errors import BlobError
from fedpt.ids import DeviceId
from fedpt.wire.messages import BlobRef, UpdateOffer
from tests.fakes.wire_messages import offer, ref

MAX_UPDATE_BYTES = 4_000_000
ONE, TWO = DeviceId("board-1"), DeviceId("board-2")
CONTENT = b"a" * CHUNK_BYTES + b"b" * 10
OFFER = offer(update=ref(CONTENT))


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


@pytest.fixture
def uploads(store: BlobStore) -> Uploads:
    return Uploads(store)


def send(uploads: Uploads, device: DeviceId, content: bytes, made: UpdateOffer = OFFER) -> None:
    for index in range(made.update.chunk_count):
        chunk = content[index * CHUNK_BYTES :][:CHUNK_BYTES]
        uploads.accept(device, made.update.sha256, index, chunk, now=0.0)


def test_an_update_is_asked_for_chunk_by_chunk_and_joined(
    uploads: Uploads, store: BlobStore
) -> None:
    uploads.begin(ONE, OFFER, max_bytes=MAX_UPDATE_BYTES)
    ((device, request),) = uploads.requests(0.0)
    assert (device, request.sha256, request.indices) == (ONE, OFFER.update.sha256, [0, 1])
    assert uploads.complete() == []
    send(uploads, ONE, CONTENT)
    assert uploads.complete() == [(ONE, OFFER)]
    assert uploads.requests(100.0) == []
    assert uploads.finish(ONE) == CONTENT == store.get(OFFER.update.sha256)
    assert uploads.complete() == []


def test_a_repeated_offer_goes_on_with_what_is_here(uploads: Uploads) -> None:
    uploads.begin(ONE, OFFER, max_bytes=MAX_UPDATE_BYTES)
    uploads.accept(ONE, OFFER.update.sha256, 0, CONTENT[:CHUNK_BYTES], now=0.0)
    assert uploads.requests(0.0) != []
    uploads.begin(ONE, OFFER, max_bytes=MAX_UPDATE_BYTES)
    assert uploads.requests(1.0) == []
    assert uploads.requests(100.0)[0][1].indices == [1]


def test_a_restarted_coordinator_asks_for_the_rest_only(uploads: Uploads, store: BlobStore) -> None:
    uploads.begin(ONE, OFFER, max_bytes=MAX_UPDATE_BYTES)
    uploads.accept(ONE, OFFER.update.sha256, 0, CONTENT[:CHUNK_BYTES], now=0.0)
    again = Uploads(store)
    again.begin(ONE, OFFER, max_bytes=MAX_UPDATE_BYTES)
    assert again.requests(0.0)[0][1].indices == [1]


def test_missing_chunks_are_asked_for_again_but_not_at_once(uploads: Uploads) -> None:
    uploads.begin(ONE, OFFER, max_bytes=MAX_UPDATE_BYTES)
    assert [len(uploads.requests(now)) for now in (0.0, 1.0, 5.0)] == [1, 0, 1]


def test_another_offer_takes_the_place_of_a_devices_first(uploads: Uploads) -> None:
    uploads.begin(ONE, OFFER, max_bytes=MAX_UPDATE_BYTES)
    other = offer(update=ref("another"))
    uploads.begin(ONE, other, max_bytes=MAX_UPDATE_BYTES)
    assert [request.sha256 for _, request in uploads.requests(0.0)] == [other.update.sha256]


def test_what_nobody_wants_any_more_is_forgotten(uploads: Uploads) -> None:
    uploads.begin(ONE, OFFER, max_bytes=MAX_UPDATE_BYTES)
    uploads.begin(TWO, offer(update=ref("another")), max_bytes=MAX_UPDATE_BYTES)
    uploads.keep_only(lambda device, _offer: device == TWO)
    assert [device for device, _ in uploads.requests(0.0)] == [TWO]


@pytest.mark.parametrize(
    ("size", "chunk"), [(MAX_UPDATE_BYTES + 1, CHUNK_BYTES), (2**63, CHUNK_BYTES), (10**6, 1)]
)
def test_an_offer_of_wild_sizes_is_refused(uploads: Uploads, size: int, chunk: int) -> None:
    wild = BlobRef(sha256="0" * 64, size_bytes=size, chunk_bytes=chunk)
    with pytest.raises(BlobError):
        uploads.begin(ONE, offer(update=wild), max_bytes=MAX_UPDATE_BYTES)
    assert uploads.requests(0.0) == []


def test_chunks_that_nobody_asked_for_leave_no_trace(uploads: Uploads, store: BlobStore) -> None:
    send(uploads, TWO, CONTENT)
    uploads.begin(ONE, OFFER, max_bytes=MAX_UPDATE_BYTES)
    send(uploads, TWO, CONTENT)
    uploads.accept(ONE, "0" * 64, 0, b"x", now=0.0)
    assert uploads.complete() == []
    assert not store.parts(OFFER.update.sha256).exists()


@pytest.mark.parametrize(("index", "content"), [(0, b"short"), (2, b"b" * 10), (999_999, b"")])
def test_chunks_that_do_not_fit_are_refused(uploads: Uploads, index: int, content: bytes) -> None:
    uploads.begin(ONE, OFFER, max_bytes=MAX_UPDATE_BYTES)
    with pytest.raises(BlobError, match="chunk"):
        uploads.accept(ONE, OFFER.update.sha256, index, content, now=0.0)


def test_a_blob_that_is_another_is_refused_and_can_be_sent_again(uploads: Uploads) -> None:
    uploads.begin(ONE, OFFER, max_bytes=MAX_UPDATE_BYTES)
    send(uploads, ONE, CONTENT[::-1])
    with pytest.raises(BlobError, match="is not"):
        uploads.finish(ONE)
    uploads.begin(ONE, OFFER, max_bytes=MAX_UPDATE_BYTES)
    assert uploads.requests(0.0)[0][1].indices == [0, 1]


def test_a_known_blob_has_to_be_sent_by_who_offers_it(uploads: Uploads, store: BlobStore) -> None:
    store.put(CONTENT)
    uploads.begin(TWO, OFFER, max_bytes=MAX_UPDATE_BYTES)
    assert uploads.complete() == []
