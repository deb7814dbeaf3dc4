"""A GGUF header from bytes, every length and count checked before it is believed. Pure.

libllama crashes on some damaged files, and files come from networks. Here is what the format itself
forbids; what llama.cpp cannot bear besides is `fedpt.gguf_checks`; opening files is
`fedpt.gguf_file`. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from fedpt.gguf_types import GGML_TYPES

GgufValue: TypeAlias = "int | float | bool | str | list[GgufValue]"

_UINT32: Final = 4
_FLOAT32: Final = 6
_BOOL: Final = 7
_STRING: Final = 8
_ARRAY: Final = 9
_SCALAR_FORMATS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", _UINT32: "<I", 5: "<i", _FLOAT32: "<f",
    _BOOL: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_TYPE_OF_KEY: Final = {
    "general.alignment": _UINT32,
    "general.type": _STRING,
    "general.architecture": _STRING,
    "adapter.type": _STRING,
    "adapter.lora.alpha": _FLOAT32,
}
"""llama.cpp reads these without asking for their type, and ends the process if it is another."""

_VERSIONS: Final = (2, 3)
_DEFAULT_ALIGNMENT: Final = 32
_MAX_ALIGNMENT: Final = 1 << 20  # more is padding only
_MAX_DIMENSIONS: Final = 4
_MAX_NAME_BYTES: Final = 63  # of a tensor; ggml keeps it in 64 bytes with a zero at the end
_MAX_KEY_BYTES: Final = 65_535  # the format's own limit
_MAX_VALUES: Final = 1 << 63


class Buffer(Protocol):
    """Bytes that know their length: `bytes` or a mapped file."""

    def __len__(self) -> int: ...
    def __getitem__(self, place: slice, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its shape as in torch (rows first), ggml type id, and place in the file."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the tensors' data."""

    metadata: Mapping[str, GgufValue]
    tensors: Mapping[str, TensorInfo]


