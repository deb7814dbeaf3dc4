"""The command as a person calls it: real images in, real images out, one line for every fault."""

import gzip
import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import zstandard

from fedpt.files import sha256_bytes
from tests.fakes.disk_images import (
    MIB,
    OLD_PI_FILES,
    PI_CMDLINE,
    UBUNTU_FILES,
    Part,
    make_fat,
    make_fleet,
    make_gpt_image,
    make_mbr_image,
    make_pi_image,
    random_bytes,
)
from tests.unit.deploy.flash.conftest import Outcome, RunFlash, needs_mtools

pytestmark = needs_mtools
needs_dosfstools = pytest.mark.skipif(
    shutil.which("mkfs.vfat") is None, reason="dosfstools is not installed"
)


def _mtools(*command: str) -> bytes:
    environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    return subprocess.run(command, check=True, capture_output=True, env=environment).stdout


def _read(image: Path, start: int, name: str) -> bytes:
    return _mtools("mcopy", "-i", f"{image}@@{start}", f"::/{name}", "-")


def _bundle_of(fleet: Path, device: str = "kitchen") -> dict[str, bytes]:
    folder = fleet / f"devices/{device}/bundle"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _made(fleet: Path) -> list[str]:
    """What the command left in the device's folder."""
    return sorted(
        path.name
        for path in (fleet / "devices/kitchen").iterdir()
        if path.name not in {"bundle", "device.json"}
    )


def _flash(run_flash: RunFlash, image: Path, fleet: Path, *more: object) -> Outcome:
    return run_flash("--image", image, "--fleet", fleet, "kitchen", "--no-checksum", *more)


def test_the_bundle_is_in_the_boot_partition_and_every_other_byte_is_as_before(
    run_flash: RunFlash, pi_image: Path, pi_bytes: bytes, fleet: Path
) -> None:
    done = _flash(run_flash, pi_image, fleet)
    assert done.code == 0, done.err
    made = fleet / "devices/kitchen/kitchen.img"
    content = made.read_bytes()
    assert content[: 4 * MIB] == pi_bytes[: 4 * MIB]
    assert content[12 * MIB :] == pi_bytes[12 * MIB :]
    for name, expected in _bundle_of(fleet).items():
        assert _read(made, 4 * MIB, name) == expected
    line = f"{PI_CMDLINE.strip()} ds=nocloud;i=fedpt-kitchen-1\n"
    assert _read(made, 4 * MIB, "cmdline.txt").decode() == line
    assert _read(made, 4 * MIB, "kernel8.img") == b"a kernel\n" * 5000
    assert pi_image.read_bytes() == pi_bytes
    assert made.stat().st_mode & 0o077 == 0  # it holds a token


def test_the_manifest_for_imager_tells_the_truth(
    run_flash: RunFlash, pi_image: Path, fleet: Path
) -> None:
    done = _flash(run_flash, pi_image, fleet)
    manifest = fleet / "devices/kitchen/kitchen.rpi-imager-manifest"
    (entry,) = json.loads(manifest.read_text())["os_list"]
    made = fleet / "devices/kitchen/kitchen.img"
    assert entry["extract_sha256"] == sha256_bytes(made.read_bytes())
    assert entry["extract_size"] == made.stat().st_size
    assert entry["url"] == made.as_uri()
    assert f"rpi-imager --repo {manifest}" in done.out
    assert f"dd if={made} of=/dev/sdX" in done.out


@needs_dosfstools
def test_a_fat32_volume_by_another_tool_takes_the_bundle(
    run_flash: RunFlash, fleet: Path, tmp_path: Path
) -> None:
    """As Raspberry Pi OS and Ubuntu have it."""
    fat = tmp_path / "boot.fat"
    fat.touch()
    os.truncate(fat, 34 * MIB)
    subprocess.run(
        ["mkfs.vfat", "-F", "32", "-s", "1", "-n", "system-boot", str(fat)],
        check=True, capture_output=True,
    )  # fmt: skip
    image = tmp_path / "ubuntu.img"
    image.write_bytes(make_mbr_image([Part(MIB, fat.read_bytes())], size=36 * MIB))
    assert _flash(run_flash, image, fleet).code == 0
    fat.write_bytes((fleet / "devices/kitchen/kitchen.img").read_bytes()[MIB : 35 * MIB])
    for name, content in _bundle_of(fleet).items():
        assert _read(fat, 0, name) == content
    checked = subprocess.run(["fsck.vfat", "-n", str(fat)], capture_output=True, check=False)
    assert b"Dirty bit" in checked.stdout or checked.returncode == 0, checked.stdout


