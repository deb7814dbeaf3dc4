from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.flash.copying import CopiedImage, Region, RegionHashes, copy_image, require_untouched
from deploy.flash.images import open_image
from fedpt.errors import ImageError
from fedpt.files import sha256_bytes
from fedpt.progress import Progress, ignore_progress
from tests.fakes.disk_images import MIB, Part, make_mbr_image, random_bytes


@given(st.binary(max_size=300), st.sets(st.integers(0, 400)), st.integers(1, 50))
def test_regions_are_the_runs_between_the_cuts_however_the_bytes_come(
    content: bytes, cuts: set[int], step: int
) -> None:
    hashes = RegionHashes(cuts)
    for start in range(0, len(content), step):
        hashes.update(content[start : start + step])
    edges = sorted({0, len(content), *(cut for cut in cuts if 0 < cut < len(content))})
    assert hashes.finish() == tuple(
        Region(start, end, sha256_bytes(content[start:end])) for start, end in pairwise(edges)
    )


def _copy(folder: Path, content: bytes) -> CopiedImage:
    source, target = folder / "source.img", folder / "target.img"
    source.write_bytes(content)
    target.touch()
    with open_image(source) as stream:
        return copy_image(stream, target, on_progress=ignore_progress)


IMAGE = make_mbr_image(
    [Part(MIB, random_bytes(MIB)), Part(4 * MIB, random_bytes(MIB // 2), kind=0x83)], size=6 * MIB
)


def test_a_copy_is_the_image_with_holes_for_zeros(tmp_path: Path) -> None:
    copied = _copy(tmp_path, IMAGE)
    assert copied.path.read_bytes() == IMAGE
    assert copied.size_bytes == len(IMAGE)
    assert copied.path.stat().st_blocks * 512 < 3 * MIB


def test_progress_ends_with_the_file(tmp_path: Path) -> None:
    source, target = tmp_path / "source.img", tmp_path / "target.img"
    source.write_bytes(IMAGE)
    target.touch()
    seen: list[Progress] = []
    with open_image(source) as stream:
        copy_image(stream, target, on_progress=seen.append)
    assert seen[-1].done == seen[-1].total == len(IMAGE)


def test_a_cut_off_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"partition 2 ends .* cut off"):
        _copy(tmp_path, IMAGE[: 4 * MIB])


@pytest.mark.parametrize("at", [MIB, MIB + 77, 2 * MIB - 1])
def test_the_boot_partition_may_change(tmp_path: Path, at: int) -> None:
    copied = _copy(tmp_path, IMAGE)
    changed = bytearray(IMAGE)
    changed[at] ^= 1
    copied.path.write_bytes(changed)
    boot = copied.partitions[0]
    assert require_untouched(copied, boot, on_progress=ignore_progress) == sha256_bytes(changed)


@pytest.mark.parametrize("at", [0, 511, MIB - 1, 2 * MIB, 4 * MIB + 5, 6 * MIB - 1])
def test_a_single_changed_byte_elsewhere_is_noticed(tmp_path: Path, at: int) -> None:
    copied = _copy(tmp_path, IMAGE)
    changed = bytearray(IMAGE)
    changed[at] ^= 1
    copied.path.write_bytes(changed)
    with pytest.raises(ImageError, match="outside of the boot partition"):
        require_untouched(copied, copied.partitions[0], on_progress=ignore_progress)


@pytest.mark.parametrize("content", [IMAGE[:-1], IMAGE + b"\0"])
def test_another_length_is_noticed(tmp_path: Path, content: bytes) -> None:
    copied = _copy(tmp_path, IMAGE)
    copied.path.write_bytes(content)
    with pytest.raises(ImageError, match="outside of the boot partition"):
        require_untouched(copied, copied.partitions[0], on_progress=ignore_progress)
