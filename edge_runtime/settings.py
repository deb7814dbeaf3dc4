"""What an operator can set on a device."""

import tempfile
from pathlib import Path
from typing import Final

from pydantic import Field

from fedpt.files import sha256_bytes
from fedpt.settings import BrokerSettings, Name, Settings

ENVIRONMENT_PREFIX: Final = "FEDPT_DEVICE"


_LONGEST_SOCKET_PATH: Final = 100
"""Unix sockets have 108 bytes for their path, on some systems 104."""


class AssistantSettings(Settings):
    """How the assistant answers."""

    context_tokens: int = Field(1024, ge=64, description="longest question and answer, tokens")
    answer_tokens: int = Field(128, ge=1, description="longest answer, tokens")
    threads: int | None = Field(None, ge=1, description="threads for llama.cpp; unset: all cores")
    system_prompt: str = Field("", description="set before every question")
    large_deadline_s: float = Field(
        5.0, gt=0, description="how long to wait for the large model before answering alone, s"
    )


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


class DeviceSettings(Settings):
    """Everything of `fedpt device run` and `fedpt ask`."""

    name: Name = Field(description="this device's name: its MQTT client id and topic level")
    federation: Name = Field("home", description="the federation that it belongs to")
    small: Path = Field(description="the small model, a GGUF file")
    data: Path | None = Field(
        None, description="private examples, JSONL; unset: this device only answers"
    )
    state_dir: Path = Field(description="folder for adapters and updates")
    broker: BrokerSettings = BrokerSettings()
    enrolment: EnrolmentSettings | None = Field(
        None, description="unset: the certificate is put there by hand, if the broker wants one"
    )
    assistant: AssistantSettings = AssistantSettings()
    releases: ReleaseSettings | None = Field(
        None, description="take signed releases; unset: none, and adapters need no signature"
    )
    training_threads: int | None = Field(
        None, ge=1, description="threads for training; unset: all cores"
    )
    training_niceness: int = Field(10, ge=0, le=19, description="19 gives way to everything else")
    connect_timeout_s: float = Field(30.0, gt=0, description="wait for the broker at the start, s")

    @property
    def socket(self) -> Path:
        """Where the assistant listens."""
        return socket_in(self.state_dir)


def socket_in(state_dir: Path) -> Path:
    """The assistant's socket: in the state folder, unless that is too long for a socket."""
    path = state_dir / "assistant.sock"
    if len(bytes(path)) <= _LONGEST_SOCKET_PATH:
        return path
    name = sha256_bytes(bytes(state_dir))[:16]
    return Path(tempfile.gettempdir()) / f"fedpt-{name}.sock"
