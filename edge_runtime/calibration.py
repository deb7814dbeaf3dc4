"""Which coefficients suit this board: measured on the examples that it holds out.

Everything is teacher-forced: one pass of each model over the right answers scores the whole grid.
The expert alone is in it and is scored exactly, all else in doubt against itself
(`fedpt.decoding.steered_fit`); so the choice is not worse than the board alone on those examples.
Models are ports here; `calibration_desk` runs this in the background and keeps what comes out.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import msgspec
import numpy as np

from fedpt.chat import EncodedExample
from fedpt.decoding.ports import LargeModel, RowsWanted
from fedpt.decoding.steered_fit import candidates_for, knows, worst_fits
from fedpt.errors import TrainingError
from fedpt.proxy_tuning import (
    EXPERT_ALONE,
    GRID,
    PLAIN,
    Coefficients,
    Fit,
    Logits,
    choose_coefficients,
    mean_nll,
)

MOST_EXAMPLES: Final = 32
MOST_POSITIONS: Final = 512
"""Beyond these the choice hardly changes, and each position costs the network one or two KB."""
READ_AT_ONCE: Final = 64
"""Tokens: a second of a small board's work, and so long a question may have to wait."""
_ROWS_AT_ONCE: Final = 32
"""A message takes 64 at most."""

Permission = Literal["never", "ask", "always"]


class CalibrationKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a calibration is valid for; with anything else it is void."""

    adapter: str
    base: str
    """Hash of the small model's weights."""
    vocabulary: str
    large: str
    """The large model's name; empty while the coordinator was not heard of."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured; nll in nats a token, at most, over all positions."""

    key: CalibrationKey
    coefficients: Coefficients
    nll: float
    nll_expert: float
    nll_plain: float
    """Of plain proxy-tuning."""
    nll_announced: float
    """Of the coefficients that the federation announced."""
    positions: int
    made_unix_s: float


@dataclass(frozen=True, slots=True, eq=False)
class SmallRows:
    """The small model's part at some positions, each `(T, V)`."""

    adapter: str
    """That the expert had."""
    expert: Logits
    antiexpert: Logits


class SmallModels(Protocol):
    """The assistant, as far as calibration needs it."""

    def small_rows(self, text: Sequence[int], rows: int) -> SmallRows | None:
        """Rows after each of the last tokens of a text; None: somebody asks, try again."""


@dataclass(slots=True)
class Measured:
    """What has been measured so far."""

    announced: Coefficients = PLAIN
    fits: dict[Coefficients, list[Fit]] = field(default_factory=dict)

    @property
    def grid(self) -> Iterable[Coefficients]:
        """What is tried: the expert alone first, for ties go to the first."""
        return dict.fromkeys((*GRID, self.announced))

    def calibration(self, key: CalibrationKey, made_unix_s: float) -> Calibration:
        """The choice. There must have been an example."""
        chosen = choose_coefficients(self.fits)
        return Calibration(
            key=key,
            coefficients=chosen,
            nll=mean_nll(self.fits[chosen]),
            nll_expert=mean_nll(self.fits[EXPERT_ALONE]),
            nll_plain=mean_nll(self.fits[PLAIN]),
            nll_announced=mean_nll(self.fits[self.announced]),
            positions=sum(one.token_count for one in self.fits[chosen]),
            made_unix_s=made_unix_s,
        )


def why_not(*, is_wanted: bool, permission: Permission, has_data: bool, adapter: str) -> str:
    """What forbids calibration, in one line; empty: nothing.

    Args:
        is_wanted: Whether the device's settings ask for it.
        permission: `share_questions`. Held-out examples are private text, and their tokens are
            sent to the large model; only who always shares has allowed that.
        has_data: Whether the device has a store.
        adapter: That the assistant answers with; empty: none.
    """
    if not is_wanted:
        return "assistant.calibrate is false"
    if permission != "always":
        return (
            f'it would send held-out examples to the large model: share_questions = "{permission}"'
        )
    if not has_data:
        return "this device has no data store"
    return "" if adapter else "there is no adapter yet"


def is_valid(calibration: Calibration, key: CalibrationKey) -> bool:
    """Whether it may be used; while the large model's name is not known, the rest decides."""
    large = key.large or calibration.key.large
    return calibration.key == msgspec.structs.replace(key, large=large)


def chosen_examples(held_out: Sequence[EncodedExample]) -> list[EncodedExample]:
    """As many as are enough, the first one in any case.

    Raises:
        TrainingError: There are none.
    """
    if not held_out:
        raise TrainingError("too few examples: of fewer than 20 none is held out to judge by")
    chosen: list[EncodedExample] = []
    room = MOST_POSITIONS
    for example in held_out[:MOST_EXAMPLES]:
        if chosen and len(example.answer) > room:
            continue
        chosen.append(example)
        room -= len(example.answer)
    return chosen


def measure(
    examples: Iterable[EncodedExample],
    small: SmallModels,
    large: LargeModel,
    *,
    candidates: int,
    into: Measured,
) -> Iterator[SmallRows | None]:
    """Score the grid on examples, step by step; whoever iterates decides when to go on.

    Args:
        examples: With their right answers.
        small: Expert and antiexpert.
        large: Asked for rows at every position of the answers.
        candidates: Ids to ask for at each, besides the largest.
        into: Where the fits go, example by example.

    Yields:
        After each step of the small models their rows; None: they are busy.

    Raises:
        LargeModelError: It does not answer, or refuses.
        TrainingError: It tells too little to score answers by.
    """
    for example in examples:
        text = (*example.prompt, *example.answer[:-1])
        done = len(example.prompt) - 1
        for begin in range(0, done, READ_AT_ONCE):
            yield from _small_rows(small, text[: min(done, begin + READ_AT_ONCE)], 0)
        for first in range(0, len(example.answer), _ROWS_AT_ONCE):
            answer = np.asarray(example.answer[first : first + _ROWS_AT_ONCE], np.int64)
            part = text[: done + first + len(answer)]
            rows = yield from _small_rows(small, part, len(answer))
            wanted = candidates_for(rows.expert, answer, candidates)
            large.ask(RowsWanted(part, len(answer), wanted, "few"))
            told = large.fetch().rows
            if not knows(told, answer):
                raise TrainingError("the large model's server tells too few tokens to calibrate by")
            pair = rows.expert, rows.antiexpert
            for choice, fit in worst_fits(told, pair, answer, into.grid).items():
                into.fits.setdefault(choice, []).append(fit)


def _small_rows(
    small: SmallModels, text: Sequence[int], rows: int
) -> Generator[SmallRows | None, None, SmallRows]:
    while (told := small.small_rows(text, rows)) is None:
        yield None
    yield told
    return told
