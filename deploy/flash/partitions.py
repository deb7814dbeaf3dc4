"""Partition tables: where the partitions of a disk image are. MBR and GPT, from bytes alone.

Pure: neither files nor what the partitions hold are known here. Nothing that bytes say is believed
before it was checked, so a damaged or hostile table ends in an `ImageError`.
"""

import struct
import uuid
import zlib
from dataclasses import dataclass
from typing import Final

from fedpt.errors import ImageError

SECTOR_BYTES: Final = 512

HEAD_BYTES: Final = 1024 * 1024
"""How much of an image's beginning is read for its partition table."""

_MBR_FIRST_ENTRY: Final = 446
_MBR_ENTRY: Final = struct.Struct("<B3xB3xII")
_MBR_PROTECTIVE: Final = 0xEE
_MBR_EXTENDED: Final = frozenset({0x05, 0x0F, 0x85})
_MBR_FAT: Final = frozenset({0x06, 0x0B, 0x0C, 0x0E})

_GPT_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY: Final = struct.Struct("<16s16sQQ8x72s")
_GPT_MAX_ENTRIES: Final = 1024
_GPT_EFI_SYSTEM: Final = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_GPT_BASIC_DATA: Final = uuid.UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
_GPT_FAT: Final = frozenset({_GPT_EFI_SYSTEM, _GPT_BASIC_DATA})


@dataclass(frozen=True, slots=True)
class Partition:
    """A run of bytes in an image."""

    number: int
    start: int
    """Offset of its first byte."""
    size: int
    """Bytes."""
    may_be_fat: bool
    """Its type is one under which FAT file systems are kept."""

    @property
    def end(self) -> int:
        """Offset of the first byte after it."""
        return self.start + self.size


def read_partitions(head: bytes) -> tuple[Partition, ...]:
    """The partitions that an image's first bytes tell of, as the table orders them.

    Logical partitions (inside an extended one) are left out: no boot partition is one.

    Args:
        head: The image's first `HEAD_BYTES`, or all of a smaller image.

    Raises:
        ImageError: There is no partition table, or it is damaged.
    """
    if len(head) < SECTOR_BYTES or head[510:512] != b"\x55\xaa":
        raise ImageError("no partition table in its first sector")
    entries = [
        _MBR_ENTRY.unpack_from(head, _MBR_FIRST_ENTRY + index * _MBR_ENTRY.size)
        for index in range(4)
    ]
    if any(kind == _MBR_PROTECTIVE for _, kind, _, _ in entries):
        return _read_gpt(head)
    if any(status not in {0x00, 0x80} for status, *_ in entries):
        raise ImageError("no partition table in its first sector")
    partitions = tuple(
        Partition(
            number=index + 1,
            start=first * SECTOR_BYTES,
            size=count * SECTOR_BYTES,
            may_be_fat=kind in _MBR_FAT,
        )
        for index, (_, kind, first, count) in enumerate(entries)
        if kind and count and kind not in _MBR_EXTENDED
    )
    return _not_empty(partitions)


def require_sound(partitions: tuple[Partition, ...], *, image_bytes: int) -> None:
    """Refuse partitions that lie outside the image.

    Raises:
        ImageError: Says which, and that the image is probably cut off.
    """
    for partition in partitions:
        if partition.end > image_bytes:
            raise ImageError(
                f"partition {partition.number} ends at byte {partition.end}, but the image has only"
                f" {image_bytes} bytes: it was cut off; download it again"
            )


def require_alone(partition: Partition, partitions: tuple[Partition, ...]) -> None:
    """Refuse a partition that shares bytes with another or with the partition table.

    Raises:
        ImageError: Says with which; writing to one would change the other.
    """
    if partition.start < SECTOR_BYTES:
        raise ImageError(f"partition {partition.number} overlaps the partition table")
    for other in partitions:
        if other is not partition and other.start < partition.end and partition.start < other.end:
            raise ImageError(f"partitions {partition.number} and {other.number} overlap")


def _read_gpt(head: bytes) -> tuple[Partition, ...]:
    size, entries_at, count, entry_size, entries_crc = _read_gpt_header(head)
    table = head[entries_at : entries_at + count * entry_size]
    if len(table) != count * entry_size:
        raise ImageError(f"damaged GPT: its table of {size} bytes at {entries_at} is not there")
    if zlib.crc32(table) != entries_crc:
        raise ImageError("damaged GPT: the table's checksum is wrong; download the image again")
    partitions = (
        _gpt_partition(index + 1, table[index * entry_size :][: _GPT_ENTRY.size])
        for index in range(count)
    )
    return _not_empty(tuple(partition for partition in partitions if partition))


def _read_gpt_header(head: bytes) -> tuple[int, int, int, int, int]:
    """(bytes of the table, its offset, entries, bytes of an entry, the table's CRC)."""
    raw = head[SECTOR_BYTES : 2 * SECTOR_BYTES]
    if raw[:8] != b"EFI PART":
        if head[4096:4104] == b"EFI PART":
            raise ImageError("a disk of 4096-byte sectors; only those of 512 can be used")
        raise ImageError("damaged GPT: no header in its second sector; download the image again")
    if len(raw) < SECTOR_BYTES:
        raise ImageError("damaged GPT: the image ends in its header")
    _, _, header_size, crc, _, this, _, _, _, _, first, count, entry_size, table_crc = (
        _GPT_HEADER.unpack_from(raw)
    )
    if not _GPT_HEADER.size <= header_size <= SECTOR_BYTES:
        raise ImageError(f"damaged GPT: a header of {header_size} bytes")
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:header_size]) != crc:
        raise ImageError("damaged GPT: the header's checksum is wrong; download the image again")
    if this != 1 or not 0 < count <= _GPT_MAX_ENTRIES:
        raise ImageError(f"damaged GPT: {count} entries, header at sector {this}")
    if entry_size % _GPT_ENTRY.size or not 0 < entry_size <= SECTOR_BYTES * 8:
        raise ImageError(f"damaged GPT: entries of {entry_size} bytes")
    return count * entry_size, first * SECTOR_BYTES, count, entry_size, table_crc


def _gpt_partition(number: int, raw: bytes) -> Partition | None:
    """An entry; None if it is unused."""
    kind_bytes, _, first, last, _ = _GPT_ENTRY.unpack(raw)
    kind = uuid.UUID(bytes_le=kind_bytes)
    if not kind.int:
        return None
    if last < first:
        raise ImageError(f"damaged GPT: partition {number} ends before it starts")
    return Partition(
        number=number,
        start=first * SECTOR_BYTES,
        size=(last - first + 1) * SECTOR_BYTES,
        may_be_fat=kind in _GPT_FAT,
    )


def _not_empty(partitions: tuple[Partition, ...]) -> tuple[Partition, ...]:
    if not partitions:
        raise ImageError("its partition table is empty")
    return partitions
