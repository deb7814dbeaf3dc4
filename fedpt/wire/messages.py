"""Every message of the protocol, one class each; `topics` says where each travels.

Within a major version of the protocol: unknown fields are ignored, none is renamed or reused.
Who sent a message is never in it: that is the topic's level, which the broker's ACL protects.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fedpt.decoding.sampling import Sampling
from fedpt.ids import SHA256_PATTERN

# \Z, for $ also matches before a line break at the end
Sha256Text = Annotated[str, Meta(pattern=rf"^{SHA256_PATTERN}\Z")]
RunText = Annotated[str, Meta(pattern=r"^[0-9a-f]{8,64}\Z")]
"""A run of a federation: a random name, safe in file names."""

ReleaseKind = Literal["model", "adapter", "runtime", "keys"]

Count = Annotated[int, Meta(ge=0)]
Size = Annotated[int, Meta(ge=1)]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all messages."""


class BlobRef(Message, frozen=True, kw_only=True):
    """Names a blob: what to fetch, and how to know that it is whole."""

    sha256: Sha256Text
    size_bytes: Size
    chunk_bytes: Size

    @property
    def chunk_count(self) -> int:
        """How many chunks it travels in; the last may be shorter."""
        return -(-self.size_bytes // self.chunk_bytes)


class ChunkRequest(Message, frozen=True, kw_only=True):
    """The receiver of a blob asks for chunks; it sets the pace and resumes where it stopped."""

    sha256: Sha256Text
    indices: Annotated[list[Count], Meta(min_length=1, max_length=256)]


class CoordinatorStatus(Message, frozen=True, kw_only=True):
    """Retained; its last will is the same with `online` false."""

    online: bool
    session: Count
    """Grows with every start, so that a stale last will can be told from a live coordinator."""
    small_weights: str = ""
    vocabulary: str = ""
    large_name: str = ""


Schedule = Literal["constant", "linear", "cosine"]


class TrainingPlan(Message, frozen=True, kw_only=True):
    """How every device of the round trains."""

    epochs: Annotated[int, Meta(ge=1)]
    learning_rate: Annotated[float, Meta(gt=0)]
    """At its peak."""
    batch_examples: Size
    context_tokens: Size
    patience_epochs: Annotated[int, Meta(ge=0)] = 2
    """After so many epochs without a better held-out nll training ends; 0: it does not."""
    schedule: Schedule = "cosine"
    """How the learning rate falls after the warm-up, to a tenth."""
    warmup_share: Annotated[float, Meta(ge=0, le=1)] = 0.1
    """Of all steps, those in which the learning rate rises."""
    weight_decay: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """AdamW's, on the factors."""
    proximal: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    """mu of FedProx, on the factors; 0: they go where the data leads."""


Weight = Annotated[float, Meta(ge=0, le=100)]
"""Of a model; bounded, so that no sum of logits overflows."""


class SteeringCoefficients(Message, frozen=True, kw_only=True):
    """See `fedpt.proxy_tuning.Coefficients`."""

    alpha: Weight = 1.0
    beta: Weight = 1.0
    gamma: Weight = 1.0


class SignedRelease(Message, frozen=True, kw_only=True):
    """A release's manifest as it was signed; see `fedpt.releases.SignedManifest`."""

    manifest: Annotated[bytes, Meta(max_length=512 * 1024)]
    """Exactly the bytes that are signed: JSON."""
    key: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class ReleaseAnnouncement(Message, frozen=True, kw_only=True):
    """Retained: the release of its kind that devices should have."""

    release: SignedRelease
    fraction: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """The share of devices that the roll-out has reached."""
    url: str = ""
    """Folder with its files on an HTTP server; empty: they come as chunks, like adapters."""


class RoundAnnouncement(Message, frozen=True, kw_only=True):
    """Retained: what the federation does now, and its newest adapter."""

    run: RunText
    round: Count
    phase: Literal["training", "steering", "finished"]
    selected: list[str]
    adapter: BlobRef
    """The expert's newest adapter: training starts from it, and assistants answer with it."""
    training: TrainingPlan
    deadline_unix_s: float
    coefficients: SteeringCoefficients = SteeringCoefficients()
    release: SignedRelease | None = None
    """Vouches for `adapter`; a device that knows whom to trust takes no adapter without."""


class TrainingProgress(Message, frozen=True, kw_only=True):
    """How far a device's training is."""

    steps_done: Count
    steps_total: Count
    tokens_per_s: float = 0.0
    """While it ran: pauses do not count."""
    loss: float | None = None
    """Of the last step, nats a token."""
    held_out_nll: float | None = None
    """The newest, nats a token; none is measured with few examples."""
    seconds_left: float = 0.0
    """If nothing pauses it."""
    paused_s: float = 0.0
    """How long its process was paused."""


class PersonalStatus(Message, frozen=True, kw_only=True):
    """How it stands with a device's personal adapter, which itself is told and sent to nobody."""

    in_use: bool = False
    """Whether its assistant answers with it."""
    trained_unix_s: float = 0.0
    example_count: Count = 0
    nll_before: float | None = None
    """On held-out examples, nats a token."""
    nll_after: float | None = None
    training_done: float = 0.0
    """The share of its present training that is done, 0 to 1."""
    why_not: str = ""
    """Why there is none, or it is not being trained, in one line; empty: nothing keeps it."""


class CalibrationStatus(Message, frozen=True, kw_only=True):
    """How a device chose its coefficients; nll in nats a token on held-out examples, at most."""

    coefficients: SteeringCoefficients | None = None
    """None: the announced ones are in use."""
    nll: float | None = None
    nll_expert: float | None = None
    """Of the expert alone."""
    nll_plain: float | None = None
    """Of plain proxy-tuning."""
    nll_announced: float | None = None
    positions: Count = 0
    """So many were measured."""
    made_unix_s: float = 0.0
    why_not: str = ""
    """Why there is no calibration, in one line; empty: there is one."""


class DeviceStatus(Message, frozen=True, kw_only=True):
    """Retained; its last will is the same with `activity` offline."""

    session: Count
    activity: Literal["offline", "idle", "training"]
    example_count: Count = 0
    small_weights: str = ""
    adapter: str = ""
    """The federation's adapter that it serves; empty before the first. See `personal` too."""
    training_done: float = 0.0
    """The share of the present training that is done, 0 to 1."""
    fault: str = ""
    """Why it does not take part, in one line; empty if nothing is wrong."""
    runtime: str = ""
    """The version of fedpt that runs there."""
    releases: dict[str, str] = {}
    """The installed release of each kind."""
    release_fault: str = ""
    """Why it did not take the newest release that it tried, in one line."""
    progress: TrainingProgress | None = None
    """Of the present training, from its first step on."""
    waiting: str = ""
    """Why its training does not start, or is paused, in one line; nothing is wrong."""
    personal: PersonalStatus | None = None
    """None: it shall not have a personal adapter."""
    calibration: CalibrationStatus | None = None


class UpdateOffer(Message, frozen=True, kw_only=True):
    """A device has trained; the coordinator may fetch the blob."""

    run: RunText
    round: Count
    base: Sha256Text
    """The adapter it started from."""
    update: BlobRef
    example_count: Size
    training_seconds: float
    loss: float
    """Mean training loss of the last epoch, nats a token."""
    bytes_down: Count = 0
    """What the device received over MQTT for this round."""


class UpdateReceipt(Message, frozen=True, kw_only=True):
    """The coordinator's last word on an update. Accepted means stored and journaled."""

    run: RunText
    round: Count
    update: Sha256Text
    accepted: bool
    code: str = ""
    reason: str = ""


Session = Annotated[bytes, Meta(min_length=8, max_length=8)]
"""A conversation with a logit worker: random bytes."""

Tokens = Annotated[bytes, Meta(max_length=3 * 65_536)]
"""Token ids; see `token_format`."""


class Opening(Message, frozen=True, kw_only=True):
    """What a device believes of the worker; sent with a session's first tokens."""

    vocabulary: Annotated[str, Meta(max_length=64)] = ""
    """Hash of its vocabulary; empty: not checked."""
    large: Annotated[str, Meta(max_length=200)] = ""
    """Name of the large model that it was told of; empty: any."""


class LogitRequest(Message, frozen=True, kw_only=True, array_like=True, tag=1):
    """A device asks for the large model's logits after each of the last `rows` tokens.

    The worker keeps what came before at `position` under `session`, so only new tokens travel. An
    array on the wire, for it travels often: fields are only ever added at its end.
    """

    request: Count
    session: Session
    position: Count
    tokens: Tokens
    rows: Annotated[int, Meta(ge=1, le=64)]
    largest: Count
    """How many of a row's largest logits; 0: all, as float32."""
    precision: Literal["f16", "q8", "f32"] = "f16"
    candidates: Annotated[bytes, Meta(max_length=262_144)] = b""
    """For each row a set of ids whose logits are wanted too, all of one size."""
    opening: Opening | None = None


class AnswerRequest(Message, frozen=True, kw_only=True, array_like=True, tag=2):
    """A device asks a worker to steer the next tokens itself, with the federation's adapter.

    The worker drafts and verifies with all three models and answers in one or more `AnswerReply`.
    """

    request: Count
    session: Session
    position: Count
    tokens: Tokens
    most: Annotated[int, Meta(ge=0, le=65_536)]
    """Tokens wanted, at most; 0: the session's answer is not wanted any more, nor a reply."""
    adapter: Sha256Text
    """The adapter that the device answers with itself."""
    coefficients: SteeringCoefficients
    sampling: Sampling
    opening: Opening | None = None


class LogitReply(Message, frozen=True, kw_only=True, array_like=True, tag=1):
    """Rows of logits, or why there are none."""

    request: Count
    session: Session
    worker: str = ""
    """Where the session's further requests go: `topics.worker_logits`."""
    busy_us: Count = 0
    """From the request's arrival at the worker to this reply, microseconds."""
    rows: bytes = b""
    """See `logit_format`."""
    code: str = ""
    """Empty, or why there is no row. `session_lost`: send all tokens again, from position 0."""
    reason: str = ""
    is_approximate: bool = False
    """Whether the rows may be off by more than they say."""


class AnswerReply(Message, frozen=True, kw_only=True, array_like=True, tag=2):
    """Some of the tokens that an `AnswerRequest` wants, or why there are no more."""

    request: Count
    session: Session
    worker: str = ""
    first: Count = 0
    """How many tokens of this answer came in replies before."""
    tokens: Tokens = b""
    is_last: bool = False
    """No more replies to this request will come."""
    code: str = ""
    reason: str = ""
