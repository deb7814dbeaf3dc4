"""A release's files come whole, over any line; and never more than was signed."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from edge_runtime.updates import fetching
from edge_runtime.updates.fetching import (
    Delivery,
    folder_fetcher,
    http_fetcher,
    new_client,
    require_hashes,
    require_space,
    require_url,
)
from fedpt.blobs import CHUNK_BYTES
from fedpt.errors import BlobError, ReleaseError, StorageError
from fedpt.files import sha256_bytes
from fedpt.progress import Progress, ignore_progress
from fedpt.releases import ReleaseFile
from tests.fakes.releases import manifest

CONTENT = bytes(range(256)) * 1000


def described(content: bytes, path: str = "model.gguf") -> ReleaseFile:
    return ReleaseFile(path=path, sha256=sha256_bytes(content), size_bytes=len(content))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    behaviours: ClassVar[list[str]] = []
    requests: ClassVar[list[str]] = []


class _Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; what is in `behaviours` happens to one request each, in order."""

    def do_GET(self) -> None:
        behaviour = _Server.behaviours.pop(0) if _Server.behaviours else "well"
        wanted = self.headers.get("Range")
        _Server.requests.append(wanted or "all")
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        if behaviour in ("404", "302"):
            self.send_response(int(behaviour))
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if behaviour == "ignores ranges":
            start = 0
        body = CONTENT[start:] + (b"more" if behaviour == "too long" else b"")
        if behaviour == "other content":
            body = bytes(len(body))
        self.send_response(206 if wanted and behaviour != "ignores ranges" else 200)
        said = start + 1 if behaviour == "other part" else start
        self.send_header("Content-Range", f"bytes {said}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if behaviour.startswith("drops after "):
            body = body[: int(behaviour.removeprefix("drops after "))]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    _Server.behaviours, _Server.requests = [], []
    with _Server(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/releases/"
        server.shutdown()


def get(url: str, target: Path) -> None:
    with new_client() as client:
        http_fetcher(client, url, ignore_progress)(described(CONTENT), target)


def test_a_file_comes_over_http_with_progress(url: str, tmp_path: Path) -> None:
    told: list[Progress] = []
    with new_client() as client:
        fetch = http_fetcher(client, url, told.append)
        fetch(described(CONTENT), tmp_path / "deep" / "model.gguf")
    assert (tmp_path / "deep" / "model.gguf").read_bytes() == CONTENT
    assert told[-1] == Progress(len(CONTENT), len(CONTENT), "model.gguf")


def test_a_lost_connection_is_taken_up_where_it_broke(url: str, tmp_path: Path) -> None:
    _Server.behaviours = ["drops after 70000", "drops after 1000", "drops after 0"]
    get(url, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert _Server.requests == ["all", "bytes=70000-", "bytes=71000-", "bytes=71000-"]


def test_it_goes_on_after_a_restart(url: str, tmp_path: Path) -> None:
    (tmp_path / "model.gguf.part").write_bytes(CONTENT[:5000])
    get(url, tmp_path / "model.gguf")
    assert _Server.requests == ["bytes=5000-"]
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(url: str, tmp_path: Path) -> None:
    _Server.behaviours = ["drops after 5000", "ignores ranges"]
    get(url, tmp_path / "model.gguf")
    assert _Server.requests == ["all", "bytes=5000-"]
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("behaviours", "why"),
    [
        (["404"], "the server says 404"),
        (["302"], "the server says 302"),
        (["too long"], "larger than the 256000 bytes that are signed"),
        (["other content"], "not the file that was signed"),
        (["drops after 10", "other part"], "another part than was asked for"),
        (["drops after 0"] * 9, "cannot fetch"),
    ],
)
def test_a_bad_server_is_told(url: str, tmp_path: Path, behaviours: list[str], why: str) -> None:
    _Server.behaviours = behaviours
    with pytest.raises(BlobError, match=why):
        get(url, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "http://", "\0", "boards"])
def test_what_is_no_http_address_is_refused(url: str) -> None:
    with pytest.raises(ReleaseError, match="not a"):
        require_url(url)


def test_files_come_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "model.gguf").write_bytes(CONTENT)
    fetch = folder_fetcher(tmp_path / "stick")
    fetch(described(CONTENT), tmp_path / "here" / "model.gguf")
    assert (tmp_path / "here" / "model.gguf").read_bytes() == CONTENT
    with pytest.raises(BlobError, match="not the file that was signed"):
        fetch(described(b"other", "model.gguf"), tmp_path / "here" / "other")
    with pytest.raises(ReleaseError, match="cannot copy"):
        fetch(described(CONTENT, "missing"), tmp_path / "here" / "missing")


