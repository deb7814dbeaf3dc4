"""FedProx: devices whose data differ are held near where all of them started.

``mu / 2 * |w - w_start|²`` is added to each step's loss (https://arxiv.org/abs/1812.06127), w being
the adapter's factors, not their products. Of it only the gradient is computed,
``mu * (w - w_start)``: losses that are told stay those of the data.
"""

from collections.abc import Sequence

import torch


class Proximal:
    """Remembers where a training started; nothing, if it is not held there."""

    def __init__(self, factors: Sequence[torch.nn.Parameter], strength: float) -> None:
        """Copy the factors, as long as nothing has changed them.

        Args:
            factors: What is trained.
            strength: mu; 0: off.
        """
        self._factors = factors
        self._strength = strength
        self._start = [factor.detach().clone() for factor in factors] if strength else []

    def add_gradient(self) -> None:
        """To that of the data; one factor after another, so that little is in flight."""
        if not self._strength:
            return
        for factor, start in zip(self._factors, self._start, strict=True):
            if factor.grad is not None:  # else it has not moved
                factor.grad.add_(factor.detach() - start, alpha=self._strength)
