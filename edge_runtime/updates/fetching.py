"""A release's files: as chunks over MQTT, from an HTTP server, or from a folder. Always resumable.

Whatever brings them, a file has its final name only when its sha256 is right, and it never takes
more disk than the signed manifest says.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from fedpt.blobs import CHUNK_BYTES
from fedpt.errors import BlobError, ReleaseError, StorageError
from fedpt.file_fetch import FileFetch, part_path
from fedpt.files import sha256_file
from fedpt.progress import OnProgress, Progress
from fedpt.releases import Manifest, ReleaseFile
from fedpt.wire.messages import BlobRef, ChunkRequest

Fetcher = Callable[[ReleaseFile, Path], None]
"""Brings a file to a path, or raises BlobError (try again later) or StorageError."""

_ATTEMPTS: Final = 5
"""In a row without a single new byte; a slow line that makes progress is never given up."""

_TIMEOUT_S: Final = 30.0
_MB: Final = 1024 * 1024
_UNPACKED: Final = 4
"""How much larger wheels become when they are installed."""


def is_here(file: ReleaseFile, folder: Path) -> bool:
    """Whether a file is in the release's folder; its content was checked when it was named."""
    path = folder / file.path
    return path.is_file() and path.stat().st_size == file.size_bytes


def require_space(manifest: Manifest, folder: Path, *, reserve_mb: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        StorageError: Says how much is needed and how much there is.
    """
    missing = sum(file.size_bytes for file in manifest.files if not is_here(file, folder))
    if manifest.kind == "runtime":
        missing += _UNPACKED * manifest.size_bytes
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < missing + reserve_mb * _MB:
        raise StorageError(
            f"a {manifest.kind} release needs {missing / _MB:.0f} MB and {reserve_mb} MB must stay"
            f" free, but {folder} has {free / _MB:.0f} MB: free some space"
        )


def require_hashes(manifest: Manifest, folder: Path) -> None:
    """Refuse a release whose files are not those that were signed; bad ones are deleted.

    Raises:
        BlobError: A file is missing or another one.
    """
    for file in manifest.files:
        path = folder / file.path
        try:
            is_right = is_here(file, folder) and sha256_file(path) == file.sha256
        except OSError as error:
            raise BlobError(f"cannot read {path}: {error.strerror}") from error
        if not is_right:
            path.unlink(missing_ok=True)
            raise BlobError(f"{path} is not the file that was signed; fetching it again")


class Delivery:
    """A release's files on their way as chunks, one file after the other."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        """Go on where an earlier delivery into this folder stopped.

        Raises:
            StorageError: It cannot be written.
        """
        self._folder = folder
        self._missing = [file for file in manifest.files if not is_here(file, folder)]
        self._fetch: FileFetch | None = None

    @property
    def wanted(self) -> str:
        """The sha256 of the file that is coming; empty when all are here."""
        return self._missing[0].sha256 if self._missing else ""

    def next_request(self, now: float) -> ChunkRequest | None:
        """What to ask for now, if anything.

        Raises:
            BlobError: A file was not what was signed; it is fetched again.
            StorageError: It cannot be written.
        """
        while self._missing:
            fetch = self._fetch or self._begin(self._missing[0])
            if not fetch.is_complete:
                indices = fetch.next_request(now)
                return ChunkRequest(sha256=self.wanted, indices=indices) if indices else None
            fetch.finish()
            self._fetch = None
            del self._missing[0]
        return None

    def accept(self, sha256: str, index: int, content: bytes, *, now: float) -> None:
        """Keep a chunk; those of other files change nothing.

        Raises:
            BlobError: It does not fit into its file.
            StorageError: It cannot be written.
        """
        if self._fetch is not None and sha256 == self.wanted:
            self._fetch.accept(index, content, now=now)

    def _begin(self, file: ReleaseFile) -> FileFetch:
        ref = BlobRef(sha256=file.sha256, size_bytes=file.size_bytes, chunk_bytes=CHUNK_BYTES)
        self._fetch = FileFetch(ref, self._folder / file.path)
        return self._fetch


def folder_fetcher(source: Path) -> Fetcher:
    """Files from a folder, on a stick say."""

    def fetch(file: ReleaseFile, target: Path) -> None:
        part = part_path(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file.path, part)
            _give_name(file, part, target)
        except OSError as error:
            raise ReleaseError(
                f"cannot copy {source / file.path}: {error.strerror or error}"
            ) from error

    return fetch


def http_fetcher(client: httpx.Client, url: str, on_progress: OnProgress) -> Fetcher:
    """Files from below `url`; a lost connection is taken up again where it broke.

    Redirects are not followed: who announces a release says where it is.
    """

    def fetch(file: ReleaseFile, target: Path) -> None:
        part = part_path(target)
        address = f"{url.rstrip('/')}/{file.path}"
        failures, reason = 0, ""
        target.parent.mkdir(parents=True, exist_ok=True)
        while (before := _size(part)) != file.size_bytes:
            try:
                _take_up(client, address, file, part, on_progress=on_progress)
            except httpx.HTTPError as error:
                reason = str(error) or type(error).__name__
            except OSError as error:
                raise StorageError(f"cannot write {part}: {error.strerror or error}") from error
            failures = 0 if _size(part) > before else failures + 1
            if failures >= _ATTEMPTS:
                raise BlobError(f"cannot fetch {address}: {reason or 'it ends too early'}")
        try:
            _give_name(file, part, target)
        except OSError as error:
            raise StorageError(f"cannot write {target}: {error.strerror or error}") from error

    return fetch


def new_client() -> httpx.Client:
    """An HTTP client that follows no redirects and gives up on silence."""
    return httpx.Client(
        follow_redirects=False, timeout=_TIMEOUT_S, headers={"Accept-Encoding": "identity"}
    )


def require_url(url: str) -> None:
    """Refuse what is no HTTP address.

    Raises:
        ReleaseError: Says so.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ReleaseError(f"not a URL: {url[:80]!r}: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ReleaseError(f"not an http or https URL: {url[:80]!r}")


def _take_up(
    client: httpx.Client, url: str, file: ReleaseFile, part: Path, *, on_progress: OnProgress
) -> None:
    """One request, from where the file ends."""
    start = _size(part)
    if start > file.size_bytes:
        part.unlink()
        start = 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    with client.stream("GET", url, headers=headers) as reply, part.open("ab") as target:
        done = _require_reply(reply, url, start)
        target.truncate(done)
        for block in reply.iter_raw():
            done += len(block)
            if done > file.size_bytes:
                target.truncate(0)
                raise BlobError(f"{url} is larger than the {file.size_bytes} bytes that are signed")
            target.write(block)
            on_progress(Progress(done, file.size_bytes, file.path))


def _require_reply(reply: httpx.Response, url: str, start: int) -> int:
    """Where the content of this reply begins."""
    if reply.status_code == httpx.codes.PARTIAL_CONTENT:
        if not reply.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise BlobError(f"{url}: the server sends another part than was asked for")
        return start
    if reply.status_code != httpx.codes.OK:
        raise BlobError(f"cannot fetch {url}: the server says {reply.status_code}")
    return 0


def _give_name(file: ReleaseFile, part: Path, target: Path) -> None:
    if sha256_file(part) != file.sha256:
        part.unlink()
        raise BlobError(f"{file.path}: what came is not the file that was signed")
    with part.open("r+b") as content:
        os.fsync(content.fileno())
    part.replace(target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
