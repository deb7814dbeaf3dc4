"""An embedding whose matrix stays in the mapped file: only rows that are looked up are expanded."""

import torch

from edge_runtime.training.mapped_weights import MappedMatrix


class MappedEmbedding(torch.nn.Module):
    """Frozen; a family may scale what it looks up."""

    def __init__(self, matrix: MappedMatrix, dtype: torch.dtype, scale: float) -> None:
        super().__init__()
        self._matrix = matrix
        self._dtype = dtype
        self._scale = scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """`(B, T)` to `(B, T, H)`."""
        rows = self._matrix.rows(ids, self._dtype)
        if self._scale != 1.0:
            rows *= torch.tensor(self._scale, dtype=self._dtype, device=rows.device)
        # layers that compute their activations again are skipped for inputs without a gradient
        return rows.requires_grad_(torch.is_grad_enabled())