@needs_dosfstools
def test_another_tool_finds_no_fault_in_the_file_system(
    run_flash: RunFlash, pi_image: Path, fleet: Path, tmp_path: Path
) -> None:
    _flash(run_flash, pi_image, fleet)
    content = (fleet / "devices/kitchen/kitchen.img").read_bytes()
    boot = tmp_path / "boot.fat"
    boot.write_bytes(content[4 * MIB : 12 * MIB])
    checked = subprocess.run(["fsck.vfat", "-n", str(boot)], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_kernels_own_driver_reads_the_same_files(
    run_flash: RunFlash, pi_image: Path, fleet: Path, tmp_path: Path
) -> None:
    _flash(run_flash, pi_image, fleet)
    place = tmp_path / "mnt"
    place.mkdir()
    options = f"loop,ro,offset={4 * MIB},sizelimit={8 * MIB}"
    made = fleet / "devices/kitchen/kitchen.img"
    mounted = subprocess.run(
        ["mount", "-t", "vfat", "-o", options, str(made), str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        found = {
            path.relative_to(place).as_posix(): path.read_bytes()
            for path in place.rglob("*")
            if path.is_file()
        }
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert found.items() >= _bundle_of(fleet).items()


@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="e2fsprogs is not installed")
def test_a_real_root_file_system_behind_the_boot_partition_stays_sound(
    run_flash: RunFlash, pi_bytes: bytes, fleet: Path, tmp_path: Path
) -> None:
    system, root = tmp_path / "system", tmp_path / "root.ext4"
    system.mkdir()
    (system / "hostname").write_text("raspberrypi\n")
    subprocess.run(["mkfs.ext4", "-q", "-d", system, root, "8M"], check=True, capture_output=True)
    parts = [Part(4 * MIB, pi_bytes[4 * MIB : 12 * MIB])]
    parts.append(Part(12 * MIB, root.read_bytes(), kind=0x83))
    image = tmp_path / "raspios.img"
    image.write_bytes(make_mbr_image(parts, size=20 * MIB))
    assert _flash(run_flash, image, fleet).code == 0
    made = (fleet / "devices/kitchen/kitchen.img").read_bytes()[12 * MIB :]
    assert made == root.read_bytes()
    root.write_bytes(made)
    subprocess.run(["e2fsck", "-fn", root], check=True, capture_output=True)
    read = subprocess.run(["debugfs", "-R", "cat /hostname", root], check=True, capture_output=True)
    assert read.stdout == b"raspberrypi\n"


@pytest.mark.parametrize("kind", ["xz", "gz", "zst", "zip"])
def test_a_compressed_image_gives_the_same_result(
    run_flash: RunFlash, pi_bytes: bytes, fleet: Path, *, tmp_path: Path, kind: str
) -> None:
    packed = tmp_path / f"raspios.img.{kind}"
    match kind:
        case "xz":
            packed.write_bytes(lzma.compress(pi_bytes, preset=0))
        case "gz":
            packed.write_bytes(gzip.compress(pi_bytes, 1))
        case "zst":
            packed.write_bytes(zstandard.compress(pi_bytes))
        case _:
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("raspios.img", pi_bytes)
    out = tmp_path / "out/kitchen.img"
    done = _flash(run_flash, packed, fleet, "--out", out)
    assert done.code == 0, done.err
    content = out.read_bytes()
    assert (content[: 4 * MIB], content[12 * MIB :]) == (pi_bytes[: 4 * MIB], pi_bytes[12 * MIB :])
    assert _read(out, 4 * MIB, "user-data") == _bundle_of(fleet)["user-data"]
    assert _made(fleet) == []


def test_ubuntu_on_gpt_keeps_its_command_line(
    run_flash: RunFlash, fleet: Path, tmp_path: Path
) -> None:
    boot = make_fat(tmp_path, UBUNTU_FILES, label="system-boot", size=8 * MIB)
    root = Part(10 * MIB, random_bytes(MIB))
    image = tmp_path / "ubuntu.img"
    image.write_bytes(make_gpt_image([Part(MIB, boot), root], size=12 * MIB))
    done = _flash(run_flash, image, fleet)
    assert done.code == 0, done.err
    assert "Ubuntu" in done.out
    made = fleet / "devices/kitchen/kitchen.img"
    assert _read(made, MIB, "cmdline.txt").decode() == UBUNTU_FILES["cmdline.txt"]
    assert _read(made, MIB, "meta-data") == _bundle_of(fleet)["meta-data"]


def test_a_desktop_of_ubuntu_is_warned_of(run_flash: RunFlash, fleet: Path, tmp_path: Path) -> None:
    boot = make_fat(tmp_path, {"config.txt": ""}, label="system-boot", size=4 * MIB)
    image = tmp_path / "ubuntu.img"
    image.write_bytes(make_mbr_image([Part(MIB, boot)], size=6 * MIB))
    done = _flash(run_flash, image, fleet)
    assert done.code == 0
    assert "warning: the image brings no user-data" in done.err


def test_an_image_that_was_flashed_before_gets_the_new_bundle_only(
    run_flash: RunFlash, pi_image: Path, fleet: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first.img"
    _flash(run_flash, pi_image, fleet, "--out", first)
    again = make_fleet(tmp_path / "again")
    wheel = again / "devices/kitchen/bundle/fedpt/wheels/fedpt-0.1.0-py3-none-any.whl"
    listing = again / "devices/kitchen/bundle/fedpt/SHA256SUMS"
    wheel.unlink()
    kept = [
        line for line in listing.read_text().splitlines(keepends=True) if wheel.name not in line
    ]
    listing.write_text("".join(kept))
    second = tmp_path / "second.img"
    done = _flash(run_flash, first, again, "--out", second)
    assert done.code == 0, done.err
    assert wheel.name.encode() not in _mtools(
        "mdir", "-/", "-b", "-i", f"{second}@@{4 * MIB}", "::"
    )
    assert _read(second, 4 * MIB, "cmdline.txt").count(b"ds=nocloud") == 1


def test_an_image_for_no_board_is_sent_to_cidata(
    run_flash: RunFlash, fleet: Path, tmp_path: Path
) -> None:
    esp = make_fat(tmp_path, {"grub.cfg": ""}, label="UEFI", size=4 * MIB)
    image = tmp_path / "cloud.img"
    image.write_bytes(make_gpt_image([Part(MIB, esp)], size=6 * MIB))
    assert "fedpt flash --cidata OUT.img NAME" in _flash(run_flash, image, fleet).error


def test_a_cidata_volume_holds_the_bundle(run_flash: RunFlash, fleet: Path, tmp_path: Path) -> None:
    out = tmp_path / "seed.img"
    done = run_flash("--cidata", out, "--fleet", fleet, "kitchen")
    assert done.code == 0, done.err
    for name, content in _bundle_of(fleet).items():
        assert _read(out, 0, name) == content
    assert b"CIDATA" in _mtools("mlabel", "-s", "-i", str(out), "::")
    assert out.stat().st_size < 8 * MIB
    assert "from its own disk, with this stick plugged in" in done.out
    if shutil.which("blkid"):
        probed = subprocess.run(["blkid", "-p", str(out)], capture_output=True, check=True).stdout
        assert b' LABEL="CIDATA"' in probed
        assert b'TYPE="vfat"' in probed
    if shutil.which("fsck.vfat"):
        subprocess.run(["fsck.vfat", "-n", str(out)], check=True, capture_output=True)


def test_a_large_bundle_gets_a_large_cidata_volume(
    run_flash: RunFlash, fleet: Path, tmp_path: Path
) -> None:
    folder = fleet / "devices/kitchen/bundle/fedpt"
    model = random_bytes(90 * MIB)
    (folder / "model/model.gguf").write_bytes(model)
    listing = folder / "SHA256SUMS"
    lines = [line for line in listing.read_text().splitlines() if not line.endswith("model.gguf")]
    listing.write_text("\n".join([*lines, f"{sha256_bytes(model)}  model/model.gguf"]) + "\n")
    done = run_flash("--cidata", tmp_path / "seed.img", "--fleet", fleet, "kitchen")
    assert done.code == 0, done.err


def test_a_published_checksum_is_checked(run_flash: RunFlash, pi_image: Path, fleet: Path) -> None:
    arguments = ("--image", pi_image, "--fleet", fleet, "kitchen")
    right = sha256_bytes(pi_image.read_bytes())
    assert run_flash(*arguments, "--sha256", right).code == 0
    sidecar = pi_image.with_name("raspios.img.sha256")
    sidecar.write_text(f"{right}  raspios.img\n")
    assert "sha256 as published" in run_flash(*arguments).out


def test_a_wrong_checksum_changes_nothing(run_flash: RunFlash, pi_image: Path, fleet: Path) -> None:
    old = fleet / "devices/kitchen/kitchen.img"
    old.write_text("the last one")
    wrong = run_flash("--image", pi_image, "--fleet", fleet, "kitchen", "--sha256", "0" * 64)
    assert "it is damaged or not what was published" in wrong.error
    assert _made(fleet) == ["kitchen.img"]
    assert old.read_text() == "the last one"


def test_an_image_that_nobody_vouches_for_is_refused_with_the_ways_out(
    run_flash: RunFlash, pi_image: Path, fleet: Path
) -> None:
    done = run_flash("--image", pi_image, "--fleet", fleet, "kitchen")
    assert done.code == 2
    assert all(way in done.error for way in ("--sha256", "raspios.img.sha256", "--no-checksum"))
    assert _made(fleet) == []


def test_an_image_taken_as_it_is_is_warned_of(
    run_flash: RunFlash, pi_image: Path, fleet: Path
) -> None:
    assert "warning: nobody says" in _flash(run_flash, pi_image, fleet).err


def _broken_images(folder: Path, pi: bytes) -> dict[str, tuple[bytes, str]]:
    """Name -> (content, what the one line must say)."""
    small = make_pi_image(folder, fat=256 * 1024)
    old = make_pi_image(folder, files=OLD_PI_FILES, fat=2 * MIB)
    no_fat = make_mbr_image([Part(MIB, bytes(MIB), kind=0x83)], size=3 * MIB)
    lying = bytearray(pi)
    lying[4 * MIB + 32 : 4 * MIB + 36] = (2**31).to_bytes(4, "little")
    lying[4 * MIB + 19 : 4 * MIB + 21] = bytes(2)
    overlapping = (
        make_mbr_image(
            [Part(4 * MIB, pi[4 * MIB : 12 * MIB]), Part(11 * MIB, bytes(MIB), kind=0x83)],
            size=13 * MIB,
        )[: 11 * MIB]
        + pi[11 * MIB :]
    )
    return {
        "text.img": (b"hello", "is no disk image; expected"),
        "cut.img.xz": (lzma.compress(pi, preset=0)[:-5000], "is cut off or damaged"),
        "small.img": (small, "the bundle needs 0.4 MB and 0.2 MB are free"),
        "old.img": (old, "has no cloud-init"),
        "empty.img": (make_mbr_image([], size=MIB), "its partition table is empty"),
        "nofat.img": (no_fat, "no boot partition"),
        "short.img": (pi[: 10 * MIB], "was cut off"),
        "lying.img": (bytes(lying), "its file system claims"),
        "overlap.img": (overlapping, "partitions 1 and 2 overlap"),
        "noise.img": (pi[: 4 * MIB] + random_bytes(8 * MIB) + pi[12 * MIB :], "no boot partition"),
    }  # fmt: skip


def test_every_broken_image_is_one_line_and_leaves_nothing(
    run_flash: RunFlash, pi_bytes: bytes, fleet: Path, tmp_path: Path
) -> None:
    for name, (content, complaint) in _broken_images(tmp_path, pi_bytes).items():
        image = tmp_path / name
        image.write_bytes(content)
        done = _flash(run_flash, image, fleet)
        assert complaint in done.error, name
        assert name in done.error
        assert _made(fleet) == [], name


def test_wrong_calls_are_one_line(
    run_flash: RunFlash, pi_image: Path, fleet: Path, tmp_path: Path
) -> None:
    device, image = ("--fleet", fleet, "kitchen"), ("--image", pi_image, "--no-checksum")
    assert "either --image IMG or --cidata" in run_flash(*device).error
    assert "either --image" in run_flash(*device, *image, "--cidata", "x").error
    assert "names its own output" in run_flash(*device, "--cidata", "x", "--out", "y").error
    assert "there are: kitchen" in run_flash("--fleet", fleet, "attic", *image).error
    assert "no fleet in" in run_flash("--fleet", tmp_path, "kitchen", *image).error
    assert "is the image itself" in run_flash(*device, *image, "--out", pi_image).error
    assert "use: --to /dev/null" in run_flash(*device, *image, "--out", "/dev/null").error
    assert "is no file" in run_flash(*device, *image, "--out", tmp_path).error
    assert "is no disk" in run_flash(*device, *image, "--to", "/dev/nothing").error
    assert "cannot read" in run_flash(*device, "--image", "nothing.img").error
    assert _made(fleet) == []


def test_missing_mtools_and_an_incomplete_bundle_are_one_line(
    run_flash: RunFlash, pi_image: Path, fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fleet / "devices/kitchen/bundle/fedpt/ca.pem").unlink()
    assert "incomplete: no fedpt/ca.pem" in _flash(run_flash, pi_image, fleet).error
    monkeypatch.setenv("PATH", "/nowhere")
    assert "sudo apt install mtools" in _flash(run_flash, pi_image, fleet).error


def test_the_state_of_the_token_matters(
    run_flash: RunFlash, pi_image: Path, tmp_path: Path
) -> None:
    gone = make_fleet(tmp_path / "gone", expires=time.time() - 1)
    assert "--renew-token" in _flash(run_flash, pi_image, gone).error
    soon = make_fleet(tmp_path / "soon", expires=time.time() + 7200)
    done = _flash(run_flash, pi_image, soon)
    assert done.code == 0
    assert "good for 2.0 hours more" in done.err


def test_an_output_without_room_is_refused_and_leaves_nothing(
    run_flash: RunFlash, pi_image: Path, pi_bytes: bytes, *, fleet: Path, tmp_path: Path
) -> None:
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    packed = tmp_path / "raspios.img.gz"
    packed.write_bytes(gzip.compress(pi_bytes, 1))  # whose size is not known before
    try:
        told = _flash(run_flash, pi_image, fleet, "--out", place / "a.img").error
        assert "it needs 17 MB and 1 MB are free" in told
        told = _flash(run_flash, packed, fleet, "--out", place / "a.img").error
        assert "No space left on device; free some space" in told
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_an_image_made_by_root_belongs_to_the_owner_of_its_folder(
    run_flash: RunFlash, pi_image: Path, fleet: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(fleet / "devices/kitchen", 12345, 12346)
    assert _flash(run_flash, pi_image, fleet).code == 0
    status = (fleet / "devices/kitchen/kitchen.img").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (12345, 12346, 0o600)


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_leaves_nothing_half_written(fleet: Path, tmp_path: Path) -> None:
    image = tmp_path / "long.img"
    image.write_bytes(make_mbr_image([Part(MIB, bytes(MIB))], size=3 * MIB))
    os.truncate(image, 6 * 1024 * MIB)  # a hole: no room taken, but long to read
    script = (
        "from importlib.metadata import EntryPoint\n"
        "import fedpt.cli\n"
        "entry = EntryPoint('flash', 'deploy.flash.cli:flash', 'fedpt.commands')\n"
        "fedpt.cli.entry_points = lambda group: [entry]\n"
        "fedpt.cli.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "flash", "--image", str(image), "--no-checksum",
         "--fleet", str(fleet), "kitchen"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not _made(fleet):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert _made(fleet) == []
