"""Writing a GGUF file tensor by tensor, so that peak memory is near the largest tensor.

Knows nothing of models: `converters.model_to_gguf` and `converters.adapter_to_gguf` say what to
write. Reading is `fedpt.gguf_file`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quant_shape_to_byte_shape, quantize

from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufValue
from fedpt.progress import OnProgress, Progress, ignore_progress

FILE_TYPES: Final[Mapping[str, int]] = {"F32": 0, "F16": 1, "Q8_0": 7}
"""Kinds of files that can be written here, with their number in `general.file_type`."""

_Q8_0_BLOCK: Final = 32
_ITEM_BYTES: Final = {"F32": 4, "F16": 2}


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor to write: what it will be, and how to get it when its turn comes."""

    name: str
    shape: tuple[int, ...]
    kind: str
    load: Callable[[], npt.NDArray[np.floating]]


def tensor_kind(shape: tuple[int, ...], kind: str) -> str:
    """What a tensor is stored as in a file of this kind.

    Vectors stay F32: they are small and llama.cpp wants them so. Rows that are no whole number of
    blocks stay F16.
    """
    if len(shape) < 2:  # noqa: PLR2004  # no matrix
        return "F32"
    return "F16" if kind == "Q8_0" and shape[-1] % _Q8_0_BLOCK else kind


def write_gguf(
    path: Path,
    metadata: Mapping[str, GgufValue],
    tensors: Sequence[PlannedTensor],
    on_progress: OnProgress = ignore_progress,
) -> None:
    """Write a GGUF file at `path`; the caller puts it in its place (`fedpt.files.written_aside`).

    Raises:
        ModelFileError: A tensor cannot be stored in its kind.
        OSError: The file cannot be written. `written_aside` translates it.
    """
    writer = GGUFWriter(None, str(metadata["general.architecture"]))
    for key, value in metadata.items():
        if key != "general.architecture":  # the writer has put it first
            _add_value(writer, key, value)
    for tensor in tensors:
        writer.add_tensor_info(
            tensor.name,
            tensor.shape,
            np.dtype(np.float32),  # not used when the type is given
            _stored_bytes(tensor),
            raw_dtype=GGMLQuantizationType[tensor.kind],
        )
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for index, tensor in enumerate(tensors):
            on_progress(Progress(index, len(tensors), tensor.name))
            writer.write_tensor_data(_encoded(tensor))
        on_progress(Progress(len(tensors), len(tensors)))
    finally:
        writer.close()


def _add_value(writer: GGUFWriter, key: str, value: GgufValue) -> None:
    """Readers expect whole numbers as 32 unsigned bits and others as 32-bit floats."""
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)


def _stored_bytes(tensor: PlannedTensor) -> int:
    items = int(np.prod(tensor.shape))
    if tensor.kind in _ITEM_BYTES:
        return items * _ITEM_BYTES[tensor.kind]
    return int(np.prod(quant_shape_to_byte_shape(tensor.shape, GGMLQuantizationType[tensor.kind])))


def _encoded(tensor: PlannedTensor) -> npt.NDArray[np.generic]:
    values = tensor.load()
    if tensor.kind != "F16":
        values = values.astype(np.float32, copy=False)
    try:
        with np.errstate(over="raise"):
            encoded: npt.NDArray[np.generic] = quantize(values, GGMLQuantizationType[tensor.kind])
    except FloatingPointError:
        raise ModelFileError(
            f"tensor {tensor.name} holds values too large for {tensor.kind}; use F32"
        ) from None
    return np.ascontiguousarray(encoded)
