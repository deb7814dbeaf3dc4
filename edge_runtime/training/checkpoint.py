"""Where a training is, kept so that losing power at any moment loses a few steps at most.

One safetensors file: the factors, the optimiser's two moments of each, and the position as
metadata. It is written aside, synced and renamed. The order of examples follows from seed and
position (see `passes`), and nothing else is random.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from edge_runtime.training.adamw import AdamW
from edge_runtime.training.how import How
from fedpt.files import written_aside

_logger = logging.getLogger(__name__)

_KEY: Final = "fedpt"
_MOMENTS: Final = ("exp_avg", "exp_avg_sq")
_BEST: Final = "best"


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far a training is, and what it has found."""

    how: How
    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    losses: tuple[float, ...] = ()
    """Of each step, nats a token."""
    token_counts: tuple[int, ...] = ()
    """Answers' tokens of each step."""
    held_out: tuple[float, ...] = ()
    """nll on the held-out examples: before, then after each epoch; empty if there are none."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The file of one training."""

    path: Path
    fingerprint: str
    """Of all that a training starts from; a checkpoint of anything else is not ours."""
    every_steps: int = 20

    def save(
        self,
        position: Position,
        optimiser: AdamW,
        names: list[str],
        *,
        best: Mapping[str, torch.Tensor] = MappingProxyType({}),
    ) -> None:
        """Replace the checkpoint.

        Args:
            position: How far the training is.
            optimiser: Its factors and their moments.
            names: The factors', in the same order.
            best: The factors after the best epoch, by name, where those are others.

        Raises:
            StorageError: The disk is full, say; the one before is then still there.
        """
        tensors = {f"{name}.{_BEST}": factor for name, factor in best.items()}
        for name, factor, moments in zip(names, optimiser.factors, optimiser.moments, strict=True):
            tensors[name] = factor.detach()
            for kind, moment in zip(_MOMENTS, moments, strict=True):
                tensors[f"{name}.{kind}"] = moment
        metadata = {_KEY: msgspec.json.encode([self.fingerprint, position]).decode()}
        with written_aside(self.path, mode=0o600) as aside:
            try:
                save_file(tensors, aside, metadata)
            except SafetensorError as error:
                raise OSError(str(error)) from error

    def position(self) -> Position | None:
        """Where to go on; None: from the beginning."""
        try:
            with safe_open(self.path, framework="pt") as file:
                fingerprint, position = msgspec.json.decode(
                    file.metadata()[_KEY], type=tuple[str, Position]
                )
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, msgspec.MsgspecError, KeyError, TypeError) as error:
            _logger.warning("no use in the checkpoint %s: %s", self.path, error)
            return None
        return position if fingerprint == self.fingerprint else None

    def restore(
        self, factors: Mapping[str, torch.nn.Parameter], optimiser: AdamW
    ) -> dict[str, torch.Tensor]:
        """Put factors and moments back, bit for bit; `position` has said that there are any.

        Returns:
            The best factors, as they were saved.
        """
        position = self.position()
        if position is None:
            return {}
        with safe_open(self.path, framework="pt") as file, torch.no_grad():
            for (name, factor), moments in zip(factors.items(), optimiser.moments, strict=True):
                factor.copy_(file.get_tensor(name))
                for kind, moment in zip(_MOMENTS, moments, strict=True):
                    moment.copy_(file.get_tensor(f"{name}.{kind}"))
            kept = {name: f"{name}.{_BEST}" for name in factors}
            there = set(file.keys())
            best = {name: file.get_tensor(key) for name, key in kept.items() if key in there}
        optimiser.steps = position.step
        return best

    def forget(self) -> None:
        """The training is over."""
        self.path.unlink(missing_ok=True)


def fingerprint_of(parts: Mapping[str, object]) -> str:
    """A text that differs if anything that a training starts from does."""
    return json.dumps(parts, sort_keys=True)
