"""The releases that the coordinator announces: which, to how many devices, and their files.

A folder is the interface: `<kind>/<id>/` holds a release, `<kind>/roll-out.json` names the one to
announce. It is read again whenever it changes, so a roll-out is staged by writing a file. The
coordinator could not make a device believe a release; it checks signatures to tell the operator.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from fedpt.blobs import CHUNK_BYTES
from fedpt.errors import BlobError, FedptError, ReleaseError
from fedpt.release_folder import read_signed
from fedpt.releases import (
    KINDS,
    ROLL_OUT_FILE,
    Kind,
    RollOut,
    Trust,
    verify_manifest,
)
from fedpt.wire.messages import BlobRef, ReleaseAnnouncement

_logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Announced:
    """What is announced of a kind, and where its files are."""

    announcement: ReleaseAnnouncement
    files: Mapping[str, Path]
    """By sha256; empty if an HTTP server has them."""
    sizes: Mapping[str, int] = field(default_factory=dict)


def read_announced(folder: Path, kind: Kind, trust: Trust) -> Announced | None:
    """What to announce of a kind; None if nothing is rolled out.

    Raises:
        ReleaseError: The roll-out or the release that it names is of no use.
    """
    try:
        content = (folder / kind / ROLL_OUT_FILE).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReleaseError(f"cannot read {folder / kind / ROLL_OUT_FILE}: {error}") from error
    try:
        roll_out = msgspec.json.decode(content, type=RollOut)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ReleaseError(f"not a roll-out: {folder / kind / ROLL_OUT_FILE}: {error}") from error
    return _announce(folder / kind / roll_out.id, kind, roll_out, trust=trust)


def _announce(release: Path, kind: Kind, roll_out: RollOut, *, trust: Trust) -> Announced:
    signed = read_signed(release)
    manifest = verify_manifest(signed, trust)
    if manifest.kind != kind or signed.id != roll_out.id:
        raise ReleaseError(f"{release} holds the {manifest.kind} release {signed.id}")
    files, sizes = {}, {}
    if not roll_out.url:
        for file in manifest.files:
            path = release / file.path
            if not path.is_file() or path.stat().st_size != file.size_bytes:
                raise ReleaseError(f"{path} is missing, or not as large as was signed")
            files[file.sha256], sizes[file.sha256] = path, file.size_bytes
    announcement = ReleaseAnnouncement(
        release=signed.to_wire(), fraction=roll_out.fraction, url=roll_out.url
    )
    return Announced(announcement, files, sizes)


class ReleaseFolder:
    """The folder of releases as it was when last looked at; its files as blobs, read only."""

    def __init__(self, folder: Path, trust_file: Path) -> None:
        self._folder = folder
        self._trust_file = trust_file
        self._announced: dict[Kind, Announced] = {}
        self._stamp: tuple[object, ...] = ()
        self._due = float("-inf")

    @property
    def announcements(self) -> dict[Kind, ReleaseAnnouncement]:
        """What is to be announced, by kind."""
        return {kind: one.announcement for kind, one in self._announced.items()}

    def look(self, now: float) -> list[Kind]:
        """Read the folder again if it has changed; says of which kinds the announcement has.

        Args:
            now: Seconds of a monotonic clock.
        """
        if now < self._due:
            return []
        self._due = now + _LOOK_EVERY_S
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return []
        self._stamp = stamp
        before, self._announced = self.announcements, self._read()
        after = self.announcements
        return [kind for kind in KINDS if before.get(kind) != after.get(kind)]

    def __contains__(self, sha256: str) -> bool:
        return self._find(sha256) is not None

    def ref(self, sha256: str) -> BlobRef:
        """How to tell others of an announced file.

        Raises:
            BlobError: No announced release has such a file.
        """
        found = self._find(sha256)
        if found is None:
            raise BlobError(f"no announced release has a file {sha256}")
        return BlobRef(sha256=sha256, size_bytes=found.sizes[sha256], chunk_bytes=CHUNK_BYTES)

    def chunk(self, sha256: str, index: int) -> bytes:
        """One chunk of an announced file.

        Raises:
            BlobError: No announced release has such a file, or it is gone.
        """
        found = self._find(sha256)
        if found is None:
            raise BlobError(f"no announced release has a file {sha256}")
        try:
            with found.files[sha256].open("rb") as file:
                file.seek(min(index * CHUNK_BYTES, found.sizes[sha256]))
                return file.read(CHUNK_BYTES)
        except OSError as error:
            raise BlobError(f"cannot read {found.files[sha256]}: {error.strerror}") from error

    def _find(self, sha256: str) -> Announced | None:
        return next((one for one in self._announced.values() if sha256 in one.files), None)

    def _read(self) -> dict[Kind, Announced]:
        """A bad release is told and left out; it never keeps the others from the devices."""
        announced: dict[Kind, Announced] = {}
        for kind in KINDS:
            try:
                trust = Trust.from_json(self._trust_file.read_bytes())
                found = read_announced(self._folder, kind, trust)
            except (FedptError, OSError) as error:
                _logger.warning("no %s release is announced: %s", kind, error)
                continue
            if found is not None:
                announced[kind] = found
        return announced

    def _read_stamp(self) -> tuple[object, ...]:
        """What changes when an operator changes something."""
        paths = [self._trust_file, *(self._folder / kind / ROLL_OUT_FILE for kind in KINDS)]
        return tuple(map(_stamp, paths))


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        facts = path.stat()
    except OSError:
        return (0, 0, 0)
    return (facts.st_mtime_ns, facts.st_size, facts.st_ino)
