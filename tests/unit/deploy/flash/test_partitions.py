import struct
import subprocess
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.flash.partitions import (
    HEAD_BYTES,
    Partition,
    read_partitions,
    require_alone,
    require_sound,
)
from fedpt.errors import ImageError
from tests.fakes.disk_images import LINUX_DATA, MIB, Part, make_gpt_image, make_mbr_image, mbr_entry

MBR = make_mbr_image(
    [Part(MIB, bytes(MIB)), Part(2 * MIB, bytes(MIB // 2), kind=0x83)], size=3 * MIB
)
GPT = make_gpt_image(
    [Part(MIB, bytes(MIB)), Part(2 * MIB, bytes(MIB // 2), guid=LINUX_DATA)], size=3 * MIB
)
FOUND = (
    Partition(1, MIB, MIB, may_be_fat=True),
    Partition(2, 2 * MIB, MIB // 2, may_be_fat=False),
)


def test_an_mbr_tells_its_partitions() -> None:
    assert read_partitions(MBR) == FOUND


def test_a_gpt_tells_its_partitions() -> None:
    assert read_partitions(GPT) == FOUND


@pytest.mark.parametrize("kind", [0x06, 0x0B, 0x0C, 0x0E])
def test_every_fat_type_of_an_mbr_may_be_a_boot_partition(kind: int) -> None:
    image = make_mbr_image([Part(MIB, bytes(MIB), kind=kind)], size=2 * MIB)
    assert read_partitions(image)[0].may_be_fat


@pytest.mark.skipif(which("sfdisk") is None, reason="sfdisk is not installed")
@pytest.mark.parametrize(("label", "boot", "root"), [("dos", "c", "83"), ("gpt", "U", "L")])
def test_tables_made_by_sfdisk_are_read(tmp_path: Path, label: str, boot: str, root: str) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(8 * MIB)
    script = (
        f"label: {label}\nstart=2048, size=4096, type={boot}\nstart=8192, size=1024, type={root}\n"
    )
    subprocess.run(
        ["sfdisk", "--quiet", str(image)], input=script.encode(), check=True, capture_output=True
    )
    found = read_partitions(image.read_bytes()[:HEAD_BYTES])
    assert [(p.start, p.size, p.may_be_fat) for p in found] == [
        (MIB, 2 * MIB, True),
        (4 * MIB, MIB // 2, False),
    ]
    require_sound(found, image_bytes=8 * MIB)


def test_an_extended_partition_is_left_out() -> None:
    image = make_mbr_image([Part(MIB, bytes(MIB)), Part(2 * MIB, b"", kind=0x83)], size=3 * MIB)
    with_extended = image[:462] + mbr_entry(0x0F, 2 * MIB, MIB) + image[478:]
    assert [partition.number for partition in read_partitions(with_extended)] == [1]


@pytest.mark.parametrize(
    ("head", "complaint"),
    [
        (b"", "no partition table"),
        (bytes(4096), "no partition table"),
        (MBR[:300], "no partition table"),
        (make_mbr_image([], size=MIB), "is empty"),
        (make_gpt_image([], size=MIB), "is empty"),
        (MBR[:446] + b"\x17" + MBR[447:], "no partition table"),
        (make_gpt_image([Part(MIB, b"")], size=2 * MIB), "partition 1 ends before it starts"),
        (GPT[:512], "no header"),
        (GPT[:600], "ends in its header"),
        (GPT[:5000], "is not there"),
        (GPT[:520] + b"\x01" + GPT[521:], "header's checksum"),
        (GPT[:1030] + b"\x01" + GPT[1031:], "table's checksum"),
    ],
)
def test_a_damaged_table_is_named(head: bytes, complaint: str) -> None:
    with pytest.raises(ImageError, match=complaint):
        read_partitions(head)


def test_sectors_of_4096_bytes_are_named() -> None:
    image = bytearray(GPT)
    image[4096:4104] = b"EFI PART"
    image[512:520] = bytes(8)
    with pytest.raises(ImageError, match="4096-byte sectors"):
        read_partitions(bytes(image))


def test_a_partition_beyond_the_end_is_refused_with_its_number() -> None:
    require_sound(FOUND, image_bytes=FOUND[1].end)
    with pytest.raises(ImageError, match=r"partition 2 ends at byte 2621440.*2621439 bytes"):
        require_sound(FOUND, image_bytes=FOUND[1].end - 1)


def test_overlapping_partitions_are_refused() -> None:
    other = Partition(2, 2 * MIB - 512, MIB, may_be_fat=False)
    with pytest.raises(ImageError, match="1 and 2 overlap"):
        require_alone(FOUND[0], (FOUND[0], other))
    with pytest.raises(ImageError, match="overlaps the partition table"):
        require_alone(Partition(1, 0, MIB, may_be_fat=True), ())
    require_alone(FOUND[0], FOUND)


def _sound(head: bytes) -> tuple[Partition, ...]:
    """The partitions, or nothing if they were refused; any other exception is a defect."""
    try:
        found = read_partitions(head)
    except ImageError:
        return ()
    assert all(partition.start >= 0 and partition.size > 0 for partition in found)
    return found


@given(st.binary(max_size=2048))
def test_arbitrary_bytes_never_crash(noise: bytes) -> None:
    _sound(noise)
    _sound(noise.ljust(510, b"\0")[:510] + b"\x55\xaa" + noise)


@given(
    st.sampled_from([MBR[: 64 * 1024], GPT[: 64 * 1024]]),
    st.lists(st.tuples(st.integers(440, 1400), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 64 * 1024),
)
def test_mutated_tables_never_crash(
    head: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    changed = bytearray(head)
    for at, value in changes:
        changed[at] = value
    _sound(bytes(changed))
    _sound(bytes(changed[:length]))


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_gpt_header_with_a_right_checksum_and_wrong_fields_never_crashes(
    header_size: int, first: int, count: int, entry_size: int
) -> None:
    import zlib

    def header(crc: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, header_size, crc, 0, 1, 9, 34, 9,
            bytes(16), first, count, entry_size, 0,
        )  # fmt: skip

    size = min(max(header_size, 92), 512)
    crc = zlib.crc32(header(0).ljust(512, b"\0")[:size])
    _sound(GPT[:512] + header(crc).ljust(512, b"\0") + GPT[1024 : 64 * 1024])
