"""The signature under each round's adapter."""

from pathlib import Path

import pytest

from coordinator.adapter_signing import AdapterSigner
from fedpt.errors import FleetError
from fedpt.releases import Manifest, SignedManifest, require_vouched_adapter, verify_manifest
from fedpt.wire.messages import SignedRelease
from tests.fakes.releases import KEY, OTHER_KEY, WEIGHTS, trust
from tests.fakes.wire_messages import ref

FIRST, SECOND = ref("first"), ref("second")
DAY_S = 24 * 3600.0


def signer(folder: Path, key: object = KEY) -> AdapterSigner:
    (folder / "adapter.key").write_bytes(key.to_pem())
    return AdapterSigner(folder / "adapter.key", folder / "signed.json", valid_days=10.0)


def read(release: SignedRelease) -> Manifest:
    return verify_manifest(SignedManifest.from_wire(release), trust(kinds=("adapter",)))


def test_a_device_believes_the_signature(tmp_path: Path) -> None:
    manifest = read(signer(tmp_path).sign(FIRST, WEIGHTS, 1000.0))
    require_vouched_adapter(manifest, FIRST)
    assert (manifest.counter, manifest.base_weights) == (1_000_000, WEIGHTS)
    assert manifest.expires_unix_s == 1000.0 + 10 * DAY_S


def test_the_same_adapter_has_the_same_manifest_after_a_restart(tmp_path: Path) -> None:
    first = signer(tmp_path).sign(FIRST, WEIGHTS, 1000.0)
    assert signer(tmp_path).sign(FIRST, WEIGHTS, 2000.0) == first


def test_counters_grow_also_when_the_clock_goes_back(tmp_path: Path) -> None:
    first = read(signer(tmp_path).sign(FIRST, WEIGHTS, 1000.0))
    second = read(signer(tmp_path).sign(SECOND, WEIGHTS, 10.0))
    third = read(signer(tmp_path).sign(FIRST, WEIGHTS, 10.0))
    assert first.counter < second.counter < third.counter


def test_a_coordinator_that_lost_its_disk_goes_on(tmp_path: Path) -> None:
    before = read(signer(tmp_path).sign(FIRST, WEIGHTS, 1000.0))
    (tmp_path / "signed.json").write_bytes(b"{torn")
    assert read(signer(tmp_path).sign(SECOND, WEIGHTS, 1001.0)).counter > before.counter


def test_a_signature_is_renewed_at_half_its_time(tmp_path: Path) -> None:
    one = signer(tmp_path)
    assert not one.is_due(0.0)
    first = one.sign(FIRST, WEIGHTS, 0.0)
    assert not one.is_due(4.9 * DAY_S)
    assert one.is_due(5.1 * DAY_S)
    second = one.sign(FIRST, WEIGHTS, 5.1 * DAY_S)
    assert read(second).counter > read(first).counter
    assert not one.is_due(5.1 * DAY_S)


def test_another_key_or_base_signs_anew(tmp_path: Path) -> None:
    first = signer(tmp_path).sign(FIRST, WEIGHTS, 0.0)
    assert read(signer(tmp_path).sign(FIRST, "c" * 64, 0.0)).base_weights == "c" * 64
    assert signer(tmp_path, OTHER_KEY).sign(FIRST, "c" * 64, 0.0).key != first.key


def test_a_key_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    for content in (None, b"no key"):
        if content is not None:
            (tmp_path / "bad.key").write_bytes(content)
        with pytest.raises(FleetError, match="cannot read"):
            AdapterSigner(tmp_path / "bad.key", tmp_path / "signed.json", valid_days=1.0)
