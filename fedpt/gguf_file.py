"""Reading a GGUF file's header: metadata, tensor table, identity.

Needs neither `gguf` nor libllama, so any board can check a file before a C library opens it:
libllama crashes on damaged files, and files come from networks. Tensor data is never read here,
only hashed. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import hashlib
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from fedpt.errors import ModelFileError
from fedpt.ids import Sha256, is_sha256

GgufValue: TypeAlias = "int | float | bool | str | list[GgufValue]"

WEIGHTS_KEY: Final = "fedpt.weights.sha256"
"""Hash of the weights a model file was made from: the same for every quantisation of them."""

BASE_WEIGHTS_KEY: Final = "fedpt.base.weights.sha256"
"""In an adapter's file: `WEIGHTS_KEY` of the base that it was trained on."""

_ARRAY_TYPE: Final = 9
_STRING_TYPE: Final = 8
_BOOL_TYPE: Final = 7
_SCALAR_FORMATS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f",
    _BOOL_TYPE: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_MAX_DIMENSIONS: Final = 4
_MAX_ARRAY_DEPTH: Final = 4

_BLOCKS: Final = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
"""ggml type id: (values in a block, bytes of a block). From the format's own table of types."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its shape as in torch (rows first), ggml type id, and place in the file."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF file whose header was read and whose tensors all lie within the file."""

    path: Path
    metadata: Mapping[str, GgufValue]
    tensors: Mapping[str, TensorInfo]

    @property
    def architecture(self) -> str:
        """Such as `llama`; empty if the file does not say."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def name(self) -> str:
        """What people call the model: its own name, else the file's."""
        return str(self.metadata.get("general.name") or self.path.name)

    def number(self, key: str) -> int:
        """A metadata value that must be a whole number.

        Raises:
            ModelFileError: It is missing or something else.
        """
        value = self.metadata.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ModelFileError(f"{self.path}: {key} is {value!r}, a whole number was expected")
        return value


def read_gguf(path: Path) -> GgufFile:
    """Read and check a GGUF file's header.

    Raises:
        ModelFileError: The file is missing, truncated, or not GGUF; the message says which.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, data)
    except FileNotFoundError:
        raise ModelFileError(f"no such model file: {path}") from None
    except IsADirectoryError:
        raise ModelFileError(
            f"{path} is a folder, a GGUF file was expected; make one with"
            f" 'fedpt convert model {path} OUT.gguf'"
        ) from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, struct.error, OverflowError) as error:
        # mmap raises ValueError for an empty file, decoding for bytes that are no UTF-8
        raise ModelFileError(f"{path} is not a usable GGUF file: {error}") from error


def weights_sha256(file: GgufFile) -> Sha256:
    """Which weights these are, however quantised: the file's own word, else a hash of its tensors.

    Raises:
        ModelFileError: The file cannot be read.
    """
    stated = file.metadata.get(WEIGHTS_KEY)
    if isinstance(stated, str) and is_sha256(stated):
        return Sha256(stated)
    digest = hashlib.sha256()
    try:
        with file.path.open("rb") as data:
            for name in sorted(file.tensors):
                tensor = file.tensors[name]
                digest.update(f"{name} {tensor.shape} {tensor.ggml_type}\n".encode())
                data.seek(tensor.offset)
                digest.update(data.read(tensor.size_bytes))
    except OSError as error:
        raise ModelFileError(f"cannot read {file.path}: {error.strerror}") from error
    return Sha256(digest.hexdigest())


class _Cursor:
    """A position in the file that refuses to run past its end."""

    def __init__(self, data: mmap.mmap) -> None:
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

    def value(self, kind: int, depth: int = 0) -> GgufValue:
        if kind == _STRING_TYPE:
            return self.string()
        if kind == _ARRAY_TYPE:
            return self._array(depth)
        if kind not in _SCALAR_FORMATS:
            raise ValueError(f"a metadata value has the unknown type {kind}")
        return self.unpack(_SCALAR_FORMATS[kind])

    def _array(self, depth: int) -> list[GgufValue]:
        kind = int(self.unpack("<I"))
        length = self.count()
        if depth >= _MAX_ARRAY_DEPTH:
            raise ValueError("metadata arrays are nested too deeply")
        if kind in _SCALAR_FORMATS:
            layout = f"<{length}{_SCALAR_FORMATS[kind][1]}"
            return list(struct.unpack(layout, self.take(struct.calcsize(layout))))
        return [self.value(kind, depth + 1) for _ in range(length)]


def _parse(path: Path, data: mmap.mmap) -> GgufFile:
    cursor = _Cursor(data)
    if cursor.take(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version = int(cursor.unpack("<I"))
    if version not in (2, 3):
        raise ValueError(f"version {version} is not supported (2 and 3 are)")
    tensor_count = cursor.count()
    value_count = cursor.count()
    metadata: dict[str, GgufValue] = {}
    for _ in range(value_count):
        key = cursor.string()
        metadata[key] = cursor.value(int(cursor.unpack("<I")))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"its alignment is {alignment!r}")
    entries = [_tensor_entry(cursor) for _ in range(tensor_count)]
    start = -(-cursor.position // alignment) * alignment
    tensors = {name: _place(entry, name, start, len(data)) for name, entry in entries}
    if len(tensors) != len(entries):
        raise ValueError("two tensors have one name")
    return GgufFile(path, metadata, tensors)


def _tensor_entry(cursor: _Cursor) -> tuple[str, tuple[tuple[int, ...], int, int]]:
    name = cursor.string()
    dimensions = int(cursor.unpack("<I"))
    if dimensions > _MAX_DIMENSIONS:
        raise ValueError(f"tensor {name!r} has {dimensions} dimensions")
    shape = tuple(int(cursor.unpack("<Q")) for _ in range(dimensions))[::-1]
    return name, (shape, int(cursor.unpack("<I")), int(cursor.unpack("<Q")))


def _place(entry: tuple[tuple[int, ...], int, int], name: str, start: int, end: int) -> TensorInfo:
    shape, ggml_type, offset = entry
    if ggml_type not in _BLOCKS:
        raise ValueError(f"tensor {name!r} has the unknown type {ggml_type}")
    values_per_block, block_bytes = _BLOCKS[ggml_type]
    if shape and shape[-1] % values_per_block:
        raise ValueError(f"tensor {name!r} has rows of {shape[-1]} values, no whole blocks")
    size = math.prod(shape) // values_per_block * block_bytes
    if start + offset + size > end:
        raise ValueError(
            f"it is truncated: tensor {name!r} ends at byte {start + offset + size}, the file at"
            f" {end}; fetch or make it again"
        )
    return TensorInfo(name, shape, ggml_type, start + offset, size)
