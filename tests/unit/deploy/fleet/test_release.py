"""Releases as an operator makes them."""

from pathlib import Path

import pytest

from deploy.fleet.release import ReleaseTerms, make_release, stage
from edge_runtime.updates.fetching import require_hashes
from fedpt.errors import ArtifactError, FleetError
from fedpt.gguf_file import read_gguf, weights_sha256
from fedpt.progress import Progress
from fedpt.release_folder import read_signed
from fedpt.releases import Kind, Manifest, verify_manifest
from tests.fakes.releases import KEY, trust, write_wheelhouse
from tests.fakes.tiny_federation import TinyFederation


def read(release: Path) -> Manifest:
    """As a device reads it, files included."""
    signed = read_signed(release)
    assert release.name == signed.id
    manifest = verify_manifest(signed, trust())
    require_hashes(manifest, release)
    return manifest


def test_a_model_says_what_its_weights_are(tiny: TinyFederation, tmp_path: Path) -> None:
    told: list[Progress] = []
    terms = ReleaseTerms(valid_days=2.0, minimum_runtime="0.1", note="first")
    release = make_release(
        "model", tiny.small, KEY, releases=tmp_path, terms=terms, on_progress=told.append
    )
    manifest = read(release)
    assert manifest.base_weights == weights_sha256(read_gguf(tiny.small))
    assert [file.path for file in manifest.files] == ["model.gguf"]
    assert manifest.expires_unix_s - manifest.created_unix_s == 2 * 24 * 3600
    assert (manifest.minimum_runtime, manifest.note) == ("0.1", "first")
    assert told


def test_an_adapter_says_what_it_is_for(tiny: TinyFederation, tmp_path: Path) -> None:
    manifest = read(make_release("adapter", tiny.adapter_blob, KEY, releases=tmp_path))
    assert manifest.base_weights == weights_sha256(read_gguf(tiny.small))


def test_a_runtime_is_a_wheelhouse(tmp_path: Path) -> None:
    wheelhouse = write_wheelhouse(tmp_path / "wheelhouse")
    manifest = read(make_release("runtime", wheelhouse, KEY, releases=tmp_path / "releases"))
    assert [file.path for file in manifest.files] == [
        "requirements.lock", "wheels/fedpt-0.2.0-py3-none-any.whl",
    ]  # fmt: skip


def test_each_release_of_a_kind_has_a_higher_counter(tmp_path: Path) -> None:
    keys = tmp_path / "trust.json"
    keys.write_bytes(trust().to_json())
    (tmp_path / "keys" / "99999999999999-abc").mkdir(parents=True)
    first, second = (read(make_release("keys", keys, KEY, releases=tmp_path)) for _ in range(2))
    assert (first.counter, second.counter) == (100_000_000_000_000, 100_000_000_000_001)


@pytest.mark.parametrize("kind", ["model", "adapter", "runtime", "keys"])
def test_a_source_that_is_not_there_is_told(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(FleetError, match=r"no such file|no wheelhouse"):
        make_release(kind, tmp_path / "missing", KEY, releases=tmp_path)


@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_a_damaged_source_is_told_and_leaves_nothing(tmp_path: Path, kind: Kind) -> None:
    (tmp_path / "bad").write_bytes(b"damaged")
    with pytest.raises(ArtifactError):
        make_release(kind, tmp_path / "bad", KEY, releases=tmp_path)
    assert not (tmp_path / kind).exists()


def test_keys_that_devices_would_refuse_are_not_signed(tmp_path: Path) -> None:
    (tmp_path / "trust.json").write_bytes(trust(kinds=("model",)).to_json())
    with pytest.raises(FleetError, match="no key that may sign the next keys"):
        make_release("keys", tmp_path / "trust.json", KEY, releases=tmp_path)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_an_impossible_share_is_refused(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(FleetError, match="between 0 and 1"):
        stage(tmp_path, fraction)


def test_what_is_no_release_is_not_rolled_out(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="no release in"):
        stage(tmp_path, 1.0)
