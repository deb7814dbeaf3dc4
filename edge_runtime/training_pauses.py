"""When training starts, pauses, goes on, or ends so that its memory returns. Pure.

```
            no condition fails, nobody asks
  waiting ────────────────────────────────► running ◄──┐ nobody asks any more, no condition fails
     ▲                                         │       │
     │ a condition fails too long,             ▼       │
     └ or memory is short ◄───────────────── paused ───┘
```
A question pauses it at once, a condition only when it fails for a while. What was ended goes on
from its checkpoint later.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol, TypeAlias

from edge_runtime.training_conditions import Condition

Order: TypeAlias = Literal["run", "pause", "end"]

ANSWERING: Final = "the assistant answers"


class Manners(Protocol):
    """How training gives way; `edge_runtime.settings` says what each means."""

    @property
    def pause_for_answers(self) -> bool: ...  # noqa: D102
    @property
    def answer_grace_s(self) -> float: ...  # noqa: D102
    @property
    def pause_after_s(self) -> float: ...  # noqa: D102
    @property
    def end_after_s(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All that matters to training on this board; times in seconds of one monotonic clock."""

    answers: int = 0
    """Questions that are being answered, or wait for it."""
    answered_at: float | None = None
    """When the last answer ended."""
    failing: Mapping[Condition, str] = field(default_factory=dict)
    """Conditions that fail, and why."""
    failing_since: float = 0.0
    """When the first of them began to, with none in between when all held."""


def answer_began(around: Surroundings) -> Surroundings:
    """Somebody asks."""
    return replace(around, answers=around.answers + 1)


def answer_ended(around: Surroundings, now: float) -> Surroundings:
    """An answer is complete, or was given up."""
    return replace(around, answers=around.answers - 1, answered_at=now)


def judged(around: Surroundings, failing: Mapping[Condition, str], now: float) -> Surroundings:
    """The board was looked at."""
    since = around.failing_since if around.failing else now
    return replace(around, failing=failing, failing_since=since)


def is_asked(around: Surroundings, manners: Manners, now: float) -> bool:
    """Whether the processor is the assistant's: during an answer, and a moment after."""
    if not manners.pause_for_answers:
        return False
    if around.answers or around.answered_at is None:
        return around.answers > 0
    return now - around.answered_at < manners.answer_grace_s


def may_start(around: Surroundings, manners: Manners, now: float) -> bool:
    """Whether a training that waits may start."""
    return not around.failing and not is_asked(around, manners, now)


def order(around: Surroundings, manners: Manners, now: float) -> Order:
    """What a training that has started shall do."""
    failed_s = now - around.failing_since if around.failing else -1.0
    if failed_s >= manners.pause_after_s:
        is_short = "memory" in around.failing  # which a paused process keeps
        return "end" if is_short or failed_s >= manners.end_after_s else "pause"
    return "pause" if is_asked(around, manners, now) else "run"


def why_not(around: Surroundings, manners: Manners, now: float) -> str:
    """Why training waits, in one line; empty if nothing keeps it."""
    reasons = [*around.failing.values()]
    if is_asked(around, manners, now):
        reasons.append(ANSWERING)
    return "waits: " + "; ".join(reasons) if reasons else ""
