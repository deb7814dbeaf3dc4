"""Chunks on their way down."""

from pathlib import Path

import pytest

from coordinator.downloads import Downloads
from fedpt.blobs import CHUNK_BYTES, BlobStore
from fedpt.wire.messages import BlobRef, ChunkRequest

CONTENT = b"a" * CHUNK_BYTES + b"b" * 10


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


@pytest.fixture
def blob(store: BlobStore) -> BlobRef:
    return store.put(CONTENT)


def want(blob: BlobRef, *indices: int) -> ChunkRequest:
    return ChunkRequest(sha256=blob.sha256, indices=list(indices))


def test_a_chunk_that_several_devices_want_is_sent_once(store: BlobStore, blob: BlobRef) -> None:
    downloads = Downloads(store)
    first = list(downloads.chunks(want(blob, 0, 1), blob.sha256, 0.0))
    assert b"".join(chunk for _, chunk in first) == CONTENT
    assert list(downloads.chunks(want(blob, 0, 1), blob.sha256, 0.5)) == []


def test_a_device_that_missed_a_chunk_gets_it_later(store: BlobStore, blob: BlobRef) -> None:
    downloads = Downloads(store)
    list(downloads.chunks(want(blob, 1), blob.sha256, 0.0))
    assert list(downloads.chunks(want(blob, 1), blob.sha256, 2.0)) == [(1, b"b" * 10)]


def test_only_the_offered_blob_is_served(store: BlobStore, blob: BlobRef) -> None:
    other = store.put(b"secret")
    assert list(Downloads(store).chunks(want(other, 0), blob.sha256, 0.0)) == []


def test_a_chunk_past_the_end_is_nothing(store: BlobStore, blob: BlobRef) -> None:
    assert list(Downloads(store).chunks(want(blob, 2, 2**62), blob.sha256, 0.0)) == []