def test_too_little_space_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    huge = ReleaseFile(path="model.gguf", sha256="a" * 64, size_bytes=2**50)
    with pytest.raises(StorageError, match=r"needs 1073741824 MB and 5 MB must stay free"):
        require_space(manifest(files=[huge]), tmp_path / "not" / "yet", reserve_mb=5)
    with pytest.raises(StorageError, match="must stay free"):
        require_space(manifest(), tmp_path, reserve_mb=2**40)
    require_space(manifest(), tmp_path, reserve_mb=0)


def test_what_is_here_needs_no_more_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _path: SimpleNamespace(free=6))
    with pytest.raises(StorageError):
        require_space(manifest(), tmp_path, reserve_mb=0)
    (tmp_path / "file").write_bytes(b"content")
    require_space(manifest(), tmp_path, reserve_mb=0)


def test_a_file_that_was_changed_on_disk_is_found_and_deleted(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"CONTENT")
    with pytest.raises(BlobError, match="is not the file that was signed"):
        require_hashes(manifest(), tmp_path)
    assert not (tmp_path / "file").exists()
    (tmp_path / "file").write_bytes(b"content")
    require_hashes(manifest(), tmp_path)


def serve(delivery: Delivery, *contents: bytes) -> None:
    """Answer requests until all is delivered."""
    by_name = {sha256_bytes(content): content for content in contents}
    now = 0.0
    while delivery.wanted:
        now += 10.0
        request = delivery.next_request(now)
        for index in request.indices if request else []:
            content = by_name[request.sha256]
            part = content[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            delivery.accept(request.sha256, index, part, now=now)


def test_files_are_delivered_as_chunks_one_after_the_other(tmp_path: Path) -> None:
    files = [described(CONTENT), described(b"wheel", "wheels/a.whl"), described(b"wheel", "copy")]
    delivery = Delivery(manifest(files=files), tmp_path)
    delivery.accept("f" * 64, 0, b"foreign", now=0.0)
    serve(delivery, CONTENT, b"wheel")
    assert (tmp_path / "model.gguf").read_bytes() == CONTENT
    assert (tmp_path / "wheels" / "a.whl").read_bytes() == b"wheel"
    assert (tmp_path / "copy").read_bytes() == b"wheel"


def test_a_delivery_goes_on_where_it_stopped(tmp_path: Path) -> None:
    files = [described(b"small", "first"), described(CONTENT)]
    before = Delivery(manifest(files=files), tmp_path)
    before.next_request(0.0)
    before.accept(files[0].sha256, 0, b"small", now=0.0)
    before.next_request(0.0)
    before.accept(files[1].sha256, 0, CONTENT[:CHUNK_BYTES], now=0.0)
    request = Delivery(manifest(files=files), tmp_path).next_request(0.0)
    assert request is not None
    assert (request.sha256, request.indices) == (files[1].sha256, [1])


def test_a_file_changed_on_its_way_is_not_taken(tmp_path: Path) -> None:
    delivery = Delivery(manifest(files=[described(b"wheel")]), tmp_path)
    delivery.next_request(0.0)
    delivery.accept(sha256_bytes(b"wheel"), 0, b"wheal", now=0.0)
    with pytest.raises(BlobError, match="fetching it again"):
        delivery.next_request(1.0)
    assert not (tmp_path / "model.gguf").exists()
