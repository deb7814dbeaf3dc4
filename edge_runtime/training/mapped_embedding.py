"""An embedding whose matrix stays in the mapped file: only rows that are looked up are expanded."""

from dataclasses import dataclass

import torch

from edge_runtime.training.mapped_weights import MappedMatrix


@dataclass(frozen=True, slots=True)
class MappedEmbedding:
    """Frozen; a family may scale what it looks up."""

    matrix: MappedMatrix
    dtype: torch.dtype
    scale: float

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """`(B, T)` to `(B, T, H)`."""
        rows = self.matrix.rows(ids, self.dtype)
        if self.scale != 1.0:
            rows *= torch.tensor(self.scale, dtype=self.dtype, device=rows.device)
        # layers that compute their activations again are skipped for inputs without a gradient
        return rows.requires_grad_(torch.is_grad_enabled())
