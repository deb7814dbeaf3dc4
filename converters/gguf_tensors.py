"""The values in a GGUF file's tensors, dequantised as llama.cpp does it. numpy and `gguf` only."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quant_shape_to_byte_shape

from fedpt.errors import ModelFileError
from fedpt.gguf_file import TensorInfo


def read_values(path: Path, tensor: TensorInfo) -> npt.NDArray[np.float32]:
    """A tensor's values as new float32 numbers, in GGUF's order.

    Raises:
        ModelFileError: The file cannot be read, or the type cannot be dequantised here.
    """
    kind = GGMLQuantizationType(tensor.ggml_type)
    try:
        data = np.fromfile(path, np.uint8, tensor.size_bytes, offset=tensor.offset)
        rows = data.reshape(quant_shape_to_byte_shape(tensor.shape, kind))
        values: npt.NDArray[np.float32] = dequantize(rows, kind)
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    except NotImplementedError as error:
        raise ModelFileError(f"{path}: {kind.name} cannot be dequantised here") from error
    return values.reshape(tensor.shape)
