"""What an operator can set on the coordinator."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from fedpt.settings import BrokerSettings, Name, Settings
from fedpt.wire.messages import Schedule

ENVIRONMENT_PREFIX: Final = "FEDPT_COORDINATOR"


class AdapterSettings(Settings):
    """The LoRA adapter that the federation trains."""

    rank: int = Field(8, ge=1, le=256, description="rank of the factors")
    alpha: float = Field(16.0, gt=0, description="scale: alpha / rank")
    target_modules: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="layers that are adapted, as transformers calls them; unset: all linear ones",
    )


class TrainingSettings(Settings):
    """How devices train; goes out with each round."""

    epochs: int = Field(1, ge=1, description="passes over a device's examples, a round")
    patience_epochs: int = Field(
        2, ge=0, description="stop after so many epochs no better on held-out examples; 0: never"
    )
    learning_rate: float = Field(3e-3, gt=0, description="peak learning rate of AdamW")
    schedule: Schedule = Field(
        "cosine", description="how the learning rate falls after the warm-up, to a tenth"
    )
    warmup_share: float = Field(
        0.1, ge=0, le=1, description="of all steps, those in which the learning rate rises"
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="of AdamW, on the adapter's factors")
    proximal: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="FedProx: how strongly factors are held at where the round started",
    )
    batch_examples: int = Field(4, ge=1, description="examples a step")
    context_tokens: int = Field(256, ge=16, description="longest example, tokens; cut beyond")


class DistillationSettings(Settings):
    """Step 5 of a round: the steered large model teaches the small one on public prompts."""

    enabled: bool = Field(True, description="false: rounds end with aggregation")
    epochs: int = Field(1, ge=1, description="passes over the steered answers, a round")
    learning_rate: float = Field(5e-4, gt=0, description="peak learning rate of AdamW")
    batch_examples: int = Field(8, ge=1, description="prompts a step")
    prompts_per_round: int = Field(48, ge=1, description="public prompts answered a round")


class EvaluationSettings(Settings):
    """Step 4: measuring the steered large model."""

    answer_tokens: int = Field(48, ge=1, description="longest generated answer, tokens")
    stop_at_nll: float | None = Field(
        None, gt=0, description="finish when the calibrated steered nll a token is this low"
    )


class BackEndSettings(Settings):
    """What a worker asks for the large model's logits; rounds use llama.cpp in any case."""

    kind: Literal["llama.cpp", "transformers", "vllm", "llama-server", "openai"] = Field(
        "llama.cpp", description="llama.cpp: the GGUF file of the setting 'large', in this process"
    )
    path: Path | None = Field(None, description="transformers: the model's folder")
    device_map: str = Field("cpu", min_length=1, description="transformers: where its layers are")
    url: str | None = Field(None, description="the server's address, such as http://gpu:8000")
    model: str | None = Field(None, min_length=1, description="what the server calls the model")
    tokenizer: Path | None = Field(
        None, description="folder with the server's tokenizer.json, to compare the vocabularies"
    )
    api_key_file: Path | None = Field(None, description="file that holds the server's key")
    top: int = Field(
        20, ge=1, le=4096, description="log-probabilities a row that the server is asked for"
    )
    timeout_s: float = Field(
        10.0, gt=0, le=25, description="wait for the server, repeated attempts included, s"
    )
    drafts: Literal["prompts", "prompt_logprobs"] = Field(
        "prompts",
        description="vllm: score drafts as one prompt a position, which uses its prefix cache, or"
        " by its prompt_logprobs, which reads the whole text again",
    )
    token_prompts: bool = Field(
        False, description="openai: send token ids, which not all such servers take, not text"
    )

    @property
    def is_remote(self) -> bool:
        """Whether a server has the model, which tells a part of each row."""
        return self.kind in _NEEDS_OF_SERVERS

    @model_validator(mode="after")
    def _require_what_it_needs(self) -> Self:
        if faults := list(self._faults()):
            raise ValueError("; ".join(faults))
        return self

    def _faults(self) -> Iterator[str]:
        needs = _NEEDS_OF_SERVERS.get(self.kind, ("path",) if self.kind == "transformers" else ())
        for name in needs:
            if getattr(self, name) is None:
                yield f"kind = {self.kind!r} needs {name}"
        allowed = {"kind", "timeout_s", *needs, *_ALLOWED.get(self.kind, ())}
        for name in sorted(self.model_fields_set - allowed):
            if getattr(self, name) != type(self).model_fields[name].default:
                yield f"{name} does nothing with kind = {self.kind!r}"
        if self.kind == "openai" and self.top > _OPENAI_MOST:
            yield f"top = {self.top}: kind = 'openai' tells {_OPENAI_MOST} at most"
        if self.url is not None and (fault := _fault_of_url(self.url)):
            yield fault


_NEEDS_OF_SERVERS: Final = {
    "vllm": ("url", "model"),
    "llama-server": ("url",),
    "openai": ("url", "model"),
}
_OF_SERVERS: Final = ("url", "api_key_file", "top", "tokenizer")
_ALLOWED: Final = {
    "transformers": ("device_map",),
    "vllm": (*_OF_SERVERS, "drafts"),
    "llama-server": (*_OF_SERVERS, "model"),
    "openai": (*_OF_SERVERS, "token_prompts"),
}
_OPENAI_MOST: Final = 20


