"""Is an image what its publisher released? Its sha256 against one given, or one found beside it."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedpt.errors import ImageError, UsageError
from fedpt.progress import OnProgress, Progress

_CHUNK_BYTES: Final = 4 * 1024 * 1024

_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_SUM_LINE: Final = re.compile(r"(?P<sha256>[0-9a-fA-F]{64})(?:\s+\*?(?P<name>\S.*?))?\s*")
_BSD_LINE: Final = re.compile(r"SHA256 \((?P<name>.+)\) = (?P<sha256>[0-9a-fA-F]{64})\s*")

_MAX_FILE_BYTES: Final = 1024 * 1024
"""A larger file is no list of checksums."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """A sha256 that somebody published."""

    sha256: str
    file_name: str | None
    """The file it is of; None if the line does not say."""


def parse_checksums(text: str) -> list[Checksum]:
    """The checksums in a file as `sha256sum` writes it, `shasum --tag`, or bare."""
    found = []
    for line in text.splitlines():
        if match := _SUM_LINE.fullmatch(line) or _BSD_LINE.fullmatch(line):
            name = match["name"]
            found.append(Checksum(match["sha256"].lower(), Path(name).name if name else None))
    return found


def expected_sha256(image: Path, *, sha256: str | None, checksum_file: Path | None) -> str | None:
    """The sha256 that `image` must have; None if nobody says.

    Looked for in this order: `sha256`, `checksum_file`, `IMAGE.sha256`, `SHA256SUMS` beside it.

    Raises:
        UsageError: `sha256` is none.
        ImageError: A checksum file cannot be read or does not tell of `image`.
    """
    if sha256 is not None:
        if not _SHA256.fullmatch(sha256.strip()):
            raise UsageError(f"--sha256 must be 64 hexadecimal digits, not {sha256!r}")
        return sha256.strip().lower()
    if checksum_file is not None:
        return _choose(checksum_file, image, may_be_renamed=True)
    sidecar = image.with_name(f"{image.name}.sha256")
    if sidecar.is_file():
        return _choose(sidecar, image, may_be_renamed=True)
    listing = image.with_name("SHA256SUMS")
    if listing.is_file() and any(
        entry.file_name == image.name for entry in parse_checksums(_read(listing))
    ):
        return _choose(listing, image, may_be_renamed=False)
    return None


def file_sha256(path: Path, *, on_progress: OnProgress) -> str:
    """The sha256 of a file.

    Raises:
        ImageError: It cannot be read.
    """
    digest, done = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            total = path.stat().st_size
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                done += len(chunk)
                on_progress(Progress(done, total))
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def require_checksum(image: Path, expected: str, *, on_progress: OnProgress) -> None:
    """Refuse an image with another sha256.

    Raises:
        ImageError: It is another one, or the image cannot be read.
    """
    actual = file_sha256(image, on_progress=on_progress)
    if actual != expected:
        raise ImageError(
            f"{image} has sha256 {actual}, not {expected}: it is damaged or not what was published;"
            " download it again"
        )


def _choose(checksum_file: Path, image: Path, *, may_be_renamed: bool) -> str:
    checksums = parse_checksums(_read(checksum_file))
    named = {entry.sha256 for entry in checksums if entry.file_name == image.name}
    if not named and may_be_renamed and len(checksums) == 1:
        named = {checksums[0].sha256}
    if len(named) != 1:
        problem = "contradicts itself about" if named else "has no sha256 of"
        raise ImageError(f"{checksum_file} {problem} {image.name}")
    return named.pop()


def _read(checksum_file: Path) -> str:
    try:
        if checksum_file.stat().st_size > _MAX_FILE_BYTES:
            raise ImageError(f"{checksum_file} is too large for a list of checksums")
        return checksum_file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ImageError(f"cannot read {checksum_file}: {error.strerror}") from error
