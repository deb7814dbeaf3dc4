"""Writing a safetensors file tensor by tensor, so that peak memory is near the largest tensor.

Eight bytes of length, a JSON table, then the tensors' bytes. Reading is `converters.checkpoint`.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from fedpt.errors import ModelFileError
from fedpt.progress import OnProgress, Progress, ignore_progress

ITEM_BYTES: Final = {"F32": 4, "F16": 2, "BF16": 2}
_ALIGNMENT: Final = 8


@dataclass(frozen=True, slots=True)
class TensorToWrite:
    """A tensor, and how to get its values when its turn comes."""

    shape: tuple[int, ...]
    load: Callable[[], npt.NDArray[np.floating]]


def write_safetensors(
    path: Path,
    tensors: Mapping[str, TensorToWrite],
    *,
    dtype: str,
    metadata: Mapping[str, str],
    on_progress: OnProgress = ignore_progress,
) -> None:
    """Write a safetensors file at `path`; the caller puts it in its place.

    Args:
        path: The file.
        tensors: By name, in the order in which they are read and written.
        dtype: One of `ITEM_BYTES`, for all of them.
        metadata: What the file's header says besides.
        on_progress: Told of every tensor.

    Raises:
        ModelFileError: A value is too large for the type.
        OSError: The file cannot be written. `fedpt.files` translates it.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + math.prod(tensor.shape) * ITEM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for index, (name, tensor) in enumerate(tensors.items()):
            on_progress(Progress(index, len(tensors), name))
            file.write(_encoded(name, tensor.load(), dtype).data)
    on_progress(Progress(len(tensors), len(tensors)))


def _encoded(name: str, values: npt.NDArray[np.floating], dtype: str) -> npt.NDArray[np.generic]:
    """The values as little-endian bytes of the type, in order."""
    if dtype == "F16":
        with np.errstate(over="ignore"):
            halves = values.astype("<f2")
        if not np.isfinite(halves).all():
            raise ModelFileError(f"tensor {name} holds values too large for F16; use BF16 or F32")
        return np.ascontiguousarray(halves).view(np.uint8)
    wide = np.ascontiguousarray(values, "<f4")
    if dtype == "F32":
        return wide.view(np.uint8)
    bits = wide.view(np.uint32)  # rounded to the nearest, ties to even, as torch does
    rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
    return rounded.astype("<u2").view(np.uint8)