def _fault_of_url(url: str) -> str | None:
    parts = urlsplit(url)
    if parts.username or parts.password:
        return "url: no user name or password in it; put the key into a file, api_key_file"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"url = {url!r}: an address such as http://gpu:8000 was expected"
    return None


class WorkerSettings(Settings):
    """The processes that answer logit requests with the large model."""

    sessions: int = Field(8, ge=1, le=64, description="conversations kept at a time")
    sessions_per_device: int = Field(
        4, ge=1, le=64, description="conversations of one device kept at a time"
    )
    context_tokens: int = Field(4096, ge=64, description="tokens kept, all conversations together")
    steers_answers: bool = Field(
        True,
        description="steer whole answers for devices with the federation's adapter, which then get"
        " tokens instead of logits; takes the small model too, and whole rows of the large one's",
    )
    largest_logits: int = Field(1024, ge=1, description="logits a row for a device, at most")
    candidate_logits: int = Field(
        1024, ge=0, description="logits a row of a device's own candidates, at most"
    )
    whole_rows: bool = Field(
        True, description="give whole rows where few logits leave a doubt; false: never"
    )
    rows_per_s: float = Field(200.0, gt=0, description="rows a device, in the long run, 1/s")
    burst_rows: float = Field(2000.0, ge=64, description="rows a device at once")
    waiting: int = Field(256, ge=1, description="requests that wait, of all devices")
    waiting_per_device: int = Field(4, ge=1, description="requests that wait, of one device")
    processes: int = Field(
        1, ge=0, le=16, description="workers that the coordinator starts; 0: they run elsewhere"
    )
    name: Name | None = Field(
        None, description="its MQTT client id; unset: by chance, or its certificate's common name"
    )
    certificate_file: Path | None = Field(None, description="the worker's own certificate, for TLS")
    key_file: Path | None = Field(None, description="the worker's certificate's key, for TLS")
    large: BackEndSettings = Field(
        BackEndSettings(), description="where the large model's logits come from"
    )

    @model_validator(mode="after")
    def _require_partners(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together: set both or none")
        if self.processes > 1 and (self.name or self.certificate_file):
            raise ValueError(
                f"processes = {self.processes} workers cannot share one name or certificate: set"
                " processes = 0 and start each with 'fedpt coordinator worker --name …'"
            )
        return self


class MetricsSettings(Settings):
    """Figures for Prometheus, over HTTP."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen at")
    port: int | None = Field(None, ge=1, le=65_535, description="TCP port; unset: no metrics")


class CoordinatorSettings(Settings):
    """Everything of `fedpt coordinator run`."""

    federation: Name = Field("home", description="name of the federation")
    state_dir: Path = Field(description="folder for journal, adapters and jobs")
    small: Path = Field(description="the small model, a GGUF file: the very one the devices have")
    large: Path = Field(
        description="the large model, a GGUF file with the same vocabulary; rounds need it whatever"
        " the workers use"
    )
    evaluation: Path = Field(description="examples that no device has, JSONL")
    public: Path = Field(description="public prompts for distillation, JSONL")
    embedded_broker: bool = Field(
        True, description="start an MQTT broker at broker.host and broker.port"
    )
    broker: BrokerSettings = BrokerSettings()
    rounds: int = Field(3, ge=1, description="rounds at most")
    min_devices: int = Field(1, ge=1, description="devices that must be online to start a round")
    devices_per_round: int | None = Field(
        None, ge=1, description="devices selected by chance for each round; unset: all"
    )
    round_deadline_s: float = Field(
        3600.0, gt=0, description="a round goes on with the updates that came by then, s"
    )
    most_examples: int = Field(
        10_000, ge=1, description="examples that one device's update may weigh as, at most"
    )
    threads: int | None = Field(None, ge=1, description="threads for models; unset: all cores")
    adapter: AdapterSettings = AdapterSettings()
    training: TrainingSettings = TrainingSettings()
    distillation: DistillationSettings = DistillationSettings()
    evaluating: EvaluationSettings = EvaluationSettings()
    worker: WorkerSettings = WorkerSettings()
    metrics: MetricsSettings = MetricsSettings()
    releases: Path | None = Field(
        None, description="folder of signed releases to announce; unset: none"
    )
    trust_file: Path | None = Field(
        None, description="public keys that may sign releases, trust.json"
    )
    removed: Path | None = Field(
        None, description="names of devices that are out, kept by the enrolment service"
    )
    adapter_key_file: Path | None = Field(
        None, description="key that signs each round's adapter, PEM; unset: they are not signed"
    )
    adapter_valid_days: float = Field(
        30.0, gt=0, description="how long such a signature is good; renewed at half of that"
    )
    connect_timeout_s: float = Field(30.0, gt=0, description="wait for the broker at the start, s")

    @model_validator(mode="after")
    def _require_identities(self) -> Self:
        """The broker knows a connection by its certificate: two of one throw each other off."""
        worker = self.worker
        if worker.certificate_file and self.broker.ca_file is None:
            raise ValueError("worker.certificate_file does nothing without broker.ca_file")
        if self.broker.certificate_file and worker.processes and not worker.certificate_file:
            raise ValueError(
                "the logit worker needs a certificate of its own, or the broker throws it and the"
                " coordinator off by turns: set worker.certificate_file and worker.key_file, or"
                " worker.processes = 0 and run 'fedpt coordinator worker'"
            )
        return self

    @model_validator(mode="after")
    def _require_trust(self) -> Self:
        if self.releases is not None and self.trust_file is None:
            raise ValueError("releases are announced only with a trust_file to check them by")
        return self