def parse_header(data: Buffer) -> Header:
    """The header of a whole file's bytes; tensor data is not looked at.

    Raises:
        ValueError: It is not GGUF, truncated, or says something impossible; the message says
            which. `fedpt.gguf_file` catches it, and `UnicodeDecodeError` with it.
    """
    cursor = _Cursor(data)
    if cursor.take(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    _require_version(int(cursor.unpack("<I")))
    tensor_count = cursor.count()
    value_count = cursor.count()
    metadata: dict[str, GgufValue] = {}
    for _ in range(value_count):
        key = _key(cursor, metadata)
        metadata[key] = cursor.value(_kind(cursor, key))
    entries = [_tensor_entry(cursor) for _ in range(tensor_count)]
    return Header(metadata, _placed(entries, _alignment(metadata), cursor.position, len(data)))


class _Cursor:
    """A position in the file that refuses to run past its end."""

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self._size = len(data)
        self.position = 0

    def take(self, size: int) -> bytes:
        if size > self._size - self.position:
            raise ValueError(f"it ends at byte {self._size}, inside its header")
        start = self.position
        self.position += size
        return self._data[start : self.position]

    def unpack(self, layout: str) -> int | float | bool:
        (value,) = struct.unpack(layout, self.take(struct.calcsize(layout)))
        return value  # type: ignore[no-any-return]  # struct cannot say

    def count(self) -> int:
        """A 64-bit count of things that take at least one byte each."""
        value = int(self.unpack("<Q"))
        if value > self._size:
            raise ValueError(f"it counts {value} entries in a file of {self._size} bytes")
        return value

    def string(self) -> str:
        return self.take(self.count()).decode("utf-8")

    def value(self, kind: int) -> GgufValue:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALAR_FORMATS:
            raise ValueError(f"a metadata value has the unknown type {kind}")
        return self.unpack(_SCALAR_FORMATS[kind])

    def _array(self) -> list[GgufValue]:
        kind = int(self.unpack("<I"))
        length = self.count()
        if kind in _SCALAR_FORMATS:
            layout = f"<{length}{_SCALAR_FORMATS[kind][1]}"
            return list(struct.unpack(layout, self.take(struct.calcsize(layout))))
        if kind == _ARRAY:
            raise ValueError("a metadata array holds arrays, which llama.cpp does not read")
        return [self.value(kind) for _ in range(length)]


def _require_version(version: int) -> None:
    if version in _VERSIONS:
        return
    if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
        raise ValueError("it is for big-endian machines")
    raise ValueError(f"version {version} is not supported (2 and 3 are)")


def _key(cursor: _Cursor, metadata: Mapping[str, GgufValue]) -> str:
    key = cursor.string()
    if not key or len(key.encode()) > _MAX_KEY_BYTES:
        raise ValueError("a metadata key is empty or too long")
    if key in metadata:
        raise ValueError(f"the metadata key {key!r} is there twice")
    return key


def _kind(cursor: _Cursor, key: str) -> int:
    kind = int(cursor.unpack("<I"))
    if kind != _TYPE_OF_KEY.get(key, kind):
        raise ValueError(f"{key} is stored as type {kind}, {_TYPE_OF_KEY[key]} was expected")
    return kind


def _alignment(metadata: Mapping[str, GgufValue]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT:
        raise ValueError(f"its alignment is {alignment!r}")
    if alignment & (alignment - 1):
        raise ValueError(f"its alignment is {alignment}, no power of two")
    return alignment


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int
    """From the beginning of the data."""


def _tensor_entry(cursor: _Cursor) -> _Entry:
    name = cursor.string()
    if not name or len(name.encode()) > _MAX_NAME_BYTES or "\0" in name:
        raise ValueError(f"a tensor is called {name[:80]!r}, which llama.cpp cannot keep")
    dimensions = int(cursor.unpack("<I"))
    if dimensions > _MAX_DIMENSIONS:
        raise ValueError(f"tensor {name!r} has {dimensions} dimensions")
    shape = tuple(int(cursor.unpack("<Q")) for _ in range(dimensions))[::-1]
    return _Entry(name, shape, int(cursor.unpack("<I")), int(cursor.unpack("<Q")))


def _placed(
    entries: list[_Entry], alignment: int, header_end: int, file_end: int
) -> dict[str, TensorInfo]:
    """Where each lies: one after the other, each at a multiple of the alignment."""
    start = _aligned(header_end, alignment)
    next_offset = 0
    tensors: dict[str, TensorInfo] = {}
    for entry in entries:
        if entry.name in tensors:
            raise ValueError(f"two tensors have one name: {entry.name!r}")
        if entry.offset != next_offset:
            raise ValueError(
                f"tensor {entry.name!r} is said to lie at {entry.offset} of the data, not at"
                f" {next_offset} where the one before it ends"
            )
        size = _size_bytes(entry)
        end = start + entry.offset + size
        if end > file_end:
            raise ValueError(
                f"it is truncated: tensor {entry.name!r} ends at byte {end}, the file at"
                f" {file_end}; fetch or make it again"
            )
        tensors[entry.name] = TensorInfo(
            entry.name, entry.shape, entry.ggml_type, start + entry.offset, size
        )
        next_offset = _aligned(entry.offset + size, alignment)
    return tensors


def _size_bytes(entry: _Entry) -> int:
    kind = GGML_TYPES.get(entry.ggml_type)
    if kind is None:
        raise ValueError(f"tensor {entry.name!r} has the unknown type {entry.ggml_type}")
    values = math.prod(entry.shape)
    if not 0 < values < _MAX_VALUES:
        raise ValueError(f"tensor {entry.name!r} has the shape {entry.shape}")
    if (entry.shape[-1] if entry.shape else 1) % kind.block:
        raise ValueError(
            f"tensor {entry.name!r} has rows of {entry.shape[-1] if entry.shape else 1} values, no"
            f" whole blocks of {kind.name}"
        )
    return kind.size_bytes(values)


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
