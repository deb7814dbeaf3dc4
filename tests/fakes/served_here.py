"""A worker's whole way with messages, and boards that ask it, in one process; only MQTT is missing.

Everything is real: models, batches, sessions, codec, both ends' drivers. A test may drop messages.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator.settings import CoordinatorSettings
from coordinator.worker.serving import Serving
from edge_runtime.drivers.worker_desk import WorkerDesk
from edge_runtime.settings import AssistantSettings, DeviceSettings
from edge_runtime.steering import AnswerPlan
from fedpt.blobs import BlobStore
from fedpt.decoding.answer import Patience, Step, Token, decode
from fedpt.decoding.draft_and_verify import DraftAndVerify, Settings
from fedpt.decoding.drafting import Rules
from fedpt.decoding.sampling import GREEDY, Sampling
from fedpt.drivers.llama import CachedText, LlamaContext, LlamaModel
from fedpt.drivers.mqtt import Publication, Received
from fedpt.ids import FederationId
from fedpt.proxy_tuning import PLAIN, Coefficients
from fedpt.settings import BrokerSettings
from fedpt.wire.codec import decode_worker_reply, encode
from fedpt.wire.messages import (
    AnswerReply,
    AnswerRequest,
    CoordinatorStatus,
    LogitReply,
    LogitRequest,
)
from fedpt.wire.topics import ToDevice, Topics, parse
from tests.fakes.tiny_federation import TinyFederation
from tests.fakes.wire_messages import announcement, ref

TOPICS = Topics(FederationId("home"))
CONTEXT_TOKENS = 512
WAIT_S = 60.0


def worker_settings(tiny: TinyFederation, folder: Path, **worker: Any) -> CoordinatorSettings:
    """A coordinator's, as a worker reads them."""
    return CoordinatorSettings.model_validate(
        {
            "state_dir": folder,
            "small": tiny.small,
            "large": tiny.large,
            "evaluation": tiny.data,
            "public": tiny.data,
            "threads": 1,
            "worker": {"context_tokens": CONTEXT_TOKENS, **worker},
        }
    )


@dataclass
class ServedHere:
    """A worker named `name`; `turn` it, or let a thread do so while a block runs."""

    tiny: TinyFederation
    folder: Path
    name: str = "worker-1"
    worker: dict[str, Any] = field(default_factory=dict)
    on_reply: dict[str, Callable[[Received], None]] = field(default_factory=dict)
    replies: "queue.Queue[LogitReply | AnswerReply]" = field(default_factory=queue.Queue)
    """To devices without an `on_reply`."""

    def __post_init__(self) -> None:
        settings = worker_settings(self.tiny, self.folder, **self.worker)
        self.serving = Serving(
            self.name, settings, TOPICS, publish=self._published, folder=self.folder / self.name
        )
        self._is_ending = False
        self.announce(self.tiny.adapter_blob.read_bytes())
        while self.serving.steers_answers and self.serving._models.adapter != self.adapter:
            self.serving.turn(0.0)

    def announce(self, blob: bytes) -> None:
        """The federation has this adapter now."""
        BlobStore(self.folder / "blobs").put(blob)
        message = encode(announcement(adapter=ref(blob)))
        self.serving.receive(Received(TOPICS.round, message))
        self.adapter = ref(blob).sha256

    def receive(self, device: str, payload: bytes) -> None:
        """Something comes on a device's topic."""
        self.serving.receive(Received(TOPICS.device(device, "logits"), payload))

    def ask(
        self, request: LogitRequest | AnswerRequest, device: str = "board-1"
    ) -> LogitReply | AnswerReply:
        """The next reply to anybody; for tests that turn the worker themselves."""
        self.receive(device, encode(request))
        return self.next_reply()

    def next_reply(self) -> LogitReply | AnswerReply:
        while self.replies.empty():
            self.serving.turn(0.05)
        return self.replies.get_nowait()

    @contextmanager
    def running(self) -> Iterator["ServedHere"]:
        """It turns by itself."""
        self._is_ending = False
        thread = threading.Thread(target=self._turn_on, name="worker")
        thread.start()
        try:
            yield self
        finally:
            self._is_ending = True
            thread.join(WAIT_S)

    def close(self) -> None:
        assert self.serving.end(), "a thread of an answer is still there"
        self.serving.close()

    def _turn_on(self) -> None:
        while not self._is_ending:
            self.serving.turn(0.05)

    def _published(self, publication: Publication) -> None:
        topic = parse(publication.topic)
        assert isinstance(topic, ToDevice)
        if topic.device in self.on_reply:
            self.on_reply[topic.device](Received(publication.topic, publication.payload))
        else:
            self.replies.put(decode_worker_reply(publication.payload))


class Board:
    """A device: its small models, and the real way to the worker."""

    def __init__(self, served: ServedHere, name: str = "board-1", **assistant: Any) -> None:
        self._stack = ExitStack()
        tiny = served.tiny
        self._served = served
        self.name = name
        self.model = self._stack.enter_context(LlamaModel(tiny.small))
        self.settings = DeviceSettings(
            name=name,
            small=tiny.small,
            data=tiny.store,
            state_dir=tiny.folder,
            broker=BrokerSettings(),
            assistant=AssistantSettings(**assistant),
        )
        self.drops: Callable[[str, bytes], bool] = lambda _topic, _payload: False
        """Whether a message, either way, is lost."""
        self.desk = WorkerDesk(self.settings, TOPICS, self.model.vocabulary, publish=self._publish)
        self.set_online(True)
        served.on_reply[name] = self._hear
        self._texts = [
            CachedText(
                self._stack.enter_context(
                    LlamaContext(self.model, tokens=CONTEXT_TOKENS, threads=1, adapter=adapter)
                )
            )
            for adapter in (tiny.adapter_gguf, None)
        ]

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def set_online(self, is_online: bool) -> None:  # a setter
        status = CoordinatorStatus(
            online=is_online, session=1, vocabulary=self.model.vocabulary.sha256
        )
        self.desk.hear_coordinator(status)

    def steps(
        self,
        prompt: Sequence[int],
        where: str,
        *,
        most: int = 24,
        sampling: Sampling = GREEDY,
        coefficients: Coefficients = PLAIN,
    ) -> Iterator[Step]:
        """An answer, where the work is done in one of the two places."""
        rules = Rules(self.model.is_end, most, sampling)
        expert, antiexpert = self._texts
        access = self.desk.access
        if where == "tokens":
            assert access.at_worker is not None
            plan = AnswerPlan(self._served.adapter, coefficients, rules)
            steerer: Any = access.at_worker(plan)
        else:
            settings = Settings(coefficients, tolerance=0.0)
            steerer = DraftAndVerify(antiexpert, access.large, settings, clock=time.monotonic)
        return decode(
            prompt,
            expert=expert,
            steerer=steerer,
            rules=rules,
            patience=Patience(time.monotonic, 300.0),
        )

    def answer(self, prompt: Sequence[int], where: str, **how: Any) -> list[int]:
        """Its tokens; each of them steered."""
        steps = list(self.steps(prompt, where, **how))
        assert all(isinstance(step, Token) and step.is_steered for step in steps), steps
        return [step.id for step in steps if isinstance(step, Token)]

    def _publish(self, publication: Publication) -> bool:
        if not self.drops(publication.topic, publication.payload):
            self._served.serving.receive(Received(publication.topic, publication.payload))
        return True

    def _hear(self, message: Received) -> None:
        if not self.drops(message.topic, message.payload):
            self.desk.hear(message)
