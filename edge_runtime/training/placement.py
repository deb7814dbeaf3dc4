"""Where it is computed: on the host, or on an accelerator to which tensors are brought.

The only place that moves tensors. Weights come from the mapped file in host memory a layer at a
time and are dequantised where they are used, so what crosses is the quantised bytes.
"""

from dataclasses import dataclass
from typing import Protocol

import torch


class Placement(Protocol):
    """A memory to compute in."""

    @property
    def device(self) -> torch.device:
        """What torch calls it."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether tensors of the host must be copied to it."""

    def bring(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor there: itself if it is there already. Called by several threads."""


@dataclass(frozen=True, slots=True)
class On:
    """A device of torch's: the host itself, a GPU."""

    device: torch.device

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is not the host."""
        return self.device.type != "cpu"

    def bring(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the device."""
        return tensor.to(self.device, non_blocking=True)


HOST = On(torch.device("cpu"))


def best_placement() -> Placement:
    """The accelerator, if torch finds one that works; else the host."""
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        if device is not None:
            return On(device)
    return HOST
