"""How well a model tells plain text: what a new model is measured by before it is used."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from fedpt.chat import encode_prompt
from fedpt.decoding.answer import Patience, Token, decode
from fedpt.decoding.drafting import Rules
from fedpt.drivers.llama import CachedText, LlamaContext, LlamaModel
from fedpt.drivers.llama_runs import Run
from fedpt.errors import ReleaseError
from fedpt.proxy_tuning import Fit, fit, mean_nll

_LINES: Final = (
    "The kettle was still warm when she came home, and rain ran down the kitchen window.",
    "Water boils at one hundred degrees at sea level, and a little sooner in the mountains.",
    "Please switch off the light in the hall and close the door before you go to bed.",
    "Der Zug nach Norden hält an jedem kleinen Bahnhof, auch wenn niemand einsteigt.",
    "La lumière du salon s'allume dès que la nuit tombe sur le jardin.",
    "El gato duerme junto a la ventana mientras los niños juegan en el patio.",
    "2 + 2 = 4, and 7 times 8 is 56; half past nine is 9:30.",
)
CANARY_TEXT: Final = "\n".join(_LINES)

_TOKENS: Final = 384
"""Of the canary text, at most: a board computes so many in seconds."""

_STEP: Final = 32
"""Rows of logits at a time: 20 MB with a vocabulary of 150,000."""

_PROMPT: Final = "What colour is the sky?"
_ANSWER_TOKENS: Final = 4
_CONTEXT_TOKENS: Final = 512


@dataclass(frozen=True, slots=True)
class Score:
    """How a model did on a text."""

    nll: float
    """Nats a token."""
    vocabulary: str
    """Scores of different vocabularies cannot be compared."""


def read_canary(path: Path) -> str:
    """The text of a release, or ours if it brings none.

    Raises:
        ReleaseError: It is no text.
    """
    if not path.is_file():
        return CANARY_TEXT
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ReleaseError(f"cannot read {path}: {error}") from error
    return text if text.strip() else CANARY_TEXT


def score(model: LlamaModel, text: str, adapter: Path | None = None) -> Score:
    """A model's mean negative log-likelihood of a text.

    Raises:
        ArtifactError: llama.cpp fails on the model or the adapter.
    """
    tokens = model.tokenize(text, special=False)[:_TOKENS]
    with LlamaContext(model, tokens=_CONTEXT_TOKENS, adapter=adapter) as context:
        fits = list(_fits(context, tokens))
    return Score(mean_nll(fits) if fits else math.nan, model.vocabulary.sha256)


def require_round_trip(model: LlamaModel, text: str) -> None:
    """Refuse a tokenizer that loses text.

    Raises:
        ReleaseError: Shows what became of it.
    """
    for line in text.splitlines():
        back = model.text(model.tokenize(line, special=False))
        if back.strip() != line.strip():
            raise ReleaseError(f"its tokenizer makes {back[:60]!r} of {line[:60]!r}")


def require_answer(model: LlamaModel, adapter: Path | None = None) -> None:
    """Refuse a model that says nothing when it is asked.

    Raises:
        ReleaseError: It ends its answer before the first token.
    """
    with LlamaContext(model, tokens=_CONTEXT_TOKENS, adapter=adapter) as context:
        steps = decode(
            encode_prompt(model, _PROMPT),
            expert=CachedText(context),
            steerer=None,
            rules=Rules(model.is_end, _ANSWER_TOKENS),
            patience=Patience(time.monotonic, math.inf),
        )
        if not any(isinstance(step, Token) and not step.is_end for step in steps):
            raise ReleaseError("it gives an empty answer")


def require_no_worse(new: Score, old: Score | None, *, tolerance: float) -> None:
    """Refuse a score that is not finite, or worse than the old one by more than `tolerance`.

    Raises:
        ReleaseError: Names both.
    """
    if not math.isfinite(new.nll):
        raise ReleaseError(f"its nll on the canary text is {new.nll}")
    if old is None or old.vocabulary != new.vocabulary:
        return
    if not new.nll <= old.nll * (1 + tolerance):
        raise ReleaseError(
            f"its nll on the canary text is {new.nll:.3f}; what is in use has {old.nll:.3f}, and"
            f" {tolerance:.0%} more is allowed (canary_tolerance)"
        )


def _fits(context: LlamaContext, tokens: Sequence[int]) -> Iterator[Fit]:
    for start in range(0, len(tokens) - 1, _STEP):
        run = tokens[start : min(start + _STEP, len(tokens) - 1)]
        (rows,) = context.evaluate([Run(0, start, run, wanted=len(run))])
        yield fit(rows, np.array(tokens[start + 1 : start + 1 + len(run)], dtype=np.int64))
