"""Steering at one position with few of the large model's logits, and how sure that is.

The device knows its own part D = alpha * expert - gamma * antiexpert of every token, and of the
large model the told logits l and bounds for the others. So for any token that was not told,
``beta * l + D <= beta * floor + max D``: a **certificate** that the greedy choice is the one that
the full row would give. For sampling, the others' mass is bounded in the same way, and with it the
distance in total variation from the distribution of the full row.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fedpt.decoding.large_row import LargeRow
from fedpt.decoding.sampling import (
    Chooser,
    Distribution,
    Sampling,
    Weights,
    distribution,
    kept_places,
    nucleus,
    weights_of,
)
from fedpt.proxy_tuning import Logits, TokenIds

_CERTAIN: Final = 0.0
_UNKNOWN: Final = 1.0
_LARGE: Final = 100.0
"""An exponent that is as good as any larger one."""


@dataclass(frozen=True, slots=True, eq=False)
class Steered:
    """The distribution at a position."""

    distribution: Distribution
    doubt: float
    """Total variation from the full row's distribution, at most; 0: certainly the same."""
    ids: TokenIds
    logits: Logits
    """Steered logits of the tokens that were told, before any filter."""


def steer_row(row: LargeRow, own: Logits, beta: float, chooser: Chooser) -> Steered:
    """Combine a row of the large model with the device's own part.

    Args:
        row: What is known of the large model's logits.
        own: D of every token, `(V,)`.
        beta: Weight of the large model, not negative.
        chooser: How a token is chosen.
    """
    steered = np.float32(beta) * row.logits + own[row.ids]
    if row.is_full:
        return Steered(chooser.distribution(steered), _CERTAIN, row.ids, steered)
    ids, logits, error = row.ids, chooser.penalised(row.ids, steered), row.error
    others = own.copy()
    others[ids] = -np.inf
    if (constraint := chooser.constraint) is not None:
        here = constraint.allows(ids)
        ids, logits, error = ids[here], logits[here], error[here]
    if not len(ids):  # a constraint leaves only what was not told
        return Steered(chooser.distribution(own), _UNKNOWN, row.ids, steered)
    told = _Told(ids, logits, np.float32(beta) * error)
    judge = _judge_greedy if chooser.sampling.is_greedy else _judge_sampling
    chosen, doubt = judge(told, Untold(others, beta, row.floor, row.rest), chooser.sampling)
    if doubt > _CERTAIN and constraint is not None:  # forbidden tokens are no rivals
        others[~constraint.allowed()] = -np.inf
        chosen, doubt = judge(told, Untold(others, beta, row.floor, row.rest), chooser.sampling)
    return Steered(chosen, doubt, row.ids, steered)


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """Steered, penalised logits of tokens that may be chosen, with their errors."""

    ids: TokenIds
    logits: Logits
    error: Logits


@dataclass(frozen=True, slots=True, eq=False)
class Untold:
    """What bounds the steered logits of tokens that were not told.

    A penalty only lowers them, so it is left out.
    """

    own: Logits
    """D, `(V,)`; `-inf` for told and forbidden tokens."""
    beta: float
    floor: float
    rest: float

    @property
    def most(self) -> float:
        """None of their steered logits is above this."""
        return self.beta * self.floor + float(self.own.max())


def _judge_greedy(told: _Told, untold: Untold, sampling: Sampling) -> tuple[Distribution, float]:
    best = int(told.logits.argmax())
    rivals = told.logits + told.error
    rivals[best] = -np.inf
    most = max(float(rivals.max()), untold.most)
    is_certain = float(told.logits[best] - told.error[best]) > most
    return distribution(told.ids, told.logits, sampling), _CERTAIN if is_certain else _UNKNOWN


def _judge_sampling(told: _Told, untold: Untold, sampling: Sampling) -> tuple[Distribution, float]:
    temperature = sampling.temperature
    weights = weights_of(told.logits, temperature)
    peak = float(told.logits.max()) / temperature
    outside = float(np.exp(min(_LARGE, log_mass(untold, temperature) - peak)))
    heaviest = float(np.exp(min(_LARGE, untold.most / temperature - peak)))
    places = kept_places(weights, sampling)
    is_kept = np.zeros(len(weights), np.bool_)
    is_kept[slice(None) if places is None else places] = True
    mass = float(weights[is_kept].sum())
    chosen = Distribution(told.ids[is_kept], weights[is_kept] / mass)
    slack = np.expm1(np.minimum(2 * told.error.astype(np.float64) / temperature, _LARGE))
    """How far the ratio of a weight to another of the same error may be off."""
    off = float((weights * slack)[is_kept].sum())
    off += _borderline(weights, is_kept, slack, sampling)
    if not _are_shut_out(weights, outside, heaviest, sampling):
        most = kept_places(weights, sampling, outside)  # a nucleus grows with the mass outside
        off += outside + (0.0 if most is None else float(weights[most].sum()) - mass)
    return chosen, min(1.0, off / mass)


def _are_shut_out(weights: Weights, outside: float, heaviest: float, sampling: Sampling) -> bool:
    """Whether a filter surely drops every token that was not told, and is the same without them."""
    if 0 < sampling.top_k <= len(weights):
        least = float(np.partition(weights, -sampling.top_k)[-sampling.top_k])
        if heaviest < least:
            return True
    if sampling.top_p < 1:
        mass = float(weights.sum())
        inside = weights[nucleus(weights, sampling.top_p * mass)]
        needed = sampling.top_p * (mass + outside)
        return heaviest < float(inside.min()) and float(inside.sum()) >= needed
    return sampling.min_p > 0 and heaviest < sampling.min_p


def _borderline(
    weights: Weights, is_kept: npt.NDArray[np.bool_], slack: Weights, sampling: Sampling
) -> float:
    """Weight of tokens that a filter might have judged otherwise, had nothing been rounded."""
    if is_kept.all() and sampling.min_p == 0 and sampling.top_p == 1:
        return 0.0
    lightest = float(weights[is_kept].min())
    near = (weights * (1 + slack) >= lightest) & (weights <= lightest * (1 + slack))
    is_close = bool((near & ~is_kept).any())
    unsure = float(weights[near].sum()) if is_close else 0.0
    if sampling.min_p > 0:
        on_edge = (weights * (1 + slack) >= sampling.min_p) & (
            weights <= sampling.min_p * (1 + slack)
        )
        unsure += float(weights[on_edge].sum())
    if sampling.top_p < 1:
        inside, total = float(weights[is_kept].sum()), float(weights.sum())
        wobble = float((weights * slack).sum())
        needed = sampling.top_p * total
        dropped = weights[~is_kept]
        if inside - lightest + wobble >= needed:
            unsure += lightest
        if inside - wobble < needed and len(dropped):
            unsure += float(dropped.max())
    return unsure


def log_mass(untold: Untold, temperature: float) -> float:
    """Log of the sum of exp((beta * l + D) / temperature) over tokens not told, at most.

    Two bounds, the lesser of which holds: every l is at most `floor`; and the sum of exp(l) is
    known, from which Hoelder's inequality (where beta / temperature is below 1) bounds the weighted
    sum.
    """
    own = untold.own.astype(np.float64) / temperature
    top = float(own.max())
    if top == -np.inf:
        return top
    power = untold.beta / temperature
    by_floor = power * untold.floor + top + float(np.log(np.exp(own - top).sum()))
    if power >= 1:
        by_rest = (power - 1) * untold.floor + untold.rest + top
    else:
        share = 1 - power
        by_rest = power * untold.rest + top
        by_rest += share * float(np.log(np.exp((own - top) / share).sum()))
    return min(by_floor, by_rest)
