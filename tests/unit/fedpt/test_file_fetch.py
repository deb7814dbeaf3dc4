"""Large blobs arrive whole and in a file, whatever the network does."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpt.errors import BlobError, StorageError
from fedpt.file_fetch import FileFetch
from tests.fakes.wire_messages import ref

CONTENT = bytes(range(100))
REF = ref(CONTENT, chunk_bytes=3)


def chunk(index: int) -> bytes:
    return CONTENT[3 * index : 3 * index + 3]


def receive(fetch: FileFetch, *indices: int) -> None:
    for index in indices:
        fetch.accept(index, chunk(index), now=0.0)


def receive_all(fetch: FileFetch, now: float = 1e6) -> None:
    while not fetch.is_complete:
        receive(fetch, *fetch.next_request(now))
        now += 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "model.gguf"


def test_chunks_become_the_file(path: Path) -> None:
    fetch = FileFetch(REF, path)
    receive_all(fetch)
    assert not path.exists()
    fetch.finish()
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["model.gguf"]  # noqa: PTH208


def test_chunks_that_come_early_wait_for_those_before_them(path: Path) -> None:
    fetch = FileFetch(REF, path)
    receive(fetch, 2, 1)
    assert path.with_name("model.gguf.part").stat().st_size == 0
    receive(fetch, 0, 0, 1)
    assert path.with_name("model.gguf.part").read_bytes() == CONTENT[:9]


@given(cut=st.integers(0, 120))
def test_it_goes_on_where_it_stopped_also_in_the_middle_of_a_chunk(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "resumed"
    path.with_name("resumed.part").write_bytes((CONTENT + bytes(20))[:cut])
    fetch = FileFetch(REF, path)
    if cut < 100:
        assert fetch.next_request(0.0)[0] == cut // 3
    receive_all(fetch)
    fetch.finish()
    assert path.read_bytes() == CONTENT


def test_what_was_damaged_on_disk_is_fetched_anew(path: Path) -> None:
    fetch = FileFetch(REF, path)
    receive_all(fetch)
    path.with_name("model.gguf.part").write_bytes(b"x" * 100)
    with pytest.raises(BlobError, match="fetching it again"):
        fetch.finish()
    assert not path.exists()
    receive_all(fetch)
    fetch.finish()
    assert path.read_bytes() == CONTENT


def test_lost_chunks_are_asked_for_again_and_only_those(path: Path) -> None:
    fetch = FileFetch(REF, path)
    assert fetch.next_request(0.0) == list(range(16))
    receive(fetch, *(index for index in range(16) if index != 4))
    assert fetch.next_request(1.0) == []
    assert fetch.next_request(10.0) == [4, *range(16, 20)]


def test_a_chunk_of_another_length_is_refused(path: Path) -> None:
    with pytest.raises(BlobError, match="chunk 1 is 4 bytes, not 3"):
        FileFetch(REF, path).accept(1, b"four", now=0.0)


@pytest.mark.parametrize("index", [-1, 16, 10**9])
def test_a_chunk_that_nobody_asked_for_takes_no_memory(path: Path, index: int) -> None:
    fetch = FileFetch(REF, path)
    fetch.accept(index, b"x" * 10**6, now=0.0)
    assert fetch.next_request(0.0) == list(range(16))


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        FileFetch(REF, tmp_path / "file" / "model.gguf")
