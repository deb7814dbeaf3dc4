"""What an operator can set on a device."""

import ipaddress
import tempfile
from datetime import time
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from fedpt.files import sha256_bytes
from fedpt.settings import BrokerSettings, Name, Settings
from fedpt.wire.messages import TrainingPlan

ENVIRONMENT_PREFIX: Final = "FEDPT_DEVICE"

_LONGEST_SOCKET_PATH: Final = 100
"""Unix sockets have 108 bytes for their path, on some systems 104."""

_TEXT_SUFFIXES: Final = (".jsonl", ".json", ".txt")
"""Of files that people make; a data store is ours."""


class AssistantSettings(Settings):
    """How the assistant answers."""

    context_tokens: int = Field(1024, ge=64, description="longest question and answer, tokens")
    conversations: int = Field(
        2, ge=1, le=16, description="conversations kept in the cache, context_tokens each"
    )
    answer_tokens: int = Field(128, ge=1, description="longest answer, tokens")
    threads: int | None = Field(None, ge=1, description="threads for llama.cpp; unset: the fastest")
    system_prompt: str = Field("", description="set before every question")
    share_questions: Literal["never", "ask", "always"] = Field(
        "ask",
        description="whether a question's tokens may go to the coordinator: never, always, or when"
        " the asker says so for this question",
    )
    steer_by: Literal["auto", "logits"] = Field(
        "auto",
        description="auto: a worker that has our adapter steers and sends tokens, else logits are"
        " combined here; logits: always here",
    )
    large_deadline_s: float = Field(
        10.0, gt=0, description="how long to wait for the large model before answering alone, s"
    )
    large_retry_s: float = Field(
        3.0, gt=0, description="after so long without a reply another worker is asked, s"
    )
    answer_deadline_s: float = Field(
        300.0, gt=0, description="after so long the rest of an answer is not steered, s"
    )
    draft_tokens: int = Field(16, ge=1, le=64, description="drafts verified at once, at most")
    largest_logits: int = Field(
        16, ge=1, description="of the large model's largest logits, so many a position at first"
    )
    candidate_logits: int = Field(
        16, ge=0, le=1024, description="logits asked for where our own part is largest, a position"
    )
    logit_precision: Literal["f16", "q8"] = Field("f16", description="of logits on the wire")
    exact_logits: bool = Field(False, description="ask for whole rows: for comparison only")
    calibrate: bool = Field(
        True,
        description="with share_questions = always: choose the steering coefficients on held-out"
        " examples of this board, whose tokens are sent to the large model for it",
    )
    sampling_tolerance: float = Field(
        0.02, ge=0, le=1, description="total variation that a sampled token may be off by"
    )


