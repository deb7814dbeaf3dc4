"""Every topic of the protocol: built here, parsed here, nowhere else.

```
fedpt/v1/<federation>/
    coordinator/status                     retained   CoordinatorStatus (last will: offline)
    coordinator/round                      retained   RoundAnnouncement
    coordinator/release/<kind>             retained   ReleaseAnnouncement
    coordinator/chunk/<sha256>/<index>                raw bytes, one publish for all devices
    device/<device>/status                 retained   DeviceStatus (last will: offline)
    device/<device>/offer                             UpdateOffer
    device/<device>/want                              ChunkRequest, to the coordinator
    device/<device>/chunk/<sha256>/<index>            raw bytes of an update
    device/<device>/logits                            LogitRequest or AnswerRequest, any worker
    device/<device>/inbox/want                        ChunkRequest, to the device
    device/<device>/inbox/receipt                     UpdateReceipt
    device/<device>/inbox/logits                      LogitReply or AnswerReply
    worker/<worker>/logits/<device>                   the same, the worker with the session
```
A device may write below its own `device/<device>` and to `worker/+/logits/<device>`, no more: the
broker's ACL sees to it, and so the device named by a topic is the sender.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from fedpt.errors import MalformedMessageError
from fedpt.ids import NAME_PATTERN, DeviceId, FederationId, is_name, is_sha256
from fedpt.wire.messages import ReleaseKind

_ROOT: Final = "fedpt/v1"
_WORKERS: Final = "$share/logit-workers"
_INDEX_PATTERN: Final = r"0|[1-9][0-9]{0,5}"


@dataclass(frozen=True, slots=True)
class Topics:
    """Builds the topics and filters of one federation."""

    federation: FederationId

    @property
    def coordinator_status(self) -> str:
        """Retained."""
        return f"{_ROOT}/{self.federation}/coordinator/status"

    @property
    def round(self) -> str:
        """Retained."""
        return f"{_ROOT}/{self.federation}/coordinator/round"

    @property
    def from_coordinator(self) -> str:
        """Filter: all that the coordinator tells everybody."""
        return f"{_ROOT}/{self.federation}/coordinator/#"

    def release(self, kind: ReleaseKind | Literal["+"]) -> str:
        """Retained; `+` makes the filter."""
        return f"{_ROOT}/{self.federation}/coordinator/release/{kind}"

    def coordinator_chunk(self, sha256: str, index: int | str) -> str:
        """A chunk on its way down; index `+` makes the filter."""
        return f"{_ROOT}/{self.federation}/coordinator/chunk/{sha256}/{index}"

    def device(self, device: DeviceId | str, kind: str) -> str:
        """What a device writes: `status`, `offer`, `want`, `logits`; `+` makes the filter."""
        return f"{_ROOT}/{self.federation}/device/{device}/{kind}"

    def device_chunk(self, device: DeviceId | str, sha256: str, index: int | str) -> str:
        """A chunk on its way up; `+` for all three makes the filter."""
        return self.device(device, f"chunk/{sha256}/{index}")

    def inbox(self, device: DeviceId, kind: str) -> str:
        """What a device reads: `want`, `receipt`, `logits`; `#` makes the filter."""
        return self.device(device, f"inbox/{kind}")

    @property
    def shared_logits(self) -> str:
        """Filter by which new sessions are spread over all logit workers."""
        return f"{_WORKERS}/{self.device('+', 'logits')}"

    def worker_logits(self, worker: str, device: DeviceId | str) -> str:
        """Requests of sessions that this worker holds; device `+` makes the filter."""
        return f"{_ROOT}/{self.federation}/worker/{worker}/logits/{device}"


@dataclass(frozen=True, slots=True)
class FromDevice:
    """Something below `device/<device>`: `kind` is `status`, `offer`, `want` or `logits`."""

    device: DeviceId
    kind: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of a blob; `device` is its sender, None for the coordinator."""

    sha256: str
    index: int
    device: DeviceId | None


@dataclass(frozen=True, slots=True)
class FromCoordinator:
    """`status` or `round` of the coordinator."""

    kind: str


@dataclass(frozen=True, slots=True)
class OfRelease:
    """The coordinator's announcement of a release; an empty message takes it back."""

    kind: ReleaseKind


@dataclass(frozen=True, slots=True)
class ToDevice:
    """Something in a device's inbox."""

    device: DeviceId
    kind: str


Parsed = FromDevice | Chunk | FromCoordinator | OfRelease | ToDevice


def parse(topic: str) -> Parsed:
    """Say what a received topic is.

    Raises:
        MalformedMessageError: It is no topic of this protocol. Daemons log it and go on.
    """
    head = re.match(rf"{_ROOT}/{NAME_PATTERN}/", topic)
    match topic[head.end() :].split("/") if head else []:
        case ["coordinator", ("status" | "round") as kind]:
            return FromCoordinator(kind)
        case ["coordinator", "release", ("model" | "adapter" | "runtime" | "keys") as kind]:
            return OfRelease(kind)
        case ["coordinator", "chunk", sha256, index] if _is_chunk(sha256, index):
            return Chunk(sha256, int(index), None)
        case ["device", device, ("status" | "offer" | "want" | "logits") as kind] if is_name(
            device
        ):
            return FromDevice(DeviceId(device), kind)
        case ["device", device, "chunk", sha256, index] if is_name(device) and _is_chunk(
            sha256, index
        ):
            return Chunk(sha256, int(index), DeviceId(device))
        case ["device", device, "inbox", ("want" | "receipt" | "logits") as kind] if is_name(
            device
        ):
            return ToDevice(DeviceId(device), kind)
        case ["worker", worker, "logits", device] if is_name(worker) and is_name(device):
            return FromDevice(DeviceId(device), "logits")
    raise MalformedMessageError(f"not a topic of ours: {topic!r}")


def _is_chunk(sha256: str, index: str) -> bool:
    return is_sha256(sha256) and re.fullmatch(_INDEX_PATTERN, index) is not None
