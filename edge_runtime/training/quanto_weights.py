"""The base's matrices as int8 in memory, rounded and expanded by optimum.quanto.

A second rounding of what the file has, for files whose own type is slow to expand; the only module
that imports quanto, which takes 120 MB by itself.
"""

import warnings
from dataclasses import dataclass

import torch

from edge_runtime.training.mapped_weights import MappedMatrix

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about what quanto itself imports
    from optimum.quanto import AbsmaxOptimizer, WeightQBytesTensor, qint8, quantize_weight


@dataclass(frozen=True, slots=True)
class QuantoWeights:
    """Frozen weights, eight bits each and a scale for every row; see `layer_weights.Weights`."""

    values: WeightQBytesTensor
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.values.shape
        return rows, columns

    def tensor(self) -> torch.Tensor:
        """All of it, new: quicker to make again than to keep."""
        expanded: torch.Tensor = self.values.dequantize().to(self.dtype)
        return expanded


def quantised(matrix: MappedMatrix, dtype: torch.dtype) -> QuantoWeights:
    """Round a file's matrix to int8."""
    values = matrix.expanded(torch.float32)
    scale = AbsmaxOptimizer()(values, qint8, axis=0)
    return QuantoWeights(quantize_weight(values, qint8, axis=0, scale=scale), dtype)
