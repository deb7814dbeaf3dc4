"""Messages as they come over the wire, with what a test does not care about filled in."""

from typing import Any

import msgspec

from fedpt.files import sha256_bytes
from fedpt.wire.messages import (
    BlobRef,
    DeviceStatus,
    RoundAnnouncement,
    TrainingPlan,
    UpdateOffer,
    UpdateReceipt,
)

RUN = "0123456789abcdef"
OTHER_RUN = "f" * 16
WEIGHTS = "b" * 64
PLAN = TrainingPlan(epochs=1, learning_rate=1e-2, batch_examples=2, context_tokens=64)


def ref(content: bytes | str, chunk_bytes: int = 128 * 1024) -> BlobRef:
    """The reference to a blob of these bytes."""
    data = content.encode() if isinstance(content, str) else content
    return BlobRef(sha256=sha256_bytes(data), size_bytes=len(data), chunk_bytes=chunk_bytes)


ADAPTER = ref("the first adapter")


def announcement(**changes: Any) -> RoundAnnouncement:  # Any: whatever field
    """Round 1 trains on board-1 and board-2."""
    usual = RoundAnnouncement(
        run=RUN,
        round=1,
        phase="training",
        selected=["board-1", "board-2"],
        adapter=ADAPTER,
        training=PLAN,
        deadline_unix_s=100.0,
    )
    return msgspec.structs.replace(usual, **changes)


def offer(**changes: Any) -> UpdateOffer:  # Any: whatever field
    """An update for the usual announcement."""
    usual = UpdateOffer(
        run=RUN,
        round=1,
        base=ADAPTER.sha256,
        update=ref("an update"),
        example_count=10,
        training_seconds=1.5,
        loss=0.5,
    )
    return msgspec.structs.replace(usual, **changes)


def receipt(of: UpdateOffer, *, accepted: bool = True) -> UpdateReceipt:
    """The coordinator's last word on an offer."""
    return UpdateReceipt(run=of.run, round=of.round, update=of.update.sha256, accepted=accepted)


def status(**changes: Any) -> DeviceStatus:  # Any: whatever field
    """A device that could train."""
    usual = DeviceStatus(session=1, activity="idle", example_count=10, small_weights=WEIGHTS)
    return msgspec.structs.replace(usual, **changes)
