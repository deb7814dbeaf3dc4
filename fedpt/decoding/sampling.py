"""From logits to the distribution that a token is drawn from, and the dice that draw it.

Processors come in transformers' order: repetition penalty, temperature, top-k, top-p, min-p. The
dice are keyed by position, so what is drawn at a position depends on nothing but the seed, the
position and the distributions there: not on how drafts were cut, nor on where the work was done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from fedpt.decoding.constraint import Constraint
from fedpt.decoding.top_tokens import top_tokens
from fedpt.proxy_tuning import Logits, TokenIds

Weights: TypeAlias = npt.NDArray[np.float64]
_LIKELY: Final = 64
_COLDEST: Final = 1e-3
"""Temperatures below leave nothing to chance, and overflow."""

_PART: Final = 1024
"""A nucleus is nearly always within so many tokens: sorting the whole vocabulary takes longer than
a small model's decode."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How to choose among the tokens that a distribution leaves open. Travels on the wire too."""

    temperature: Annotated[float, Meta(ge=0, le=100)] = 0.0
    """0 is greedy: the most likely token, always."""
    top_k: Annotated[int, Meta(ge=0)] = 0
    """Only the k most likely; 0: no matter."""
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Only the most likely ones that hold this mass together."""
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Only those at least this likely, as a share of the most likely one."""
    repetition_penalty: Annotated[float, Meta(ge=1, le=10)] = 1.0
    """Divides positive logits of tokens that the text holds already, and multiplies negative."""
    seed: Annotated[int, Meta(ge=0, le=2**53)] = 0

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature < _COLDEST


GREEDY: Final = Sampling()


class Distribution(NamedTuple):
    """Probabilities of some tokens, ascending by id; all others have none."""

    ids: TokenIds
    probabilities: Weights

    def at(self, token: int) -> float:
        """A token's probability."""
        place = int(np.searchsorted(self.ids, token))
        is_here = place < len(self.ids) and self.ids[place] == token
        return float(self.probabilities[place]) if is_here else 0.0

    def draw(self, u: float) -> int:
        """The token at `u`, in [0, 1), of the cumulated probabilities."""
        if len(self.ids) == 1:
            return int(self.ids[0])
        return draw(self.ids, self.probabilities, u)


@dataclass(frozen=True, slots=True)
class Chooser:
    """All that turns logits at one position into a distribution, besides the logits."""

    sampling: Sampling
    seen: TokenIds
    """The tokens that the text holds, each once; empty where nothing is penalised."""
    constraint: Constraint | None
    """None: every token may come."""

    def distribution(self, logits: Logits) -> Distribution:
        """The distribution that whole rows `(V,)` of logits make."""
        ids = all_ids(len(logits))
        penalised = self.penalised(ids, logits)
        if self.constraint is not None:
            ids = self._allowed_ids(self.constraint, penalised)
            penalised = penalised[ids]
        return distribution(ids, penalised, self.sampling)

    def _allowed_ids(self, constraint: Constraint, logits: Logits) -> TokenIds:
        """All that a draw may give; for a greedy choice the likeliest few say it at less cost."""
        if self.sampling.is_greedy:
            likely = top_tokens(logits, _LIKELY)
            if (allows := constraint.allows(likely)).any():
                return likely[allows]
        return np.flatnonzero(constraint.allowed())

    def penalised(self, ids: TokenIds, logits: Logits) -> Logits:
        """The logits of `ids` (ascending) with repetitions penalised."""
        penalty = self.sampling.repetition_penalty
        if penalty == 1 or not len(self.seen):
            return logits
        places = np.searchsorted(ids, self.seen)
        places = places[places < len(ids)]
        places = places[np.isin(ids[places], self.seen)]
        changed = logits.copy()
        of_seen = changed[places]
        changed[places] = np.where(of_seen > 0, of_seen / penalty, of_seen * penalty)
        return changed


class Dice:
    """Three numbers in [0, 1) for every position: to draft, to accept and to replace with."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def at(self, position: int) -> tuple[float, float, float]:
        """The same at every call."""
        first, second, third = np.random.default_rng([self._seed, position]).random(3)
        return float(first), float(second), float(third)


_CERTAINTY: Final[Weights] = np.ones(1)
_CERTAINTY.flags.writeable = False


def distribution(ids: TokenIds, logits: Logits, sampling: Sampling) -> Distribution:
    """The distribution over `ids` (ascending) that their penalised logits make.

    Temperature 0 gives all to the largest logit, the first of equals.
    """
    if sampling.is_greedy:
        best = int(logits.argmax())
        return Distribution(ids[best : best + 1], _CERTAINTY)
    weights = weights_of(logits, sampling.temperature)
    kept = kept_places(weights, sampling)
    if kept is not None:
        ids, weights = ids[kept], weights[kept]
    return Distribution(ids, weights / weights.sum())


def weights_of(logits: Logits, temperature: float) -> Weights:
    """Unnormalised probabilities; the largest is 1."""
    scaled = logits.astype(np.float64) / temperature
    return np.asarray(np.exp(scaled - scaled.max()))


def kept_places(
    weights: Weights, sampling: Sampling, outside: float = 0.0
) -> npt.NDArray[np.int64] | None:
    """Which weights top-k, top-p and min-p leave, ascending; None: all.

    Args:
        weights: Unnormalised.
        sampling: The filters.
        outside: Weight of tokens that are not among these and lighter than what is kept.
    """
    kept: npt.NDArray[np.int64] | None = None
    if 0 < sampling.top_k < len(weights):
        least = np.partition(weights, -sampling.top_k)[-sampling.top_k]
        kept = np.flatnonzero(weights >= least)
        outside = 0.0  # what is lighter than the k heaviest is out
    if sampling.top_p < 1:
        here = weights if kept is None else weights[kept]
        places = nucleus(here, sampling.top_p * (float(here.sum()) + outside))
        kept = places if kept is None else kept[places]
    if sampling.min_p > 0:
        heavy = np.flatnonzero(weights >= sampling.min_p * weights.max())
        kept = heavy if kept is None else np.intersect1d(kept, heavy, assume_unique=True)
    return kept


def nucleus(weights: Weights, mass: float) -> npt.NDArray[np.int64]:
    """The fewest heaviest that hold `mass`, ascending; the first of equals goes in first."""
    places = np.arange(len(weights))
    if len(weights) > _PART:
        part = np.flatnonzero(weights >= np.partition(weights, -_PART)[-_PART])
        if weights[part].sum() >= mass:
            places = part
    order = places[np.argsort(-weights[places], kind="stable")]
    before = np.cumsum(weights[order]) - weights[order]
    return np.sort(order[: max(1, int((before < mass).sum()))])


def draw(ids: TokenIds, weights: Weights, u: float) -> int:
    """The token at `u`, in [0, 1), of the cumulated weights, which need not be normalised."""
    cumulated = np.cumsum(weights)
    place = int(np.searchsorted(cumulated, u * cumulated[-1], side="right"))
    return int(ids[min(place, len(ids) - 1)])


def unique_ids(tokens: Sequence[int]) -> TokenIds:
    """Each token once, ascending."""
    return np.unique(np.asarray(tokens, dtype=np.int64))


_all_ids: dict[int, TokenIds] = {}


def all_ids(size: int) -> TokenIds:
    """0 to size - 1, made once; do not write to it."""
    if size not in _all_ids:
        _all_ids[size] = np.arange(size, dtype=np.int64)
        _all_ids[size].flags.writeable = False
    return _all_ids[size]
