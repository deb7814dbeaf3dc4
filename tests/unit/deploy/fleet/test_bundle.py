"""Bundles: everything in its place, sums that sha256sum accepts, nothing half-made."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.fleet.bundle import build_bundle, bundle_size_bytes, replace_token
from deploy.fleet.network import Network, wifi_from_passphrase
from fedpt.errors import FleetError
from tests.fakes.bundles import TOKEN, bundle_request


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_holds_all_that_a_first_boot_needs(tmp_path: Path) -> None:
    build_bundle(bundle_request(tmp_path), tmp_path / "bundle")
    assert _names(tmp_path / "bundle") == {
        "user-data",
        "network-config",
        "meta-data",
        "fedpt/install.sh",
        "fedpt/install-steps.sh",
        "fedpt/boot-guard.py",
        "fedpt/requires",
        "fedpt/device.toml",
        "fedpt/ca.pem",
        "fedpt/trust.json",
        "fedpt/constraints.txt",
        "fedpt/enrolment.token",
        "fedpt/model/model.gguf",
        "fedpt/model/manifest.json",
        "fedpt/model/manifest.sig",
        "fedpt/wheels/fedpt-0.1.0-py3-none-any.whl",
        "fedpt/wheels/requirements.lock",
        "fedpt/systemd/fedpt.slice",
        "fedpt/systemd/fedpt-device.service",
        "fedpt/systemd/fedpt-device.service.d/board.conf",
        "fedpt/SHA256SUMS",
    }


def test_the_sums_cover_all_but_the_token_and_themselves(tmp_path: Path) -> None:
    build_bundle(bundle_request(tmp_path), tmp_path / "bundle")
    own = tmp_path / "bundle" / "fedpt"
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=own, check=True)
    listed = {line.split("  ")[1] for line in (own / "SHA256SUMS").read_text().splitlines()}
    assert _names(own) - listed == {"enrolment.token", "SHA256SUMS"}


def test_only_its_owner_can_read_a_token(tmp_path: Path) -> None:
    build_bundle(bundle_request(tmp_path), tmp_path / "bundle")
    token = tmp_path / "bundle/fedpt/enrolment.token"
    assert token.read_text() == TOKEN
    assert token.stat().st_mode & 0o777 == 0o600


def test_first_examples_are_for_their_owner_and_in_no_sum(tmp_path: Path) -> None:
    request = replace(bundle_request(tmp_path), examples=b'{"instruction": "a", "response": "b"}\n')
    build_bundle(request, tmp_path / "bundle")
    own = tmp_path / "bundle" / "fedpt"
    assert (own / "examples.jsonl").read_bytes() == request.examples
    assert (own / "examples.jsonl").stat().st_mode & 0o777 == 0o600
    assert "examples.jsonl" not in (own / "SHA256SUMS").read_text()


def test_a_ready_identity_takes_the_tokens_place(tmp_path: Path) -> None:
    request = replace(bundle_request(tmp_path), token=None, identity=(b"CERT\n", b"KEY\n"))
    build_bundle(request, tmp_path / "bundle")
    identity = tmp_path / "bundle/fedpt/identity.pem"
    assert identity.read_bytes() == b"CERT\nKEY\n"
    assert identity.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "bundle/fedpt/enrolment.token").exists()


@pytest.mark.parametrize("identity", [None, (b"", b"")])
def test_neither_or_both_of_token_and_identity_are_refused(
    tmp_path: Path, identity: tuple[bytes, bytes] | None
) -> None:
    token = TOKEN if identity else None
    request = replace(bundle_request(tmp_path), token=token, identity=identity)
    with pytest.raises(FleetError, match="either a token or a ready identity"):
        build_bundle(request, tmp_path / "bundle")


def test_a_passphrase_is_nowhere_in_a_bundle(tmp_path: Path) -> None:
    wifi = wifi_from_passphrase("home", "open sesame 123", "DE")
    build_bundle(replace(bundle_request(tmp_path), network=Network(wifi)), tmp_path / "bundle")
    contents = [path.read_bytes() for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert not any(b"open sesame" in content for content in contents)
    assert any(wifi.psk.encode() in content for content in contents)


def test_a_bundle_that_cannot_be_made_leaves_the_old_one_as_it_was(tmp_path: Path) -> None:
    request = bundle_request(tmp_path)
    build_bundle(request, tmp_path / "bundle")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "bundle").rglob("*")}
    (tmp_path / "model" / "manifest.sig").unlink()
    with pytest.raises(FleetError, match=r"no model release: no manifest\.sig"):
        build_bundle(request, tmp_path / "bundle")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "bundle").rglob("*")} == before
    assert not list(tmp_path.glob(".bundle*"))


def test_a_folder_without_a_lock_is_no_wheelhouse(tmp_path: Path) -> None:
    request = bundle_request(tmp_path)
    (request.wheels / "requirements.lock").unlink()
    with pytest.raises(FleetError, match="no wheelhouse"):
        build_bundle(request, tmp_path / "bundle")


def test_large_files_are_not_copied_on_one_file_system(tmp_path: Path) -> None:
    build_bundle(bundle_request(tmp_path), tmp_path / "bundle")
    model = tmp_path / "bundle/fedpt/model/model.gguf"
    assert model.samefile(tmp_path / "model" / "model.gguf")


def test_its_size_is_that_of_all_files(tmp_path: Path) -> None:
    build_bundle(bundle_request(tmp_path), tmp_path / "bundle")
    total = sum(
        len((tmp_path / "bundle" / name).read_bytes()) for name in _names(tmp_path / "bundle")
    )
    assert bundle_size_bytes(tmp_path / "bundle") == total


def test_a_new_token_makes_cloud_init_run_again(tmp_path: Path) -> None:
    build_bundle(bundle_request(tmp_path), tmp_path / "bundle")
    before = (tmp_path / "bundle/meta-data").read_text()
    replace_token(tmp_path / "bundle", "edge-01", "another")
    token = tmp_path / "bundle/fedpt/enrolment.token"
    assert (token.read_text(), token.stat().st_mode & 0o777) == ("another", 0o600)
    assert (tmp_path / "bundle/meta-data").read_text() != before
