"""A GGUF file's matrices, left where they are: in the mapped file, quantised, read when wanted.

Nothing is copied. What was read is given back to the system at once, which keeps it as long as
there is room; so a model larger than the memory that training may take can still be trained on.
"""

import mmap
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import quant_shape_to_byte_shape

from converters.architectures.table import Change
from converters.tensor_names import (
    architecture_of,
    from_rotary_order,
    heads_of,
    layer_count,
    parts_of,
)
from edge_runtime.training.dequantise import dequantise
from edge_runtime.training.placement import Placement
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile, TensorInfo

_MATRIX: Final = 2


@dataclass(frozen=True, slots=True)
class MappedMatrix:
    """One matrix, `(rows, columns)` in transformers' order of rows."""

    data: mmap.mmap
    info: TensorInfo
    placement: Placement
    order: torch.Tensor | None = None
    """Where transformers' rows are in the file; None: in the same places."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.info.shape
        return rows, columns

    def expanded(self, dtype: torch.dtype) -> torch.Tensor:
        """All of it, new, where it is computed with."""
        return self.values_of(self.brought(), dtype)

    def brought(self) -> torch.Tensor:
        """All of its bytes, still quantised, where it is computed with."""
        stored = self._stored()
        rows = self.placement.bring(stored if self.order is None else stored[self.order])
        if rows.data_ptr() != stored.data_ptr():
            self._give_back()
        return rows

    def values_of(self, brought: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What such bytes mean, new."""
        values = dequantise(brought, GGMLQuantizationType(self.info.ggml_type)).to(dtype)
        if values.data_ptr() == brought.data_ptr():
            values = values.clone()  # float32 as it lies in the file: that is only a view
        self._give_back()
        return values

    def read_ahead(self) -> None:
        """Have the system read it from the disk, if it must, while something else is computed."""
        self._advise("MADV_WILLNEED")

    def chunk(self, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
        """Some rows next to each other; of matrices whose rows are in the file's order."""
        return self._values(self._stored()[start:stop], dtype)

    def rows(self, indices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Some rows, `(*indices, columns)`."""
        unique, inverse = torch.unique(indices.cpu(), return_inverse=True)
        values = self._values(self._stored()[unique], dtype)
        return values[inverse.to(values.device)]

    def _stored(self) -> torch.Tensor:
        """The file's bytes, `(rows, bytes)`: a view of the mapping."""
        kind = GGMLQuantizationType(self.info.ggml_type)
        shape = quant_shape_to_byte_shape(self.info.shape, kind)
        content = np.frombuffer(self.data, np.uint8, self.info.size_bytes, self.info.offset)
        return torch.from_numpy(content.reshape(shape))

    def _values(self, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return self.values_of(self.placement.bring(rows), dtype)

    def _give_back(self) -> None:
        """Let the system have the pages; they are read again, from its cache, when wanted."""
        self._advise("MADV_DONTNEED")

    def _advise(self, advice: str) -> None:
        start = -(-self.info.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        length = self.info.offset + self.info.size_bytes - start
        if length > 0 and hasattr(mmap, advice):
            self.data.madvise(getattr(mmap, advice), start, length)


def map_matrices(file: GgufFile, placement: Placement) -> dict[str, MappedMatrix]:
    """Every matrix of a GGUF file's model, by its module's path in transformers.

    Raises:
        ModelFileError: The file cannot be mapped, or is of an unsupported family.
    """
    try:
        with file.path.open("rb") as opened:
            # copy on write only because torch wants what it could write to; nothing ever does
            data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise ModelFileError(f"cannot map {file.path}: {error.strerror}") from error
    architecture = architecture_of(file)
    matrices: dict[str, MappedMatrix] = {}
    for module, (name, part) in parts_of(architecture, layer_count(file)).items():
        info = file.tensors.get(f"{name}.weight")
        if info is None or len(info.shape) != _MATRIX:
            continue
        heads = heads_of(architecture, file.metadata, part)
        rotary = part.change is Change.ROTARY and heads is not None
        order = from_rotary_order(np.arange(info.shape[0]), heads) if rotary and heads else None
        matrices[module] = MappedMatrix(
            data, info, placement, None if order is None else torch.from_numpy(order.copy())
        )
    return matrices
