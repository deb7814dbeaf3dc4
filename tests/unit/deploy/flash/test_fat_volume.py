import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.flash.fat_volume import (
    FatGeometry,
    FatVolume,
    needed_bytes,
    read_geometry,
    require_mtools,
)
from fedpt.errors import ImageError, UsageError
from tests.fakes.disk_images import MIB, PI_FILES, make_fat, random_bytes

START = 3 * 512


@pytest.fixture
def volume(tmp_path: Path) -> FatVolume:
    image = tmp_path / "disk one.img"
    image.write_bytes(bytes(START) + make_fat(tmp_path, PI_FILES, label="bootfs", size=4 * MIB))
    return FatVolume(image, START)


def test_the_boot_sector_tells_sizes(volume: FatVolume) -> None:
    sector = volume.image.read_bytes()[START : START + 512]
    geometry = read_geometry(sector)
    assert geometry is not None
    assert geometry.total_bytes == 4 * MIB


@pytest.mark.skipif(shutil.which("mkfs.vfat") is None, reason="dosfstools is not installed")
@pytest.mark.parametrize(("bits", "clusters"), [("12", 16), ("16", 2), ("32", 1)])
def test_volumes_made_by_another_tool_are_read(tmp_path: Path, bits: str, clusters: int) -> None:
    image = tmp_path / "fat.img"
    with image.open("wb") as file:
        file.truncate(40 * MIB if bits == "32" else 16 * MIB)
    subprocess.run(
        ["mkfs.vfat", "-F", bits, "-s", str(clusters), "-n", "BOOTFS", str(image)],
        check=True, capture_output=True,
    )  # fmt: skip
    found = read_geometry(image.read_bytes()[:512])
    assert found == FatGeometry(512 * clusters, image.stat().st_size)
    volume = FatVolume(image, 0)
    assert volume.label() == "BOOTFS"
    assert volume.names() == []
    assert 0 < volume.free_bytes() <= image.stat().st_size


@given(st.binary(max_size=600))
def test_any_sector_is_read_without_a_crash(noise: bytes) -> None:
    for sector in (noise, noise.ljust(510, b"\0")[:510] + b"\x55\xaa"):
        geometry = read_geometry(sector)
        assert geometry is None or (geometry.cluster_bytes >= 512 and geometry.total_bytes > 0)


def test_files_are_listed_and_read(volume: FatVolume) -> None:
    assert set(volume.names()) == set(PI_FILES)
    assert volume.label() == "BOOTFS"
    assert volume.read("cmdline.txt").decode() == PI_FILES["cmdline.txt"]


def test_a_folder_goes_in_replaces_and_goes_out(volume: FatVolume, tmp_path: Path) -> None:
    folder = tmp_path / "fedpt"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/A long name, with more than 8.3.whl").write_bytes(b"one")
    volume.copy_in([folder])
    (folder / "deep/A long name, with more than 8.3.whl").write_bytes(b"two")
    volume.copy_in([folder])
    name = "fedpt/deep/A long name, with more than 8.3.whl"
    assert volume.names("/fedpt", deep=True)[-1] == name
    assert volume.read(name) == b"two"
    volume.delete_folder("fedpt")
    assert set(volume.names()) == set(PI_FILES)


def test_a_full_volume_is_told_in_one_line(volume: FatVolume, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(random_bytes(5 * MIB))
    with pytest.raises(ImageError, match="mcopy failed") as caught:
        volume.copy_in([tmp_path / "large"])
    assert "\n" not in str(caught.value)


def test_what_is_not_there_cannot_be_read(volume: FatVolume) -> None:
    with pytest.raises(ImageError):
        volume.read("nothing")
    with pytest.raises(ImageError, match="nothing cannot be read back"):
        volume.sha256("nothing")


def test_noise_is_no_volume(tmp_path: Path) -> None:
    (tmp_path / "noise.img").write_bytes(random_bytes(MIB))
    with pytest.raises(ImageError, match="mdir failed"):
        FatVolume(tmp_path / "noise.img", 0).names()


def test_needed_room_is_never_less_than_what_a_volume_loses(
    volume: FatVolume, tmp_path: Path
) -> None:
    sizes = {
        f"fedpt/d{index % 7}/a rather long name {index}.txt": index * 37 for index in range(90)
    }
    for name, size in sizes.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    geometry = read_geometry(volume.image.read_bytes()[START : START + 512])
    assert geometry is not None
    before = volume.free_bytes()
    volume.copy_in([tmp_path / "fedpt"])
    lost = before - volume.free_bytes()
    assert lost <= needed_bytes(sizes, geometry.cluster_bytes) <= lost * 1.2


def test_missing_mtools_is_told_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require_mtools()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="apt install mtools"):
        require_mtools()
