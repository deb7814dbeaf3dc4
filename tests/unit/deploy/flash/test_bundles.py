from pathlib import Path
from typing import Any

import pytest

from deploy.flash.bundles import read_bundle
from fedpt.errors import FleetError, UsageError
from fedpt.files import sha256_bytes
from tests.fakes.disk_images import add_device_record


def test_a_whole_bundle_is_read(fleet: Path) -> None:
    bundle = read_bundle(fleet, "kitchen", now_unix_s=0)
    folder = fleet / "devices/kitchen/bundle"
    assert bundle.instance_id == "fedpt-kitchen-1"
    assert {file.name for file in bundle.files} == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    }
    model = next(file for file in bundle.files if file.name.endswith("model.gguf"))
    assert model.sha256 == sha256_bytes((folder / model.name).read_bytes())
    assert bundle.size_bytes > model.size_bytes == 300_000


def test_first_examples_belong_to_a_bundle_and_have_no_sum(fleet: Path) -> None:
    (fleet / "devices/kitchen/bundle/fedpt/examples.jsonl").write_text("{}")
    names = {file.name for file in read_bundle(fleet, "kitchen", now_unix_s=0).files}
    assert "fedpt/examples.jsonl" in names


def test_an_unknown_device_is_told_with_those_known(fleet: Path) -> None:
    add_device_record(fleet, "attic")
    with pytest.raises(UsageError, match=r"'garage' in .*: attic, kitchen"):
        read_bundle(fleet, "garage", now_unix_s=0)


@pytest.mark.parametrize("name", ["..", "../devices/kitchen", "kitchen/bundle", "/etc", ""])
def test_a_path_is_no_device(fleet: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no board"):
        read_bundle(fleet, name, now_unix_s=0)


def test_a_folder_that_is_no_fleet_is_told(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="no fleet in"):
        read_bundle(tmp_path, "kitchen", now_unix_s=0)


def test_an_expired_token_is_refused_with_what_to_run(fleet: Path) -> None:
    with pytest.raises(FleetError, match="run: fedpt fleet add kitchen --renew-token"):
        read_bundle(fleet, "kitchen", now_unix_s=4e9)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"token_expires_unix_s": "soon"}'])
def test_a_device_record_of_no_use_is_told(fleet: Path, content: str) -> None:
    (fleet / "devices/kitchen/device.json").write_text(content)
    with pytest.raises(FleetError, match=r"cannot use .*device\.json"):
        read_bundle(fleet, "kitchen", now_unix_s=0)


@pytest.mark.parametrize(
    "name",
    ["user-data", "network-config", "meta-data", "fedpt/install.sh", "fedpt/enrolment.token",
     "fedpt/SHA256SUMS", "fedpt/model/model.gguf"],
)  # fmt: skip
def test_a_missing_file_is_named(fleet: Path, name: str) -> None:
    (fleet / "devices/kitchen/bundle" / name).unlink()
    with pytest.raises(FleetError, match=f"incomplete: no {name}; run: fedpt fleet add kitchen"):
        read_bundle(fleet, "kitchen", now_unix_s=0)


@pytest.mark.parametrize("name", ["fedpt/model/model.gguf", "fedpt/left-over.whl"])
def test_a_changed_or_unlisted_file_is_named(fleet: Path, name: str) -> None:
    path = fleet / "devices/kitchen/bundle" / name
    path.write_bytes(b"changed")
    with pytest.raises(FleetError, match=f"damaged: {name} not as its SHA256SUMS says"):
        read_bundle(fleet, "kitchen", now_unix_s=0)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("fedpt/a:b", "rename it"),
        ("fedpt/ä", "rename it"),
        ("fedpt/dot.", "rename it"),
        ("fedpt/[x]", "rename it"),
        ("fedpt/INSTALL.SH", "one name on FAT"),
        ("cmdline.txt", "does not belong"),
    ],
)
def test_a_name_that_fat_would_not_keep_is_refused(fleet: Path, name: str, complaint: str) -> None:
    (fleet / "devices/kitchen/bundle" / name).write_bytes(b"x")
    with pytest.raises(FleetError, match=complaint):
        read_bundle(fleet, "kitchen", now_unix_s=0)


def test_a_link_is_not_followed(fleet: Path) -> None:
    (fleet / "devices/kitchen/bundle/fedpt/passwords").symlink_to("/etc/passwd")
    with pytest.raises(FleetError, match="no plain file"):
        read_bundle(fleet, "kitchen", now_unix_s=0)


@pytest.mark.parametrize("text", ["", "instance-id:\n", "instance-id: a b\n", "instance-id: a;b\n"])
def test_meta_data_must_name_the_instance(fleet: Path, text: str) -> None:
    (fleet / "devices/kitchen/bundle/meta-data").write_text(text)
    with pytest.raises(FleetError, match="instance-id: NAME"):
        read_bundle(fleet, "kitchen", now_unix_s=0)


def test_the_token_is_good_until_it_expires(fleet: Path) -> None:
    add_device_record(fleet, "kitchen", token_expires_unix_s=12.5)
    assert read_bundle(fleet, "kitchen", now_unix_s=12.4).token_expires_unix_s == 12.5


def test_a_ready_identity_takes_the_place_of_the_token(fleet: Path) -> None:
    add_device_record(fleet, "kitchen")
    with pytest.raises(FleetError, match=r"incomplete: no fedpt/identity\.pem"):
        read_bundle(fleet, "kitchen", now_unix_s=0)
    own = fleet / "devices/kitchen/bundle/fedpt"
    (own / "identity.pem").write_bytes(b"certificate and key")
    with (own / "SHA256SUMS").open("a") as listing:
        listing.write(f"{sha256_bytes(b'certificate and key')}  identity.pem\n")
    bundle = read_bundle(fleet, "kitchen", now_unix_s=5e9)
    assert bundle.token_expires_unix_s is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"role": "worker"}, "is a worker"), ({"is_removed": True}, "was removed")],
)
def test_who_takes_no_bundle_is_told(fleet: Path, changes: dict[str, Any], complaint: str) -> None:
    add_device_record(fleet, "kitchen", **changes)
    with pytest.raises(UsageError, match=complaint):
        read_bundle(fleet, "kitchen", now_unix_s=0)
