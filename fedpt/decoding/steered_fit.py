"""How well steering predicts known tokens, at worst, with few of the large model's logits.

`fedpt.proxy_tuning.fit` needs whole rows, 200 KB each for a vocabulary of 50,000. Here every row is
told in some 500 bytes, the true token's logit among them, and what is not told is bounded as in
`steered_row`. So the nll given is never below the whole rows', and without the large model (beta
0) it is that of whole rows. A choice by it that beats the expert alone does so for certain.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from fedpt.decoding.large_row import LargeRow
from fedpt.decoding.steered_row import Untold, log_mass
from fedpt.decoding.top_tokens import top_tokens
from fedpt.proxy_tuning import Coefficients, Fit, Logits, TokenIds


def candidates_for(expert: Logits, answer: TokenIds, count: int) -> list[TokenIds]:
    """Ids to ask the large model for at each of `T` positions: the true one and the likeliest.

    Args:
        expert: `(T, V)`.
        answer: The true tokens, `(T,)`.
        count: Ids a position, at least one; fewer if the vocabulary is smaller.
    """
    return [
        _with(top_tokens(row, count), row, int(token))
        for row, token in zip(expert, answer, strict=True)
    ]


def knows(rows: Sequence[LargeRow], answer: TokenIds) -> bool:
    """Whether every true token was told: a black box tells what it likes."""
    return all(token in row.ids for row, token in zip(rows, answer, strict=True))


def worst_fits(
    large: Sequence[LargeRow],
    small: tuple[Logits, Logits],
    answer: TokenIds,
    grid: Iterable[Coefficients],
) -> dict[Coefficients, Fit]:
    """Score every choice of coefficients on one example's answer, in doubt against the choice.

    Args:
        large: What is known of the large model's rows; `knows` them.
        small: The expert's and the antiexpert's rows, each `(T, V)`.
        answer: The true tokens, `(T,)`.
        grid: The choices; beta is not negative.
    """
    return {choice: _worst_fit(large, small, answer, choice) for choice in grid}


def _with(ids: TokenIds, row: Logits, token: int) -> TokenIds:
    """Ids of one size, the token among them: the least likely gives way to it."""
    if token in ids:
        return ids
    kept = np.delete(ids, int(row[ids].argmin()))
    return np.sort(np.append(kept, token))


def _worst_fit(
    large: Sequence[LargeRow],
    small: tuple[Logits, Logits],
    answer: TokenIds,
    choice: Coefficients,
) -> Fit:
    alpha, beta, gamma = (np.float32(value) for value in choice)
    expert, antiexpert = small
    own = alpha * expert - gamma * antiexpert
    worst = [
        _position(row, of_board, float(beta), int(token))
        for row, of_board, token in zip(large, own, answer, strict=True)
    ]
    return Fit(sum(nll for nll, _ in worst), len(worst), all(exact for _, exact in worst))


def _position(row: LargeRow, own: Logits, beta: float, token: int) -> tuple[float, bool]:
    """The true token's nll at most; and whether it certainly is the likeliest."""
    steered = beta * row.logits.astype(np.float64) + own[row.ids]
    most, least = steered + beta * row.error, steered - beta * row.error
    others = own.copy()
    others[row.ids] = -np.inf
    untold = Untold(others, beta, row.floor, row.rest)
    place = int(np.searchsorted(row.ids, token))
    rivals = np.delete(most, place)
    true = float(least[place])
    peak = float(most.max())
    told = peak + float(np.log(np.exp(most - peak).sum()))
    normaliser = float(np.logaddexp(told, _mass(untold)))
    is_first = true >= max(float(rivals.max(initial=-np.inf)), _highest(untold))
    return normaliser - true, is_first


def _mass(untold: Untold) -> float:
    return log_mass(untold, 1.0) if np.isfinite(untold.own.max()) else -np.inf


def _highest(untold: Untold) -> float:
    return untold.most if np.isfinite(untold.own.max()) else -np.inf
