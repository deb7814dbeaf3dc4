"""Real worker processes and a real broker: workers die, the coordinator goes, boards come together.

The undisturbed answer is the measure: whatever happens, the text is the same, or goes on unbroken.
"""

import itertools
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.drivers.worker_desk import WorkerDesk
from edge_runtime.settings import AssistantSettings, DeviceSettings
from edge_runtime.steering import AnswerPlan
from fedpt.blobs import BlobStore
from fedpt.decoding.answer import Fallback, Patience, Returned, Step, Token, decode
from fedpt.decoding.draft_and_verify import DraftAndVerify, Settings
from fedpt.decoding.drafting import Rules
from fedpt.decoding.sampling import GREEDY, Sampling
from fedpt.drivers.llama import CachedText, LlamaContext, LlamaModel
from fedpt.drivers.mqtt import MqttLink, Publication, Received
from fedpt.ids import DeviceId, FederationId
from fedpt.proxy_tuning import PLAIN
from fedpt.settings import BrokerSettings
from fedpt.wire.codec import encode
from fedpt.wire.messages import CoordinatorStatus
from fedpt.wire.topics import Topics
from tests.fakes.brokers import running_mosquitto
from tests.fakes.tiny_federation import TinyFederation
from tests.fakes.wire_messages import announcement, ref
from tests.integration.running_processes import RunningProcesses

pytestmark = [pytest.mark.broker, pytest.mark.llama, pytest.mark.slow]

TOPICS = Topics(FederationId("home"))
PROMPT = [1, 70, 80, 90, 100, 110, 33]
SAMPLED = Sampling(temperature=1.0, seed=5)


@dataclass
class Fleet:
    """A broker, a coordinator's retained messages, and workers that can be killed."""

    tiny: TinyFederation
    folder: Path
    broker: BrokerSettings
    running: RunningProcesses = field(init=False)
    starts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.running = RunningProcesses(self.folder)
        blob = self.tiny.adapter_blob.read_bytes()
        BlobStore(self.folder / "coordinator" / "blobs").put(blob)
        self.link = MqttLink(self.broker, "coordinator", on_message=lambda _message: None)
        self.link.start(timeout_s=20)
        message = encode(announcement(adapter=ref(blob)))
        self.link.publish(Publication(TOPICS.round, message, retain=True))
        self.adapter = ref(blob).sha256

    def start(self, name: str) -> None:
        self.starts[name] += 1
        config = self.folder / f"{name}.toml"
        tiny = self.tiny
        config.write_text(
            f'small = "{tiny.small}"\nlarge = "{tiny.large}"\nevaluation = "{tiny.data}"\n'
            f'public = "{tiny.data}"\nstate_dir = "coordinator"\nthreads = 1\n'
            f"embedded_broker = false\n[broker]\nport = {self.broker.port}\n"
            "[worker]\ncontext_tokens = 1024\nrows_per_s = 100000\nburst_rows = 100000\n"
        )
        command = [sys.executable, "-m", "fedpt.cli", "coordinator", "worker", "--config", config]
        self.running.start(name, [*command, "--name", name])

    def wait_for(self, name: str) -> None:
        self.running.wait_until(
            lambda: (
                '"answers are steered"' in self.running.log(name)
                or "answers are steered" in self.running.log(name)
            ),
            f"{name} has the adapter",
            told_by=name,
        )

    def kill(self, name: str) -> None:
        process = self.running.by_name.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        self.link.stop()
        self.running.end()


