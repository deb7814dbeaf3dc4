"""A federation's state and the events that change it. No I/O, no decisions.

```
            RunStarted             RoundStarted           all updates or deadline: Aggregated
(nothing) ────────────► WAITING ──────────────► TRAINING ─────────────────────────► EVALUATING
                         │   ▲                   │    ▲                                 │
            RunFinished  │   │                   └────┘ UpdateAccepted                  │ Evaluated
                         ▼   │                                                          ▼
                   FINISHED  └─────────────────────────────────────────────────── DISTILLING
                                                  RoundEnded
```
A round that cannot be evaluated ends with RoundAbandoned, from EVALUATING to WAITING.
The state is the fold of the journalled events; who is online at the moment is in `Fleet`, which is
not journalled, for every device tells it anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from fedpt.ids import DeviceId
from fedpt.wire.messages import DeviceStatus, SteeringCoefficients


class Phase(Enum):
    """What the federation is doing."""

    WAITING = "waiting"
    TRAINING = "training"
    EVALUATING = "evaluating"
    DISTILLING = "distilling"
    FINISHED = "finished"


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """How well one way to decode does on the evaluation set."""

    nll: float
    """Nats a token of the reference answers."""
    exact_match: float
    rouge_l: float


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """All ways side by side; `steered` is plain proxy-tuning."""

    scores: dict[str, Score]
    """By `large`, `antiexpert`, `expert`, `steered`, `steered_calibrated`."""
    coefficients: SteeringCoefficients
    """The calibrated ones: least nll on the evaluation set."""
    steered_entropy: float
    """Mean entropy of the plain steered distribution, nats: falls if the large-small gap is counted
    twice over the rounds."""
    answers: dict[str, list[str]]
    """Generated answers, by way, in the evaluation set's order."""
    seconds: float


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of the journalled events."""


class RunStarted(Event, frozen=True, kw_only=True):
    """A federation begins, with an adapter that changes nothing yet."""

    run: str
    adapter: str


class RoundStarted(Event, frozen=True, kw_only=True):
    """A round is announced; the same number again if nobody answered the first time."""

    number: int
    selected: list[str]
    at_unix_s: float
    deadline_unix_s: float


class UpdateAccepted(Event, frozen=True, kw_only=True):
    """A device's update is stored and counts."""

    device: str
    update: str
    example_count: int
    training_seconds: float
    loss: float
    bytes_up: int
    bytes_down: int


class Aggregated(Event, frozen=True, kw_only=True):
    """The updates are one adapter now."""

    adapter: str
    at_unix_s: float


class Evaluated(Event, frozen=True, kw_only=True):
    """The scores of this round's aggregated adapter are in."""

    evaluation: Evaluation


class RoundEnded(Event, frozen=True, kw_only=True):
    """`adapter` is what the next round starts from; distilled, unless that is off."""

    adapter: str
    distillation_seconds: float
    distillation_loss: float
    at_unix_s: float


class RoundAbandoned(Event, frozen=True, kw_only=True):
    """The round's adapter cannot be evaluated; the next round starts from where it did."""

    reason: str
    at_unix_s: float


class RunFinished(Event, frozen=True, kw_only=True):
    """No more rounds."""

    reason: str


AnyEvent = (
    RunStarted
    | RoundStarted
    | UpdateAccepted
    | Aggregated
    | Evaluated
    | RoundEnded
    | RoundAbandoned
    | RunFinished
)


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """All that is known of one round."""

    number: int
    selected: tuple[DeviceId, ...]
    base: str
    """The adapter that it started from."""
    started_unix_s: float
    deadline_unix_s: float
    updates: Mapping[DeviceId, UpdateAccepted] = field(default_factory=dict)
    aggregated: Aggregated | None = None
    evaluation: Evaluation | None = None
    ended: RoundEnded | None = None


@dataclass(frozen=True, slots=True)
class FederationState:
    """The fold of the journal."""

    run: str = ""
    phase: Phase = Phase.WAITING
    adapter: str = ""
    """The newest adapter that devices may have: where the next round starts."""
    rounds: tuple[RoundRecord, ...] = ()
    finish_reason: str = ""

    @property
    def current(self) -> RoundRecord:
        """The newest round.

        Raises:
            IndexError: There was none yet.
        """
        return self.rounds[-1]


@dataclass(frozen=True, slots=True)
class Fleet:
    """The devices as they last described themselves."""

    devices: Mapping[DeviceId, DeviceStatus] = field(default_factory=dict)

    def online(self, small_weights: str) -> list[DeviceId]:
        """Those that could train now: reachable, with data and our small model; sorted.

        A fault is no obstacle: it is that of the round before, and a new round tries anew.
        """
        return sorted(
            device
            for device, status in self.devices.items()
            if status.activity != "offline"
            and status.small_weights == small_weights
            and status.example_count > 0
        )
