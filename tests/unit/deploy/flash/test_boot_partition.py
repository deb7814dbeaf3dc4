"""Reading back: what went wrong on the way into the image is noticed."""

from pathlib import Path

import pytest

from deploy.flash.boot_layout import System
from deploy.flash.boot_partition import (
    BootPartition,
    fill,
    find_boot_partition,
    require_filled,
)
from deploy.flash.bundles import Bundle, read_bundle
from deploy.flash.copying import copy_image
from deploy.flash.images import open_image
from fedpt.errors import ImageError
from fedpt.progress import ignore_progress
from tests.fakes.disk_images import MIB, Part, make_fat, make_mbr_image
from tests.unit.deploy.flash.conftest import needs_mtools

pytestmark = needs_mtools


def _boot_partition(folder: Path, content: bytes) -> BootPartition:
    source, target = folder / "source.img", folder / "target.img"
    source.write_bytes(content)
    target.touch()
    with open_image(source) as stream:
        return find_boot_partition(copy_image(stream, target, on_progress=ignore_progress))


@pytest.fixture
def bundle(fleet: Path) -> Bundle:
    return read_bundle(fleet, "kitchen", now_unix_s=0)


@pytest.fixture
def filled(tmp_path: Path, pi_bytes: bytes, bundle: Bundle) -> BootPartition:
    boot = _boot_partition(tmp_path, pi_bytes)
    fill(boot, bundle)
    return boot


def test_what_was_filled_in_is_found_again(filled: BootPartition, bundle: Bundle) -> None:
    assert filled.system is System.RASPBERRY_PI_OS
    assert filled.partition.start == 4 * MIB
    require_filled(filled, bundle)


@pytest.mark.parametrize("name", ["user-data", "meta-data"])
def test_a_file_that_came_out_different_is_named(
    filled: BootPartition, bundle: Bundle, name: str
) -> None:
    filled.volume.write(name, b"something else")
    with pytest.raises(ImageError, match=f"{name} is not as in the bundle"):
        require_filled(filled, bundle)


def test_a_changed_model_is_noticed_in_its_bytes(filled: BootPartition, bundle: Bundle) -> None:
    """As a bad memory or a worn disk would change it: one bit, with mtools none the wiser."""
    model = next(file for file in bundle.files if file.name.endswith("model.gguf"))
    image = bytearray(filled.volume.image.read_bytes())
    image[image.index(model.path.read_bytes()[:64])] ^= 1
    filled.volume.image.write_bytes(image)
    with pytest.raises(ImageError, match=r"model\.gguf is not as in the bundle"):
        require_filled(filled, bundle)


def test_a_missing_and_an_extra_file_are_named(
    filled: BootPartition, bundle: Bundle, tmp_path: Path
) -> None:
    extra = tmp_path / "fedpt"
    extra.mkdir()
    (extra / "extra.whl").write_bytes(b"x")
    filled.volume.copy_in([extra])
    with pytest.raises(ImageError, match=r"fedpt/extra\.whl is missing or should not be there"):
        require_filled(filled, bundle)
    filled.volume.delete_folder("fedpt")
    filled.volume.copy_in([extra])
    with pytest.raises(ImageError, match="is missing or should not be there"):
        require_filled(filled, bundle)


def test_a_changed_command_line_is_noticed(filled: BootPartition, bundle: Bundle) -> None:
    filled.volume.write("cmdline.txt", b"root=/dev/somewhere\n")
    with pytest.raises(ImageError, match=r"cmdline\.txt on the boot partition is not as"):
        require_filled(filled, bundle)


def test_an_enormous_command_line_is_refused(tmp_path: Path) -> None:
    files = {"cmdline.txt": "x" * 70_000, "config.txt": "", "user-data": ""}
    boot = make_fat(tmp_path, files, label="BOOTFS", size=2 * MIB)
    with pytest.raises(ImageError, match=r"cmdline\.txt has 70000 bytes"):
        _boot_partition(tmp_path, make_mbr_image([Part(MIB, boot)], size=4 * MIB))


def test_the_first_partition_that_fits_is_taken(tmp_path: Path, pi_bytes: bytes) -> None:
    other = make_fat(tmp_path, {"readme.txt": ""}, label="RECOVERY", size=2 * MIB)
    image = make_mbr_image([Part(MIB, other), Part(4 * MIB, pi_bytes[4 * MIB : 12 * MIB])],
                           size=13 * MIB)  # fmt: skip
    assert _boot_partition(tmp_path, image).partition.number == 2