@pytest.fixture(scope="module")
def fleet(tiny: TinyFederation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_mosquitto() as broker:
        one = Fleet(tiny, tmp_path_factory.mktemp("fleet"), broker)
        for name in ("worker-1", "worker-2"):
            one.start(name)
        for name in ("worker-1", "worker-2"):
            one.wait_for(name)
        yield one
        one.close()


class Board:
    """A device's way to the workers over MQTT, and its small models."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._fleet = fleet
        self._stack = ExitStack()
        self.model = self._stack.enter_context(LlamaModel(fleet.tiny.small))
        settings = DeviceSettings(
            name=name,
            small=fleet.tiny.small,
            state_dir=fleet.folder,
            assistant=AssistantSettings(large_deadline_s=30.0, large_retry_s=1.0),
        )
        self.heard_of: list[str] = []
        self.link = MqttLink(fleet.broker, name, on_message=self._hear)
        self.link.subscribe(TOPICS.inbox(DeviceId(name), "logits"), qos=0)
        self.desk = WorkerDesk(
            settings, TOPICS, self.model.vocabulary, publish=self.link.publish_now
        )
        self.set_coordinator("online")
        self.link.start(timeout_s=20)
        self._texts = [
            CachedText(
                self._stack.enter_context(
                    LlamaContext(self.model, tokens=1024, threads=1, adapter=adapter)
                )
            )
            for adapter in (fleet.tiny.adapter_gguf, None)
        ]

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        self.link.stop()
        self._stack.close()

    def set_coordinator(self, state: str) -> None:
        online, vocabulary = state == "online", self.model.vocabulary.sha256
        self.desk.hear_coordinator(
            CoordinatorStatus(online=online, session=1, vocabulary=vocabulary)
        )

    def steps(self, where: str, most: int, sampling: Sampling = GREEDY) -> Iterator[Step]:
        rules = Rules(lambda _token: False, most, sampling)
        expert, antiexpert = self._texts
        access = self.desk.access
        assert access.at_worker is not None
        plan = AnswerPlan(self._fleet.adapter, PLAIN, rules)
        steerer: Any = (
            access.at_worker(plan)
            if where == "tokens"
            else DraftAndVerify(
                antiexpert, access.large, Settings(PLAIN, most_rows=8), clock=time.monotonic
            )
        )
        return decode(
            PROMPT,
            expert=expert,
            steerer=steerer,
            rules=rules,
            patience=Patience(time.monotonic, 300.0),
        )

    def answer(
        self,
        where: str,
        most: int = 60,
        sampling: Sampling = GREEDY,
        *,
        after: int = -1,
        then: Callable[[], None] = lambda: None,
    ) -> list[int]:
        """The tokens, all steered; `then` happens after so many."""
        tokens: list[int] = []
        for step in self.steps(where, most, sampling):
            assert isinstance(step, Token), step
            assert step.is_steered
            tokens.append(step.id)
            if len(tokens) == after:
                then()
        return tokens

    def _hear(self, message: Received) -> None:
        self.desk.hear(message)


@pytest.fixture
def board(fleet: Fleet) -> Iterator[Board]:
    with Board(fleet, "kitchen") as one:
        yield one


def worker_of(board: Board, where: str) -> str:
    """Which worker holds the conversation."""
    conversation = board.desk._answers if where == "tokens" else board.desk._rows
    return conversation.line.worker


@pytest.mark.parametrize(("where", "sampling"), [("logits", GREEDY), ("tokens", SAMPLED)])
def test_a_worker_killed_in_mid_answer_changes_nothing(
    fleet: Fleet, board: Board, where: str, sampling: Sampling
) -> None:
    undisturbed = board.answer(where, sampling=sampling)
    killed: list[str] = []

    def kill() -> None:
        killed.append(worker_of(board, where))
        fleet.kill(killed[0])

    try:
        # in tokens mode the whole answer may be here already: the next stretch is another's
        most = 200 if where == "tokens" else 60
        disturbed = board.answer(where, most, sampling, after=20, then=kill)
        assert disturbed[:60] == undisturbed
        assert worker_of(board, where) != killed[0]
    finally:
        fleet.start(killed[0])
        fleet.wait_for(killed[0])


def test_both_ways_and_two_boards_at_once_give_the_same_answer(fleet: Fleet, board: Board) -> None:
    undisturbed = board.answer("logits")
    results: dict[str, list[int]] = {}
    with Board(fleet, "garage") as other:

        def ask(one: Board, where: str) -> None:
            results[where] = one.answer(where)

        threads = [
            threading.Thread(target=ask, args=pair)
            for pair in ((board, "tokens"), (other, "logits"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
    assert results == {"tokens": undisturbed, "logits": undisturbed}


@pytest.mark.parametrize("where", ["logits", "tokens"])
def test_without_the_coordinator_the_expert_goes_on_until_it_is_back(
    board: Board, where: str
) -> None:
    most = 10_000
    steps = board.steps(where, most)
    seen: list[Step] = list(itertools.islice(steps, 10))
    board.set_coordinator("offline")
    for step in steps:
        seen.append(step)
        time.sleep(0.003)  # so tiny an expert would fill its context before it is asked again
        if isinstance(step, Fallback):
            board.set_coordinator("online")
        if isinstance(step, Returned):
            break
        assert len(seen) < 900, "the context would be full"
    seen += itertools.islice(steps, 10)
    steered = [step.is_steered for step in seen if isinstance(step, Token)]
    assert steered[:10] == steered[-10:] == [True] * 10
    assert not all(steered)
    assert sum(isinstance(step, Fallback) for step in seen) == 1
