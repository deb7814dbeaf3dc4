"""What the coordinator announces, and whose files it gives away."""

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from coordinator.downloads import Downloads
from coordinator.releases import ReleaseFolder
from coordinator.settings import CoordinatorSettings
from deploy.fleet.release import make_release, stage
from fedpt.blobs import CHUNK_BYTES
from fedpt.errors import BlobError
from fedpt.files import sha256_bytes
from fedpt.releases import SignedManifest
from fedpt.wire.messages import ChunkRequest
from tests.fakes.releases import KEY, OTHER_KEY, trust

LATER = 1000.0


@pytest.fixture
def trust_file(tmp_path: Path) -> Path:
    path = tmp_path / "trust.json"
    path.write_bytes(trust().to_json())
    return path


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Any small release will do; this one is of keys, twice as long as a chunk."""
    path = tmp_path / "new.json"
    path.write_bytes(trust(OTHER_KEY).to_json() + b" " * CHUNK_BYTES)
    return path


@pytest.fixture
def folder(tmp_path: Path, trust_file: Path) -> ReleaseFolder:
    return ReleaseFolder(tmp_path / "releases", trust_file)


def test_nothing_is_announced_before_it_is_rolled_out(
    folder: ReleaseFolder, tmp_path: Path, keys: Path
) -> None:
    assert folder.look(0.0) == []
    make_release("keys", keys, KEY, releases=tmp_path / "releases")
    assert folder.look(LATER) == []
    assert folder.announcements == {}


def test_a_roll_out_is_staged_by_writing_a_file(
    folder: ReleaseFolder, tmp_path: Path, keys: Path
) -> None:
    release = make_release("keys", keys, KEY, releases=tmp_path / "releases")
    stage(release, 0.1)
    assert folder.look(0.0) == ["keys"]
    told = folder.announcements["keys"]
    assert (SignedManifest.from_wire(told.release).id, told.fraction) == (release.name, 0.1)
    assert folder.look(LATER) == []
    stage(release, 1.0, url="https://files.example/")
    assert folder.look(LATER + 1) == []  # looked a moment ago
    assert folder.look(2 * LATER) == ["keys"]
    told = folder.announcements["keys"]
    assert (told.fraction, told.url) == (1.0, "https://files.example/")
    (release.parent / "roll-out.json").unlink()
    assert folder.look(3 * LATER) == ["keys"]
    assert folder.announcements == {}


def test_files_of_announced_releases_are_served_in_chunks_and_no_others(
    folder: ReleaseFolder, tmp_path: Path, keys: Path
) -> None:
    sha256 = sha256_bytes(keys.read_bytes())
    release = make_release("keys", keys, KEY, releases=tmp_path / "releases")
    folder.look(0.0)
    with pytest.raises(BlobError, match="no announced release"):
        folder.chunk(sha256, 0)
    stage(release, 1.0)
    folder.look(LATER)
    request = ChunkRequest(sha256=sha256, indices=[0, 1, 5, 2**60])
    sent = list(Downloads(folder).chunks(request, sha256, 0.0))
    assert b"".join(chunk for _, chunk in sent) == keys.read_bytes()
    assert folder.chunk(sha256, 2**60) == b""
    manifest = sha256_bytes((release / "manifest.json").read_bytes())
    assert sha256 in folder
    assert manifest not in folder
    stage(release, 1.0, url="https://files.example/")
    folder.look(2 * LATER)
    assert sha256 not in folder


@pytest.mark.parametrize("fault", ["signature", "missing file", "roll-out", "other kind", "no key"])
def test_a_bad_release_is_told_once_and_left_out(
    folder: ReleaseFolder,
    tmp_path: Path,
    keys: Path,
    *,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    key = OTHER_KEY if fault == "signature" else KEY
    release = make_release("keys", keys, key, releases=tmp_path / "releases")
    stage(release, 1.0)
    if fault == "missing file":
        (release / "trust.json").unlink()
    elif fault == "roll-out":
        (release.parent / "roll-out.json").write_text('{"id": "../../etc"}')
    elif fault == "other kind":
        moved = tmp_path / "releases" / "model" / release.name
        moved.parent.mkdir()
        release.rename(moved)
        stage(moved, 1.0)
        (release.parent / "roll-out.json").unlink()
    elif fault == "no key":
        (tmp_path / "trust.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert folder.look(0.0) == []
        assert folder.look(LATER) == []
    assert len(caplog.records) == (4 if fault == "no key" else 1)
    assert folder.announcements == {}


def test_releases_without_keys_to_check_them_by_are_a_fault_of_the_settings(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValidationError, match="only with a trust_file"):
        CoordinatorSettings(
            state_dir=tmp_path,
            small=tmp_path,
            large=tmp_path,
            evaluation=tmp_path,
            public=tmp_path,
            releases=tmp_path,
        )
