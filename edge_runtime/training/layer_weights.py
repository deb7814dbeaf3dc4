"""Frozen weights as the layers ask for them: expanded once, or again for every layer.

All are `Weights`; a linear layer does not know which it has. int8 ones are `quanto_weights`'.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch

from edge_runtime.training.how import How
from edge_runtime.training.mapped_weights import MappedMatrix
from edge_runtime.training.precision import DTYPES
from fedpt.errors import TrainingError


class Weights(Protocol):
    """A frozen matrix, `(out, in)`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    def tensor(self) -> torch.Tensor:
        """Its values in the precision of the computation. Not to be changed or kept."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """A matrix that stays expanded."""

    values: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.values.shape
        return rows, columns

    def tensor(self) -> torch.Tensor:
        """Its values."""
        return self.values


@dataclass(slots=True)
class OneLayer:
    """What is expanded at the moment: the matrices of one layer only.

    A layer's backward pass, after its activations were computed again, finds them still here.
    """

    layer: str = ""
    values: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OnDemand:
    """A matrix that is expanded from the file when its layer is computed."""

    module: str
    layer: str
    matrix: MappedMatrix
    dtype: torch.dtype
    current: OneLayer

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.matrix.shape

    def tensor(self) -> torch.Tensor:
        """Its values; the matrices of any other layer are forgotten."""
        current = self.current
        if current.layer != self.layer:
            current.layer = self.layer
            current.values.clear()
        if self.module not in current.values:
            current.values[self.module] = self.matrix.expanded(self.dtype)
        return current.values[self.module]


WeightsOf: TypeAlias = Callable[[str, str], Weights]
"""From a module's path, and the layer that it is in, to its weights."""


def weights_of(matrices: Mapping[str, MappedMatrix], how: How) -> WeightsOf:
    """Weights as a mode keeps them.

    Raises:
        TrainingError: The mode needs a library that is not there.
    """
    dtype, current = DTYPES[how.precision], OneLayer()
    if how.mode == "expanded":
        return lambda module, _: Expanded(matrices[module].expanded(dtype))
    if how.mode == "mapped":
        return lambda module, layer: OnDemand(module, layer, matrices[module], dtype, current)
    try:
        from edge_runtime.training.quanto_weights import quantised  # takes memory
    except ImportError as error:
        raise TrainingError(
            "mode quanto needs optimum-quanto; install it with: pip install 'fedpt[quanto]'"
        ) from error
    return lambda module, _: quantised(matrices[module], dtype)
