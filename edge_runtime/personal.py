"""A board's personal adapter: when it is trained, from what, and when it answers. Pure.

```
 federation's adapter ──► trained on, on this board ──► personal ── answers until the next one
     │        ▲                  └ not accepted: the federation's answers
     ▼        └ mix: not from it alone, but part of the way to the personal one before
   rounds start from it, never from the personal one
```
Nobody is offered it. A new adapter of the federation has it trained anew, a new base voids it.
"""

import msgspec
import numpy as np

from edge_runtime.state import DeviceState
from fedpt.adapters import Adapter, require_averageable
from fedpt.errors import AdapterError


class PersonalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the last personal training."""

    base: str
    """Hash of the small model's weights."""
    federation: str
    """The federation's adapter that it was for."""
    adapter: str = ""
    """The personal adapter; empty: there is none."""
    ended_unix_s: float = 0.0
    example_count: int = 0
    nll_before: float | None = None
    """On held-out examples, nats a token."""
    nll_after: float | None = None
    fault: str = ""
    """Why there is none."""


def personal_adapter(record: PersonalRecord | None, base: str) -> str:
    """The personal adapter that shall answer; empty: the federation's shall."""
    return record.adapter if record is not None and record.base == base else ""


def is_due(record: PersonalRecord | None, state: DeviceState, base: str) -> bool:
    """Whether the personal adapter is to be trained from the served one, or is being so.

    Once for each adapter of the federation, whatever comes of it; and not in a round that this
    board trains in.

    Args:
        record: Of the last time.
        state: The board's part in the federation.
        base: Hash of the small model's weights.
    """
    announcement = state.announcement
    if announcement is None or not state.served:
        return False
    if announcement.phase == "training" and state.device in announcement.selected:
        return False
    if state.is_training or state.served != (state.released or announcement.adapter.sha256):
        return False  # about to be over, or to be replaced
    return record is None or (record.base, record.federation) != (base, state.served)


def mixed(federation: Adapter, own: Adapter, mix: float) -> Adapter:
    """What personal training starts from: ``(1 - mix) * federation + mix * own``, each factor.

    A mix of the factors is not the mix of what the adapters change: mixed B times mixed A has
    cross terms. They are small where both have the same past, as here: one went on from the other.

    Args:
        federation: Its newest adapter.
        own: The personal adapter before.
        mix: 0 to 1.

    Raises:
        AdapterError: They have other forms, or bases.
    """
    require_averageable(own, federation)
    if own.manifest.rank != federation.manifest.rank:  # its factors span something else
        raise AdapterError(
            f"a personal adapter of rank {own.manifest.rank} cannot be mixed into one of rank"
            f" {federation.manifest.rank}"
        )
    share = np.float32(mix)
    tensors = {
        name: (1 - share) * tensor + share * own.tensors[name]
        for name, tensor in federation.tensors.items()
    }
    return Adapter(federation.manifest, tensors)
