"""Which quantisation suits a size or a board, from what libllama foresees and what was measured.

The facts are `converters.quantise_facts`; sizes come from `converters.quantise.foresee`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from converters.quantise import Adjustments, Forecast, foresee, kinds
from converters.quantise_facts import (
    BOARDS,
    FAST_ON_ARM,
    LEAST_TOKENS_PER_S,
    LOSSES,
    MEMORY_SHARE,
    Board,
)
from fedpt.errors import ModelFileError, UsageError
from fedpt.gguf_file import GgufFile
from fedpt.gguf_types import GGML_TYPE_IDS, GGML_TYPES

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kMG]i?)?B?", re.IGNORECASE)
_UNITS: Final = {"": 1, "k": 10**3, "ki": 1 << 10, "m": 10**6, "mi": 1 << 20, "g": 10**9,
                 "gi": 1 << 30}  # fmt: skip
_MB: Final = 1e6


@dataclass(frozen=True, slots=True)
class Choice:
    """A kind, and why."""

    forecast: Forecast
    reason: str


def parse_size(text: str) -> int:
    """`90MB`, `1.5 GB` or `900MiB` in bytes.

    Raises:
        UsageError: It is none of these.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"no size: {text!r}; write it like 90MB or 1.5GiB")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])


def expected_loss(source: GgufFile, types: Mapping[str, str], adjustments: Adjustments) -> float:
    """What a mixture of types costs, nats a token: the types' measured losses by their shares.

    For putting mixtures in order, fallbacks included; a small model loses more than this says.

    Raises:
        KeyError: A type has never been measured.
    """
    total, values = 0.0, 0
    for name, stored in types.items():
        count = int(np.prod(source.tensors[name].shape))
        loss = LOSSES[stored]
        is_guided = name in adjustments.importance and loss.guided is not None
        total += count * (loss.guided if is_guided and loss.guided else loss.plain)
        values += count
    return total / max(1, values)


def choose_for_size(source: GgufFile, most_bytes: int, adjustments: Adjustments) -> Choice:
    """The kind that loses least among those whose file is not larger.

    Raises:
        UsageError: Even the smallest is larger; says which that is.
    """
    forecasts = _possible(source, adjustments)
    fitting = [one for one in forecasts if one.size_bytes <= most_bytes]
    if not fitting:
        raise UsageError(_too_large(forecasts, f"{most_bytes / _MB:.1f} MB", adjustments))
    best = _best(source, fitting, adjustments)
    return Choice(best, f"{best.size_bytes / _MB:.1f} of {most_bytes / _MB:.1f} MB")


def choose_for_board(source: GgufFile, name: str, adjustments: Adjustments) -> Choice:
    """The kind that loses least among those that a board decodes fast enough; else the fastest.

    Raises:
        UsageError: There is no such board, or it has not the memory.
    """
    if name not in BOARDS:
        raise UsageError(f"no such board: {name!r}; known are {', '.join(BOARDS)}")
    board = BOARDS[name]
    room = int(board.memory_bytes * MEMORY_SHARE)
    native = [one for one in _possible(source, adjustments) if _is_native(source, one)]
    fitting = [one for one in native if one.size_bytes <= room]
    if not fitting:
        place = f"the {room / _MB:.0f} MB that a {board.name} has for weights"
        raise UsageError(_too_large(native, place, adjustments))
    quick = [one for one in fitting if _tokens_per_s(board, one) >= LEAST_TOKENS_PER_S]
    best = (
        _best(source, quick, adjustments) if quick else min(fitting, key=lambda one: one.size_bytes)
    )
    speed = f"about {_tokens_per_s(board, best):.0f} tokens/s on a {board.name}"
    return Choice(best, speed if quick else f"{speed}; none reaches {LEAST_TOKENS_PER_S:.0f}")


def _possible(source: GgufFile, adjustments: Adjustments) -> list[Forecast]:
    """What can be made of this model, as far as anybody has measured it."""
    forecasts = []
    for kind in kinds():
        try:
            forecast = foresee(source, kind, adjustments)
        except ModelFileError:  # a kind without a fallback for these shapes
            continue
        if not forecast.needs_importance and set(forecast.types.values()) <= LOSSES.keys():
            forecasts.append(forecast)
    return forecasts


def _best(source: GgufFile, forecasts: list[Forecast], adjustments: Adjustments) -> Forecast:
    return min(
        forecasts,
        key=lambda one: (expected_loss(source, one.types, adjustments), one.size_bytes),
    )


def _is_native(source: GgufFile, forecast: Forecast) -> bool:
    """Whether a board multiplies by all matrices fast, and gains by their being small."""
    matrices = {
        stored for name, stored in forecast.types.items() if len(source.tensors[name].shape) > 1
    }
    is_quantised = any(GGML_TYPES[GGML_TYPE_IDS[stored]].block > 1 for stored in matrices)
    return is_quantised and matrices <= FAST_ON_ARM


def _tokens_per_s(board: Board, forecast: Forecast) -> float:
    """Decoding reads all weights for each token."""
    return board.bytes_per_s / forecast.size_bytes


def _too_large(forecasts: list[Forecast], room: str, adjustments: Adjustments) -> str:
    if not forecasts:
        return f"llama.cpp can make no measured type of this model for {room}"
    least = min(forecasts, key=lambda one: one.size_bytes)
    hint = "" if adjustments.importance else "; with --imatrix smaller types are possible"
    return (
        f"no type fits into {room}: the smallest is {least.kind} with"
        f" {least.size_bytes / _MB:.1f} MB{hint}"
    )
