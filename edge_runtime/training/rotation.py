"""How positions turn queries and keys: https://arxiv.org/abs/2104.09864, in transformers' order.

Each pair of values turns with a frequency of its own: the first half of a head with the second.
Settings are those that `converters.rotary_settings` finds in a GGUF file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from converters.rotary_settings import FREQUENCIES, LONG, SHORT, Factors

Turns: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines, `(T, pairs)` each."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """What turns how fast."""

    frequencies: Factors
    """Radians a token, `(pairs,)`."""
    stretched: Factors
    """The same for texts that are longer than `short_tokens`."""
    short_tokens: int | None
    factor: float
    """What turned values are multiplied by."""

    def turns(self, tokens: int, dtype: torch.dtype) -> Turns:
        """Of the positions from 0 on."""
        is_long = self.short_tokens is not None and tokens > self.short_tokens
        frequencies = torch.from_numpy(self.stretched if is_long else self.frequencies)
        angles = torch.arange(tokens)[:, None] * frequencies
        return (angles.cos() * self.factor).to(dtype), (angles.sin() * self.factor).to(dtype)


def rotation(
    settings: Mapping[str, Any],  # Any: they are JSON values
    factors: Mapping[str, Factors],
    *,
    head: int,
) -> Rotation:
    """The rotation that `rope_parameters` ask for.

    Args:
        settings: Those of one kind of layers; see `converters.rotary_settings.rope_parameters`.
        factors: What frequencies are divided by; see `converters.rotary_settings.factor_tensors`.
        head: Values of a head.
    """
    pairs = int(head * settings.get("partial_rotary_factor", 1.0)) // 2
    exponents = np.arange(pairs, dtype=np.float32) / np.float32(pairs)
    frequencies = np.float32(1) / np.float32(settings["rope_theta"]) ** exponents
    if settings["rope_type"] == "longrope":
        return Rotation(
            frequencies / factors[SHORT],
            frequencies / factors[LONG],
            int(settings["original_max_position_embeddings"]),
            float(settings["attention_factor"]),
        )
    if settings["rope_type"] == "linear":
        frequencies = frequencies / np.float32(settings["factor"])
    elif settings["rope_type"] == "llama3":
        frequencies = frequencies / factors[FREQUENCIES]
    return Rotation(frequencies, frequencies, None, 1.0)


def turned(values: torch.Tensor, turns: Turns) -> torch.Tensor:
    """Heads of queries or keys, `(B, heads, T, head)`; what has no frequency stays as it is."""
    cosines, sines = turns
    pairs = cosines.shape[1]
    first, second, rest = torch.split(values, [pairs, pairs, values.shape[-1] - 2 * pairs], -1)
    both = [first * cosines - second * sines, second * cosines + first * sines]
    return torch.cat([*both, rest], -1)
