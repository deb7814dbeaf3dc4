"""Steering: combining three models' logits into one distribution, and choosing how strongly.

Pure numpy. `T` is a number of positions, `V` the vocabulary. Sources: proxy-tuning,
https://arxiv.org/abs/2401.08565; its use between federated devices, https://arxiv.org/abs/2410.00362.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fedpt.errors import VocabularyMismatchError

Logits: TypeAlias = npt.NDArray[np.float32]
"""Rows of scores over the vocabulary, `(T, V)` or `(V,)`, in nats up to a constant a row."""

TokenIds: TypeAlias = npt.NDArray[np.int64]


class Coefficients(NamedTuple):
    """Weights of the steering family `alpha * expert + beta * large - gamma * antiexpert`."""

    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 1.0


PLAIN: Final = Coefficients(1.0, 1.0, 1.0)
"""Plain proxy-tuning."""

EXPERT_ALONE: Final = Coefficients(1.0, 0.0, 0.0)
"""The device without the large model."""

GRID: Final = (
    EXPERT_ALONE,
    *(
        Coefficients(1.0, beta, round(beta * share, 3))
        for beta in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
        for share in (0.0, 0.3, 0.6, 1.0)
    ),
)
"""What calibration tries. It holds the expert alone, so a calibrated choice is never expected to be
worse than the device by itself; and small betas, for large models that do not know the task."""


class Rows(NamedTuple):
    """The three models' logits at the same `T` positions, each `(T, V)`."""

    large: Logits
    expert: Logits
    antiexpert: Logits


@dataclass(frozen=True, slots=True)
class Fit:
    """How well a distribution predicts known answers."""

    nll: float
    """Nats a token, summed over the positions."""
    token_count: int
    exact: bool
    """Whether every position's most likely token is the answer's: greedy decoding would give it."""


def steer_logits(rows: Rows, coefficients: Coefficients = PLAIN) -> Logits:
    """Shift a frozen model's logits by what a small model learned.

    ``alpha * expert + beta * large - gamma * antiexpert``. With (1, 1, 1) this is proxy-tuning. A
    constant added to any row cancels in the softmax, so raw logits and log-probabilities mix.

    Args:
        rows: Finite values: mask *after* steering, for ``-inf - -inf`` is NaN.
        coefficients: The weights of the three.

    Returns:
        Steered logits, shaped as each of `rows`, a new array.

    Raises:
        VocabularyMismatchError: The shapes differ. Never truncated here: a silent cut hides a
            wrong tokenizer. Nothing catches it: rows are checked where they come in.
    """
    large, expert, antiexpert = rows
    if not large.shape == expert.shape == antiexpert.shape:
        raise VocabularyMismatchError(
            f"logit shapes differ: large {large.shape}, expert {expert.shape},"
            f" antiexpert {antiexpert.shape}"
        )
    alpha, beta, gamma = (np.float32(value) for value in coefficients)
    return np.asarray(alpha * expert + beta * large - gamma * antiexpert)


def log_softmax(logits: Logits) -> Logits:
    """Log-probabilities of each row, computed without overflow."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normaliser = np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float32))
    return np.asarray(shifted - normaliser, dtype=np.float32)


def entropy(logits: Logits) -> float:
    """Mean entropy of the rows, in nats."""
    log_probabilities = log_softmax(logits)
    return float(-(np.exp(log_probabilities) * log_probabilities).sum(axis=-1).mean())


def fit(logits: Logits, answer: TokenIds) -> Fit:
    """Score rows `(T, V)` against the tokens `(T,)` that should follow each."""
    positions = np.arange(len(answer))
    maxima = logits.max(axis=-1)
    normalisers = maxima + np.log(np.exp(logits - maxima[:, None]).sum(axis=-1))
    nll = float((normalisers - logits[positions, answer]).sum())
    return Fit(nll, len(answer), bool((logits.argmax(axis=-1) == answer).all()))


def fit_grid(
    rows: Rows, answer: TokenIds, grid: Iterable[Coefficients] = GRID
) -> dict[Coefficients, Fit]:
    """Score every choice of coefficients on one example's answer."""
    return {choice: fit(steer_logits(rows, choice), answer) for choice in grid}


def choose_coefficients(fits: Mapping[Coefficients, Iterable[Fit]]) -> Coefficients:
    """The calibrated choice: the least nll a token over all examples; ties to the first tried."""
    return min(fits, key=lambda choice: mean_nll(fits[choice]))


def mean_nll(fits: Iterable[Fit]) -> float:
    """Nats a token over several examples, each token counting the same."""
    pairs = [(one.nll, one.token_count) for one in fits]
    return sum(nll for nll, _ in pairs) / max(1, sum(count for _, count in pairs))


def exact_rate(fits: Iterable[Fit]) -> float:
    """The share of examples whose answer greedy decoding would give, token for token."""
    verdicts = [one.exact for one in fits]
    return sum(verdicts) / max(1, len(verdicts))
