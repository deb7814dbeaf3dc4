"""A device's part in a federation, as values: what it knows, and what can happen to it.

```
announcement ──► adapter fetched ──► training ──► trained ──► offered ──► settled
     │                │ (selected)        └─ failed: told in the status, not tried again
     └ a new one      └ served by the assistant, selected or not
       abandons all of this
```
Decisions are in `planner`, changes in `transitions`; neither does I/O.
"""

from dataclasses import dataclass

from fedpt.ids import DeviceId
from fedpt.wire.messages import RoundAnnouncement, UpdateOffer


@dataclass(frozen=True, slots=True)
class DeviceState:
    """All that decisions depend on."""

    device: DeviceId
    announcement: RoundAnnouncement | None = None
    adapter_here: bool = False
    """Whether the announced adapter's blob is in our store."""
    served: str = ""
    """The adapter that the assistant answers with."""
    unservable: str = ""
    """An adapter that could not be converted or loaded; not tried again."""
    released: str = ""
    """An adapter release in our store that is newer than the announced adapter; empty: none."""
    training: RoundAnnouncement | None = None
    """What the training that runs is for; None if none runs."""
    is_stopping: bool = False
    """Whether that training was told to stop and has not ended yet."""
    offer: UpdateOffer | None = None
    """Our finished update for the announced round."""
    offered_at: float | None = None
    """When it was last offered, seconds of a monotonic clock."""
    is_settled: bool = False
    """Whether the coordinator has had its last word on it."""
    fault: str = ""
    """Why this device cannot train in the announced round."""

    @property
    def is_training(self) -> bool:
        """Whether a training runs, or is about to end."""
        return self.training is not None


@dataclass(frozen=True, slots=True)
class Announced:
    """The coordinator has announced something that we did not know."""

    announcement: RoundAnnouncement
    adapter_here: bool
    offer: UpdateOffer | None
    """An update for this very round that an earlier life of ours left."""
    is_settled: bool


@dataclass(frozen=True, slots=True)
class AdapterFetched:
    """The announced adapter is in our store."""

    sha256: str


@dataclass(frozen=True, slots=True)
class AdapterServed:
    """The assistant answers with this adapter now, or (`works` false) cannot."""

    sha256: str
    works: bool = True


@dataclass(frozen=True, slots=True)
class AdapterReleased:
    """The assistant shall answer with this release rather than with the announced adapter."""

    sha256: str
    """In our store; empty: with the announced one after all."""


@dataclass(frozen=True, slots=True)
class TrainingStarted:
    """The child process runs."""

    announcement: RoundAnnouncement


@dataclass(frozen=True, slots=True)
class TrainingStopped:
    """The child process was told to end; that it did is told by `TrainingEnded`."""


@dataclass(frozen=True, slots=True)
class TrainingEnded:
    """The child process has left an update, or `fault` says why not."""

    offer: UpdateOffer | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Offered:
    """We have told the coordinator of our update."""

    at: float


@dataclass(frozen=True, slots=True)
class OfferForgotten:
    """The coordinator may not know of our offer: it, or our connection, began anew."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The coordinator's receipt for our update has come; `fault` says why it was refused."""

    fault: str = ""


Event = (
    Announced
    | AdapterFetched
    | AdapterServed
    | AdapterReleased
    | TrainingStarted
    | TrainingStopped
    | TrainingEnded
    | Offered
    | OfferForgotten
    | Settled
)
