"""Reading a transformers folder's weights: lazily, in whatever float type, without torch.

A safetensors file is eight bytes of length, a JSON table, then the tensors' bytes
(https://huggingface.co/docs/safetensors). numpy has no bfloat16, so the bytes are read here rather
than by the library. What the tensors mean is `converters.tensor_names`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fedpt.errors import ModelFileError

_ITEM_BYTES: Final = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies, and as what."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    def read_bytes(self) -> npt.NDArray[np.uint8]:
        """Its bytes, mapped from the file.

        Raises:
            ModelFileError: The file cannot be read.
        """
        try:
            return np.memmap(self.path, np.uint8, "r", self.offset, (self.size_bytes,))
        except (OSError, ValueError) as error:
            raise ModelFileError(f"cannot read {self.path}: {error}") from error

    def read(self) -> npt.NDArray[np.floating]:
        """Its values: float16 as they are, everything else as float32.

        Raises:
            ModelFileError: The file cannot be read.
        """
        data = self.read_bytes()
        if self.dtype == "BF16":  # the upper half of a float32
            wide = data.view("<u2").astype(np.uint32)
            wide <<= 16  # in place: tensors are large
            return wide.view(np.float32).reshape(self.shape)
        return data.view("<f4" if self.dtype == "F32" else "<f2").reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A transformers folder: its configuration and where its tensors lie."""

    name: str
    folder: Path
    config: Mapping[str, Any]  # Any: config.json is free-form
    tensors: Mapping[str, StoredTensor]
    stated: Mapping[str, str]
    """What the weights' own file says of them besides."""


def open_checkpoint(folder: Path, *, name: str) -> Checkpoint:
    """Read a transformers folder's configuration and the tables of its safetensors files.

    Args:
        folder: The folder.
        name: What people call the model; a folder from the hub is called by a hash.

    Raises:
        ModelFileError: A file is missing, truncated or damaged; the message says which.
    """
    config = read_json(folder / "config.json")
    tensors: dict[str, StoredTensor] = {}
    stated: dict[str, str] = {}
    for path, names in _shards(folder).items():
        table, more = _read_table(path)
        stated |= more
        missing = sorted(names - table.keys())
        if missing:
            raise ModelFileError(f"{path} has no tensor {missing[0]!r}, its index says it does")
        twice = sorted(tensors.keys() & table.keys())
        if twice:
            raise ModelFileError(f"{path}: tensor {twice[0]!r} is in another file too")
        tensors |= table
    return Checkpoint(name, folder, config, tensors, stated)


def read_json(path: Path) -> dict[str, Any]:  # Any: free-form
    """A JSON file that must hold an object.

    Raises:
        ModelFileError: It is missing, unreadable or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFileError(f"no such file: {path}; is this a transformers folder?") from None
    except (OSError, ValueError) as error:
        raise ModelFileError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ModelFileError(f"{path}: a JSON object was expected, got {type(content).__name__}")
    return content


def _shards(folder: Path) -> dict[Path, set[str]]:
    """The files with weights, and which tensors the index says they have."""
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if not index.exists():
        if not single.exists() and any(folder.glob("*.bin")):
            raise ModelFileError(
                f"{folder} has its weights as pickle (.bin), which can run code and is never read;"
                " save it as safetensors"
            )
        return {single: set()}
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileError(f"{index} has no weight_map")
    shards: dict[Path, set[str]] = {}
    for tensor, name in sorted(weight_map.items(), key=str):
        if Path(str(name)).name != name:
            raise ModelFileError(f"{index} names files outside its folder")
        shards.setdefault(folder / str(name), set()).add(tensor)
    return shards


def _read_table(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if header_bytes > file_bytes - 8:
                raise ModelFileError(f"{path} is truncated inside its header; fetch it again")
            header = json.loads(file.read(header_bytes))
        start = 8 + header_bytes
        tensors = {
            name: _entry(path, entry, start)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except FileNotFoundError:
        raise ModelFileError(f"no such file: {path}; the model needs it, fetch it again") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{path} is not a usable safetensors file: {error!r}") from error
    end = max((tensor.offset + tensor.size_bytes for tensor in tensors.values()), default=start)
    if end > file_bytes:
        raise ModelFileError(f"{path} is truncated: {file_bytes} of {end} bytes; fetch it again")
    stated = header.get("__metadata__") or {}
    return tensors, {str(key): str(value) for key, value in stated.items()}


def _entry(path: Path, entry: Mapping[str, Any], start: int) -> StoredTensor:
    dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
    first, last = (int(offset) for offset in entry["data_offsets"])
    if dtype not in _ITEM_BYTES:
        raise ValueError(f"a tensor is stored as {dtype}; supported: {', '.join(_ITEM_BYTES)}")
    if min(first, *shape) < 0 or last - first != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise ValueError(f"a tensor of shape {shape} lies at bytes {first} to {last}")
    return StoredTensor(path, dtype, shape, start + first, last - first)