class ApiSettings(Settings):
    """How programs and browsers reach the assistant over HTTP, besides the local socket."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen at, if port is set")
    port: int | None = Field(None, ge=1, le=65_535, description="TCP port; unset: only the socket")
    token_file: Path | None = Field(
        None, description="file with the bearer token; unset: none, for loopback addresses only"
    )
    allowed_origins: tuple[str, ...] = Field(
        (), description="other sites whose pages may use the API, like https://hub.local; * for all"
    )
    largest_request_kb: int = Field(1024, ge=1, le=65_536, description="longest request, KB")
    most_waiting: int = Field(
        8, ge=0, description="questions that may wait while another is answered; more are refused"
    )

    @model_validator(mode="after")
    def _require_token(self) -> Self:
        if self.port is not None and self.token_file is None and not _is_loopback(self.host):
            raise ValueError(
                f"host {self.host} can be reached from elsewhere: set token_file, or host 127.0.0.1"
            )
        return self


class EnrolmentSettings(Settings):
    """How this board gets broker.certificate_file, which then holds its key too."""

    url: str = Field(pattern=r"^https://", description="the enrolment service, https://host:8884")
    token_file: Path = Field(description="the one-time token; deleted when it has been used")


class ReleaseSettings(Settings):
    """How signed releases are taken: models, adapters, runtimes, keys."""

    folder: Path = Field(description="folder of installed releases")
    trust_file: Path = Field(description="public keys that may sign releases, trust.json")
    canary_tolerance: float = Field(
        0.25, ge=0, description="how much worse a new model's nll on the canary text may be"
    )
    healthy_after_s: float = Field(
        120.0, ge=0, description="a release has proved itself after so long a run, s"
    )
    starts_before_rollback: int = Field(
        3, ge=1, le=100, description="starts in which a new release may fail to do so"
    )
    reserve_mb: int = Field(200, ge=0, description="disk space that stays free, MB")
    start_within_s: float = Field(
        600.0, ge=0, description="devices begin to fetch at random within so long, s"
    )
    retry_after_s: float = Field(
        600.0, ge=0, description="pause after a fetch that failed, or for lack of space, s"
    )


class PersonalSettings(Settings):
    """An adapter of this board's own: the federation's, trained on here, and never sent."""

    enabled: bool = Field(False, description="train one after each round, and answer with it")
    epochs: int = Field(1, ge=1, description="passes over this device's examples")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    batch_examples: int = Field(4, ge=1, description="examples a step")
    context_tokens: int = Field(256, ge=16, description="longest example, tokens; cut beyond")
    patience_epochs: int = Field(
        2, ge=0, description="epochs without a better held-out nll that end it; 0: all are done"
    )
    mix: float = Field(
        0.0,
        ge=0,
        le=1,
        description="0: start from the federation's adapter, 1: from the personal one before; in"
        " between: from both, mixed",
    )

    @property
    def plan(self) -> TrainingPlan:
        """How it is trained."""
        return TrainingPlan(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_examples=self.batch_examples,
            context_tokens=self.context_tokens,
            patience_epochs=self.patience_epochs,
        )


class TrainingConditions(Settings):
    """When this board trains. A sensor that it has not got never stops it."""

    mains_power: bool = Field(True, description="not on battery")
    most_celsius: float = Field(
        80.0, gt=0, le=150, description="°C of its hottest sensor; on again 5 below"
    )
    most_load: float = Field(
        8.0,
        gt=0,
        description="programs of others that want a core, for each core, over a minute; on again at"
        " three quarters; training gives way to them anyway, so this is for a board overwhelmed",
    )
    from_time: time | None = Field(
        None, description='local time, like "22:00"; unset: at any time of day'
    )
    until_time: time | None = Field(None, description="may be on the next day")
    least_free_memory_mb: int = Field(
        200, ge=0, description="memory that would be free without our training, MB"
    )
    least_free_disk_mb: int = Field(100, ge=0, description="disk that is free at state_dir, MB")
    pause_after_s: float = Field(
        10.0, ge=0, description="a running training pauses when a condition fails for so long, s"
    )
    end_after_s: float = Field(
        300.0, ge=0, description="its process ends when one fails for so long: memory returns, s"
    )
    pause_for_answers: bool = Field(True, description="pause while the assistant answers")
    answer_grace_s: float = Field(2.0, ge=0, description="and for so long after an answer, s")

    @model_validator(mode="after")
    def _require_window(self) -> Self:
        start, end = self.from_time, self.until_time
        if (start is None) != (end is None):
            raise ValueError("from_time and until_time go together: set both or neither")
        if start is not None and start == end:
            raise ValueError(f"from_time and until_time are both {start:%H:%M}: unset both")
        for one in (start, end):
            if one is not None and one.tzinfo is not None:
                raise ValueError(f"{one} names a time zone: hours are the board's local time")
        return self


class DeviceSettings(Settings):
    """Everything of `fedpt device run` and `fedpt ask`."""

    name: Name = Field(description="this device's name: its MQTT client id and topic level")
    federation: Name = Field("home", description="the federation that it belongs to")
    small: Path = Field(description="the small model, a GGUF file")
    data: Path | None = Field(
        None, description="store of private examples, SQLite; unset: this device only answers"
    )
    state_dir: Path = Field(description="folder for adapters and updates")
    broker: BrokerSettings = BrokerSettings()
    enrolment: EnrolmentSettings | None = Field(
        None, description="unset: the certificate is put there by hand, if the broker wants one"
    )
    assistant: AssistantSettings = AssistantSettings()
    api: ApiSettings = ApiSettings()
    releases: ReleaseSettings | None = Field(
        None, description="take signed releases; unset: none, and adapters need no signature"
    )
    training_threads: int | None = Field(
        None, ge=1, description="threads for training; unset: all cores"
    )
    training_memory_mb: int | None = Field(
        None,
        ge=1,
        description="memory that training may take, all in all, MB; unset: what it has at the start"
        " and half of what is free, 1200 at most",
    )
    training_precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of training's computation; auto: bfloat16 if it is clearly faster here"
    )
    training_rank: int | None = Field(
        None,
        ge=1,
        le=256,
        description="rank that this device trains, if the federation's is higher; unset: that one",
    )
    training_checkpoint_steps: int = Field(
        20, ge=1, description="training is saved every so many steps"
    )
    training_niceness: int = Field(10, ge=0, le=19, description="19 gives way to everything else")
    training_conditions: TrainingConditions = TrainingConditions()
    personal: PersonalSettings = PersonalSettings()
    connect_timeout_s: float = Field(30.0, gt=0, description="wait for the broker at the start, s")

    @field_validator("data")
    @classmethod
    def _refuse_plain_text(cls, path: Path | None) -> Path | None:
        if path is not None and path.suffix in _TEXT_SUFFIXES:
            raise ValueError(
                f'{path} is no data store: set data = "{path.with_suffix(".db")}", then put your'
                f" examples into it: fedpt device data add {path} --config …"
            )
        return path

    @property
    def socket(self) -> Path:
        """Where the assistant listens."""
        return socket_in(self.state_dir)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def socket_in(state_dir: Path) -> Path:
    """The assistant's socket: in the state folder, unless that is too long for a socket."""
    path = state_dir / "assistant.sock"
    if len(bytes(path)) <= _LONGEST_SOCKET_PATH:
        return path
    name = sha256_bytes(bytes(state_dir))[:16]
    return Path(tempfile.gettempdir()) / f"fedpt-{name}.sock"
