"""Blobs arrive whole, whatever the network does with their chunks."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedpt.blobs import CHUNK_BYTES, BlobStore, Fetch, require_fetchable
from fedpt.errors import BlobError, StorageError
from fedpt.wire.messages import BlobRef
from tests.fakes.wire_messages import ref

CONTENT = b"0123456789abc"
REF = ref(CONTENT, chunk_bytes=3)
CHUNKS = [CONTENT[start : start + 3] for start in range(0, len(CONTENT), 3)]


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def accept(fetch: Fetch, *indices: int, now: float = 0.0) -> None:
    for index in indices:
        fetch.accept(index, CHUNKS[index], now=now)


# -- the store -------------------------------------------------------------------------------------


def test_a_blob_is_kept_under_its_hash(store: BlobStore) -> None:
    kept = store.put(CONTENT)
    assert kept == ref(CONTENT)
    assert kept.sha256 in store
    assert store.get(kept.sha256) == CONTENT
    assert store.ref(kept.sha256) == store.put(CONTENT) == kept


def test_a_blob_that_is_not_here_is_told(store: BlobStore) -> None:
    for ask in (store.get, store.ref, lambda sha256: store.chunk(sha256, 0)):
        with pytest.raises(BlobError, match=f"no blob {REF.sha256} in "):
            ask(REF.sha256)


def test_a_blob_damaged_on_disk_is_found_and_deleted(store: BlobStore) -> None:
    store.put(CONTENT)
    store.path(REF.sha256).write_bytes(b"other")
    with pytest.raises(BlobError, match="was damaged on disk"):
        store.get(REF.sha256)
    assert REF.sha256 not in store


def test_chunks_joined_are_the_blob(store: BlobStore) -> None:
    content = bytes(range(256)) * 1024 + b"rest"
    kept = store.put(content)
    assert b"".join(store.chunk(kept.sha256, i) for i in range(kept.chunk_count)) == content


@pytest.mark.parametrize("index", [1, 2**45, 2**46, 2**63, 2**64 - 1])
def test_a_chunk_past_the_end_is_empty(store: BlobStore, index: int) -> None:
    assert store.chunk(store.put(CONTENT).sha256, index) == b""


def test_only_what_is_wanted_stays(store: BlobStore) -> None:
    kept, gone = store.put(b"kept"), store.put(b"gone")
    for fetched in (kept, gone):
        store.parts(fetched.sha256).mkdir()
    store.keep_only([kept.sha256])
    assert store.get(kept.sha256) == b"kept"
    assert gone.sha256 not in store
    assert store.parts(kept.sha256).exists()
    assert not store.parts(gone.sha256).exists()


def test_a_store_without_a_folder_has_nothing_to_delete(store: BlobStore) -> None:
    store.keep_only([])


# -- a fetch ---------------------------------------------------------------------------------------


def test_chunks_may_come_in_any_order_and_twice(store: BlobStore) -> None:
    fetch = Fetch(REF, store)
    accept(fetch, 3, 0, 3, 4, 1, 0, 2)
    assert fetch.is_complete
    assert fetch.finish() == store.get(REF.sha256) == CONTENT
    assert not store.parts(REF.sha256).exists()


def test_a_lost_chunk_is_asked_for_again_after_a_while(store: BlobStore) -> None:
    fetch = Fetch(REF, store)
    assert fetch.next_request(10.0) == [0, 1, 2, 3, 4]
    accept(fetch, 0, 2, 4, now=12.0)
    assert fetch.next_request(14.9) == []
    assert fetch.next_request(15.0) == [1, 3]


def test_a_window_that_came_opens_the_next_at_once(store: BlobStore) -> None:
    fetch = Fetch(ref(bytes(40), chunk_bytes=1), store)
    first = fetch.next_request(0.0)
    assert first == list(range(16))
    for index in first:
        fetch.accept(index, b"\0", now=0.0)
    assert fetch.next_request(0.0) == list(range(16, 32))


def test_a_restart_loses_no_chunk(store: BlobStore) -> None:
    accept(Fetch(REF, store), 1, 4)
    again = Fetch(REF, store)
    assert again.next_request(0.0) == [0, 2, 3]
    accept(again, 0, 2, 3)
    assert again.finish() == CONTENT


def test_a_half_written_chunk_is_not_counted(store: BlobStore) -> None:
    store.parts(REF.sha256).mkdir(parents=True)
    (store.parts(REF.sha256) / ".0.half").write_bytes(b"0")
    assert Fetch(REF, store).next_request(0.0) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("index", "content", "message"),
    [
        (5, b"xyz", "chunk 5 of a blob of 5"),
        (-1, b"xyz", "chunk -1 of a blob of 5"),
        (2**64, b"xyz", "of a blob of 5"),
        (0, b"xy", "chunk 0 is 2 bytes, not 3"),
        (4, b"xyz", "chunk 4 is 3 bytes, not 1"),
        (0, b"", "chunk 0 is 0 bytes, not 3"),
    ],
)
def test_what_is_no_chunk_of_the_blob_is_refused(
    store: BlobStore, index: int, content: bytes, message: str
) -> None:
    with pytest.raises(BlobError, match=message):
        Fetch(REF, store).accept(index, content, now=0.0)


def test_a_blob_of_other_content_is_dropped_and_fetched_anew(store: BlobStore) -> None:
    fetch = Fetch(REF, store)
    fetch.next_request(0.0)
    accept(fetch, 0, 1, 2, 3)
    fetch.accept(4, b"X", now=0.0)
    with pytest.raises(BlobError, match=r"is not .*; fetching it again"):
        fetch.finish()
    assert REF.sha256 not in store
    assert fetch.next_request(0.0) == [0, 1, 2, 3, 4]


def test_other_content_is_refused_even_if_the_right_one_is_here(store: BlobStore) -> None:
    store.put(CONTENT)
    fetch = Fetch(REF, store)
    for index, chunk in enumerate(CHUNKS):
        fetch.accept(index, b"X" * len(chunk), now=0.0)
    with pytest.raises(BlobError, match="the blob that came is not"):
        fetch.finish()
    assert store.get(REF.sha256) == CONTENT


def test_a_chunk_that_vanished_is_fetched_anew(store: BlobStore) -> None:
    fetch = Fetch(REF, store)
    accept(fetch, *range(5))
    shutil.rmtree(store.parts(REF.sha256))
    with pytest.raises(BlobError, match="is gone"):
        fetch.finish()
    assert not fetch.is_complete
    assert fetch.next_request(0.0) == [0, 1, 2, 3, 4]


def test_a_chunk_that_cannot_be_kept_stays_missing(store: BlobStore, tmp_path: Path) -> None:
    fetch = Fetch(REF, store)
    (tmp_path / "blobs").touch()
    with pytest.raises(StorageError):
        accept(fetch, 0)
    assert fetch.next_request(0.0)[0] == 0


def test_too_large_and_wrongly_cut_blobs_are_not_fetched() -> None:
    require_fetchable(ref(b"ok"), max_bytes=2)
    with pytest.raises(BlobError, match="a blob of 3 bytes; 2 is the most here"):
        require_fetchable(ref(b"big"), max_bytes=2)
    with pytest.raises(BlobError, match=f"chunks of 1 bytes; this protocol uses {CHUNK_BYTES}"):
        require_fetchable(BlobRef(sha256=REF.sha256, size_bytes=1, chunk_bytes=1), max_bytes=2)


class FetchMachine(RuleBasedStateMachine):
    """A receiver whose network loses, repeats, reorders and forges, and which is restarted."""

    @initialize(length=st.integers(1, 40))
    def begin(self, length: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.content = bytes(range(length))
        self.ref = ref(self.content, chunk_bytes=2)
        self.now = 0.0
        self.on_their_way: list[int] = []
        self.restart()

    def teardown(self) -> None:
        """A network that has become good delivers the blob in a bounded number of requests."""
        for _ in range(100):
            if self.fetch.is_complete and self.is_finished():
                break
            self.now += 3.0
            self.on_their_way = self.fetch.next_request(self.now)
            while self.on_their_way:
                self.deliver(0)
        assert BlobStore(self.folder).get(self.ref.sha256) == self.content
        shutil.rmtree(self.folder)

    @rule()
    def restart(self) -> None:
        self.fetch = Fetch(self.ref, BlobStore(self.folder))

    @rule(seconds=st.floats(0, 5))
    def ask(self, seconds: float) -> None:
        self.now += seconds
        request = self.fetch.next_request(self.now)
        assert len(request) <= 16
        self.on_their_way += request

    @precondition(lambda self: self.on_their_way)
    @rule(place=st.integers(0, 1000))
    def deliver(self, place: int) -> None:
        index = self.on_their_way.pop(place % len(self.on_their_way))
        self.repeat(index)

    @rule(index=st.integers(0, 34))
    def repeat(self, index: int) -> None:
        if index < self.ref.chunk_count:
            chunk = self.content[2 * index : 2 * index + 2]
            self.fetch.accept(index, chunk, now=self.now)

    @precondition(lambda self: self.on_their_way)
    @rule()
    def lose(self) -> None:
        self.on_their_way.clear()

    @rule(index=st.integers(0, 34))
    def forge(self, index: int) -> None:
        with suppress(BlobError):
            self.fetch.accept(index, b"XX", now=self.now)

    @precondition(lambda self: self.fetch.is_complete)
    @rule()
    def finish(self) -> None:
        self.is_finished()

    def is_finished(self) -> bool:
        try:
            assert self.fetch.finish() == self.content
        except BlobError:
            assert not self.fetch.is_complete
            return False
        self.restart()
        return True

    @invariant()
    def what_is_in_the_store_is_whole(self) -> None:
        store = BlobStore(self.folder)
        assert self.ref.sha256 not in store or store.get(self.ref.sha256) == self.content


TestFetchMachine = FetchMachine.TestCase
TestFetchMachine.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)
