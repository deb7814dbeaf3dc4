"""Layers take turns: one is expanded, and the next one is on its way.

On the host the system is told to read the next layer's part of the file. Where it is computed
elsewhere, a thread brings the next layer's quantised bytes while this layer is computed.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch

from edge_runtime.training.mapped_weights import MappedMatrix


class Place(NamedTuple):
    """Where a matrix is in the model."""

    layer: int
    module: str


class LayerTurns:
    """What is expanded at the moment: the matrices of one layer only.

    A layer's backward pass, after its activations were computed again, finds them still here.
    """

    def __init__(self, layers: Sequence[Mapping[str, MappedMatrix]], dtype: torch.dtype) -> None:
        """Nothing is expanded yet.

        Args:
            layers: The matrices of each layer, by module.
            dtype: Of the values.
        """
        self._layers = layers
        self._dtype = dtype
        self._layer = -1
        self._values: dict[str, torch.Tensor] = {}
        self._coming: dict[Place, Future[torch.Tensor]] = {}
        self._carrier = ThreadPoolExecutor(1, "layers")

    def values(self, place: Place) -> torch.Tensor:
        """A matrix; those of any other layer are forgotten."""
        if place.layer != self._layer:
            self._turn_to(place.layer)
        if place.module not in self._values:
            matrix, coming = self._matrix(place), self._coming.pop(place, None)
            brought = coming.result() if coming else matrix.brought()
            self._values[place.module] = matrix.values_of(brought, self._dtype)
        return self._values[place.module]

    def _turn_to(self, layer: int) -> None:
        following = following_layer(self._layer, layer, len(self._layers))
        self._layer = layer
        self._values.clear()
        self._coming = {place: one for place, one in self._coming.items() if place.layer == layer}
        for module, matrix in self._layers[following].items():
            if matrix.placement.is_elsewhere:
                place = Place(following, module)
                self._coming[place] = self._carrier.submit(matrix.brought)
            else:
                matrix.read_ahead()

    def _matrix(self, place: Place) -> MappedMatrix:
        return self._layers[place.layer][place.module]


def following_layer(before: int, now: int, count: int) -> int:
    """Which layer comes after `now`: on in the same direction, at an end back again."""
    step = 1 if now > before else -1
    following = now + step
    return following if 0 <= following < count else max(0, min(count - 1, now - step))
