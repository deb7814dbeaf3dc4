"""Whether a trained adapter may take the place of the one it started from. Pure but for numpy."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from edge_runtime.training.early_stopping import best_epoch
from fedpt.adapters import TENSOR_PREFIX, AdapterManifest, AdapterTensors
from fedpt.errors import TrainingError

_LARGEST_SHARE: Final = 1.0
"""Of a matrix's own norm. Trained adapters stay under a tenth; one that outweighs what it changes
has replaced the model."""
_TOLERANCE: Final = 1e-4
"""nats: rounding, when nothing was learnt."""


def require_acceptable(
    tensors: AdapterTensors,
    manifest: AdapterManifest,
    held_out: Sequence[float],
    norm_of: Callable[[str], float],
) -> None:
    """Refuse an update that would spoil answers.

    Args:
        tensors: The trained factors.
        manifest: Their rank and alpha.
        held_out: nll on the held-out examples, before, then after each epoch, of which the best one
            counts; empty: not measured.
        norm_of: The Frobenius norm of a module's frozen matrix.

    Raises:
        TrainingError: It is not finite, too large, or worse than before on held-out examples.
    """
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise TrainingError(f"the trained adapter's {name} is not finite; the old one is kept")
    after = held_out[best_epoch(held_out)] if held_out else 0.0
    if held_out and not after <= held_out[0] + _TOLERANCE:
        raise TrainingError(
            f"the nll on held-out examples went from {held_out[0]:.4f} to {after:.4f}: the"
            " adapter that training started from is kept; train less or slower"
        )
    for name, first in tensors.items():
        module = name.removeprefix(TENSOR_PREFIX).removesuffix(".lora_A.weight")
        if module == name.removeprefix(TENSOR_PREFIX):
            continue
        second = tensors[name.replace(".lora_A.", ".lora_B.")]
        share = manifest.scale * product_norm(first, second) / norm_of(module)
        if share > _LARGEST_SHARE:
            raise TrainingError(
                f"the trained adapter changes {module} by {share:.2g} of its norm, more than"
                f" {_LARGEST_SHARE:g}; the old one is kept"
            )


def product_norm(first: np.ndarray, second: np.ndarray) -> float:
    """The Frobenius norm of B A, by two narrow products: ``|B A|² = tr(A A' B' B)``."""
    narrow = (first.astype(np.float64) @ first.T) * (second.T.astype(np.float64) @ second).T
    return float(np.sqrt(max(0.0, narrow.sum())))
