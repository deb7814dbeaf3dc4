"""Against a real loop device; needs root."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.flash.block_devices import BlockDevice, read_block_device
from deploy.flash.writing import require_permission, require_written, write_to_disk
from fedpt.errors import BlockDeviceError
from fedpt.progress import Progress, ignore_progress
from tests.fakes.disk_images import MIB, random_bytes
from tests.unit.deploy.flash.conftest import Outcome, RunFlash

IMAGE = random_bytes(6 * MIB + 512)


def attach(backing: Path) -> str:
    """A loop device over a file; skips the test where that cannot be done."""
    if os.geteuid() != 0 or shutil.which("losetup") is None:
        pytest.skip("loop devices need root and losetup")
    made = subprocess.run(
        ["losetup", "--find", "--show", str(backing)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no loop device can be had: {made.stderr.strip()}")
    return made.stdout.strip()


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB full of 0xEE."""
    backing = tmp_path / "disk"
    backing.write_bytes(b"\xee" * (24 * MIB))
    path = attach(backing)
    yield Path(path)
    subprocess.run(["losetup", "--detach", path], check=True)


@pytest.fixture
def device(loop: Path) -> BlockDevice:
    return read_block_device(loop)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.img"
    path.write_bytes(IMAGE)
    return path


def test_a_disk_holds_the_image_afterwards(image: Path, device: BlockDevice) -> None:
    assert device.size_bytes == 24 * MIB
    seen: list[Progress] = []
    write_to_disk(image, device, on_progress=seen.append)
    require_written(image, device, on_progress=ignore_progress)
    content = device.path.read_bytes()
    assert content[: len(IMAGE)] == IMAGE
    assert set(content[len(IMAGE) :]) == {0xEE}
    assert seen[-1] == Progress(len(IMAGE), len(IMAGE))


def test_an_interrupted_disk_starts_nothing(image: Path, device: BlockDevice) -> None:
    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_to_disk(image, device, on_progress=interrupt)
    assert set(device.path.read_bytes()[:MIB]) == {0}


@pytest.mark.parametrize("at", [0, 3 * MIB, 6 * MIB + 511])
def test_a_card_that_forgets_is_noticed(image: Path, device: BlockDevice, at: int) -> None:
    write_to_disk(image, device, on_progress=ignore_progress)
    with device.path.open("r+b") as disk:
        disk.seek(at)
        disk.write(bytes([IMAGE[at] ^ 1]))
    with pytest.raises(BlockDeviceError, match="does not hold what was written"):
        require_written(image, device, on_progress=ignore_progress)


def test_a_disk_in_use_cannot_be_opened(image: Path, loop: Path, tmp_path: Path) -> None:
    """Whatever was read of it before: the kernel has the last word."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("e2fsprogs is not installed")
    subprocess.run(["mkfs.ext4", "-q", "-F", str(loop)], check=True, capture_output=True)
    unmounted = read_block_device(loop)
    place = tmp_path / "mnt"
    place.mkdir()
    mounted = subprocess.run(["mount", str(loop), str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        assert read_block_device(loop).mounted_at == (str(place),)
        with pytest.raises(BlockDeviceError, match="is in use; unmount"):
            write_to_disk(image, unmounted, on_progress=ignore_progress)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_another_device_under_the_name_is_refused(image: Path, device: BlockDevice) -> None:
    with pytest.raises(BlockDeviceError, match="another device than a moment ago"):
        write_to_disk(image, replace(device, device_number="8:0"), on_progress=ignore_progress)
    assert set(device.path.read_bytes()) == {0xEE}


def test_a_plain_file_is_no_disk(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"precious")
    fake = BlockDevice(path, "0:0", 1, "", "", "usb", False, True, False, (), ())
    with pytest.raises(BlockDeviceError, match="another device"):
        write_to_disk(image, fake, on_progress=ignore_progress)
    assert path.read_bytes() == b"precious"


def test_a_disk_without_permission_is_refused_early(device: BlockDevice) -> None:
    require_permission(device)
    with pytest.raises(BlockDeviceError, match="run the command with sudo"):
        require_permission(replace(device, path=device.path / "not-ours"))


def _flash_to(run_flash: RunFlash, image: Path, fleet: Path, loop: Path, *more: object) -> Outcome:
    return run_flash(
        "--image", image, "--no-checksum", "--fleet", fleet, "kitchen", "--to", loop, *more
    )


def test_the_command_writes_to_a_disk_that_is_named_twice(
    run_flash: RunFlash, pi_image: Path, fleet: Path, loop: Path
) -> None:
    done = _flash_to(run_flash, pi_image, fleet, loop, "--force", loop, "--yes")
    assert done.code == 0, done.err
    assert f"written to {loop} and read back" in done.out
    made = (fleet / "devices/kitchen/kitchen.img").read_bytes()
    assert loop.read_bytes()[: len(made)] == made


def test_the_command_asks_and_takes_no_for_an_answer(
    run_flash: RunFlash,
    pi_image: Path,
    fleet: Path,
    *,
    loop: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("builtins.input", lambda: "yes")
    done = _flash_to(run_flash, pi_image, fleet, loop, "--force", loop)
    assert done.error == f"fedpt: nothing was written to {loop}"
    assert f"all data will be lost on {loop}: 0.0 GB" in done.out
    assert set(loop.read_bytes()) == {0xEE}
    monkeypatch.setattr("builtins.input", lambda: str(loop))
    assert _flash_to(run_flash, pi_image, fleet, loop, "--force", loop).code == 0


def test_the_command_refuses_a_disk_before_it_makes_an_image(
    run_flash: RunFlash, pi_image: Path, fleet: Path, loop: Path
) -> None:
    assert "neither removable nor on USB" in _flash_to(run_flash, pi_image, fleet, loop).error
    assert "must name the same disk" in (
        _flash_to(run_flash, pi_image, fleet, loop, "--force", "/dev/sdz").error
    )
    assert not (fleet / "devices/kitchen/kitchen.img").exists()
    assert set(loop.read_bytes()) == {0xEE}


def test_the_command_refuses_a_disk_that_is_too_small(
    run_flash: RunFlash, pi_image: Path, fleet: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.write_bytes(bytes(MIB))
    path = attach(small)
    try:
        done = _flash_to(run_flash, pi_image, fleet, Path(path), "--force", path, "--yes")
        assert "has 1.0 MB, too small for the image of 16.8 MB" in done.error
    finally:
        subprocess.run(["losetup", "--detach", path], check=True)
