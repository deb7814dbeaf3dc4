"""Frozen weights as the layers ask for them: expanded once, or again for every layer.

All are `Weights`; a linear layer does not know which it has. int8 ones are `quanto_weights`'.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import torch

from edge_runtime.training.how import How
from edge_runtime.training.layer_turns import LayerTurns, Place
from edge_runtime.training.mapped_weights import MappedMatrix
from edge_runtime.training.memory import give_back_holes
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


@dataclass(frozen=True, slots=True)
class OnDemand:
    """A matrix that is expanded from the file when its layer is computed."""

    place: Place
    matrix: MappedMatrix
    turns: LayerTurns

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.matrix.shape

    def tensor(self) -> torch.Tensor:
        """Its values; the matrices of any other layer are forgotten."""
        return self.turns.values(self.place)


def weights_of(
    layers: Sequence[Sequence[str]], matrices: Mapping[str, MappedMatrix], how: How
) -> dict[str, Weights]:
    """Weights as a mode keeps them, by module.

    Args:
        layers: The modules of each layer that have some.
        matrices: By module.
        how: Mode and precision.

    Raises:
        TrainingError: The mode needs a library that is not there.
    """
    dtype = DTYPES[how.precision]
    if how.mode == "mapped":
        turns = LayerTurns([{one: matrices[one] for one in modules} for modules in layers], dtype)
        return {
            module: OnDemand(Place(number, module), matrices[module], turns)
            for number, modules in enumerate(layers)
            for module in modules
        }
    keep = _quantised() if how.mode == "quanto" else _expanded
    weights = {}
    for module in chain.from_iterable(layers):
        weights[module] = keep(matrices[module], dtype)
        give_back_holes()  # what was expanded on the way lies between what stays: 400 MB at last
    return weights


def _expanded(matrix: MappedMatrix, dtype: torch.dtype) -> Weights:
    return Expanded(matrix.expanded(dtype))


def _quantised() -> Callable[[MappedMatrix, torch.dtype], Weights]:
    try:
        from edge_runtime.training.quanto_weights import quantised  # takes memory
    except ImportError as error:
        raise TrainingError(
            "mode quanto needs optimum-quanto; install it with: pip install 'fedpt[quanto]'"
        ) from error
    return quantised
