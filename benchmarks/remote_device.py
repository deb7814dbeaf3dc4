"""A device of a benchmark: fedpt's own drivers and decode loop, without daemon and text."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.served import FEDERATION, adapter_id
from benchmarks.subject import Subject
from edge_runtime.drivers.worker_desk import WorkerDesk
from edge_runtime.settings import AssistantSettings, DeviceSettings
from edge_runtime.steering import AnswerPlan, LargeAccess, Traffic, WorkerSteerer
from fedpt.decoding.answer import Fallback, Patience, Token, decode
from fedpt.decoding.draft_and_verify import DraftAndVerify, Settings, Tally
from fedpt.decoding.drafting import Drafter, Rules
from fedpt.decoding.pace import Pace
from fedpt.decoding.ports import RowsWanted
from fedpt.decoding.sampling import GREEDY, Sampling
from fedpt.drivers.llama import CachedText, LlamaContext, LlamaModel
from fedpt.drivers.mqtt import MqttLink, Publication
from fedpt.ids import DeviceId
from fedpt.settings import BrokerSettings
from fedpt.wire.messages import CoordinatorStatus
from fedpt.wire.topics import Topics

_START_S: Final = 60.0
_PATIENCE_S: Final = 120.0
"""Nothing is answered by the expert alone, however slow the line is."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to be steered over the network."""

    name: str
    at_worker: bool = False
    """The worker steers and sends tokens."""
    most_rows: int = 16
    whole_rows: bool = False
    precision: str = "f16"
    sampling: Sampling = GREEDY


@dataclass(frozen=True, slots=True)
class RemoteAnswer:
    """An answer and what it took."""

    tokens: list[int]
    seconds: float
    traffic: Traffic
    tally: Tally
    fallback: str = ""

    @property
    def per_s(self) -> float:
        """Tokens a second, of the whole answer."""
        return len(self.tokens) / self.seconds


class SmallTexts:
    """Expert and antiexpert of one process; one device at a time uses them."""

    def __init__(self, model: LlamaModel, expert: LlamaContext, antiexpert: LlamaContext) -> None:
        self.model = model
        self.expert = CachedText(expert)
        self.antiexpert = CachedText(antiexpert)

    def read(self, prompt: list[int]) -> None:
        """Hold a prompt but for its last token."""
        for text in (self.expert, self.antiexpert):
            text.begin([])
            text.append(prompt[:-1], 0)

    def clear(self) -> None:
        """Forget all texts."""
        self.expert.rewind(0)
        self.antiexpert.rewind(0)


@contextmanager
def small_texts(model: LlamaModel, subject: Subject) -> Iterator[SmallTexts]:
    """Contexts over the small model while the block runs."""
    size, threads = subject.context_tokens, subject.threads
    with (
        LlamaContext(model, tokens=size, threads=threads, adapter=subject.adapter) as expert,
        LlamaContext(model, tokens=size, threads=threads) as antiexpert,
    ):
        yield SmallTexts(model, expert, antiexpert)


class RemoteDevice:
    """One connection, one conversation with the large model."""

    def __init__(
        self, texts: SmallTexts, subject: Subject, way: Way, *, access: LargeAccess
    ) -> None:
        self._texts = texts
        self._subject = subject
        self._way = way
        self._access = access
        self._pace = Pace(most_rows=way.most_rows)

    def answer(self, prompt: list[int], *, is_read: bool = False) -> RemoteAnswer:
        """Answer after a prompt; `is_read`: all models have read it before the clock starts."""
        self._texts.clear()
        if is_read:
            self._read(prompt)
        rules = Rules(self._texts.model.is_end, self._subject.tokens, self._way.sampling)
        before, began = self._access.traffic.copy(), time.monotonic()
        steerer = self._steerer(rules, len(prompt))
        steps = list(
            decode(
                prompt,
                expert=self._texts.expert,
                steerer=steerer,
                rules=rules,
                patience=Patience(time.monotonic, _PATIENCE_S),
            )
        )
        seconds = time.monotonic() - began
        fallbacks = [step.reason for step in steps if isinstance(step, Fallback)]
        return RemoteAnswer(
            [step.id for step in steps if isinstance(step, Token)],
            seconds,
            self._access.traffic.since(before),
            steerer.tally,
            fallbacks[0] if fallbacks else "",
        )

    def await_worker(self, prompt: list[int]) -> None:
        """Ask until nothing is refused: the worker may still be loading its adapter."""
        end = time.monotonic() + _START_S
        while (answer := self.answer(prompt)).fallback:
            if time.monotonic() > end:
                raise SystemExit(f"{self._way.name}: {answer.fallback}")
            time.sleep(0.2)

    def _read(self, prompt: list[int]) -> None:
        """As after a conversation's earlier turn: only the answer's own tokens are left to do."""
        if self._way.at_worker:
            rules = Rules(self._texts.model.is_end, 1)
            drafter = Drafter(prompt, self._texts.expert, rules)
            list(self._steerer(rules, len(prompt)).next_tokens(drafter, 1))
        else:
            self._access.large.ask(RowsWanted(prompt, 1, [np.zeros(0, np.int64)], "few"))
            self._access.large.fetch()
        self._texts.read(prompt)

    def _steerer(self, rules: Rules, prompt_tokens: int) -> WorkerSteerer:
        way, coefficients = self._way, self._subject.coefficients
        if way.at_worker:
            assert self._access.at_worker is not None  # a desk has it
            name = adapter_id(self._subject)
            return self._access.at_worker(AnswerPlan(name, coefficients, rules))
        settings = Settings(
            coefficients,
            first_detail="all" if way.whole_rows else "few",
            most_rows=way.most_rows,
        )
        return DraftAndVerify(
            self._texts.antiexpert,
            self._access.large,
            settings,
            clock=time.monotonic,
            pace=self._pace,
        )


@contextmanager
def remote_device(
    texts: SmallTexts, subject: Subject, way: Way, *, broker: BrokerSettings
) -> Iterator[RemoteDevice]:
    """A connected device while the block runs."""
    topics, device = Topics(FEDERATION), DeviceId(re.sub(r"\W+", "-", way.name))
    settings = DeviceSettings(
        name=device,
        small=subject.small,
        state_dir=Path("unused"),
        broker=broker,
        assistant=AssistantSettings.model_validate(
            {
                "large_deadline_s": _PATIENCE_S,
                "large_retry_s": _PATIENCE_S,
                "logit_precision": way.precision,
            }
        ),
    )

    def publish(publication: Publication) -> bool:
        return link.publish_now(publication)  # made below, for it wants the desk

    desk = WorkerDesk(settings, topics, texts.model.vocabulary, publish=publish)
    link = MqttLink(broker, device, on_message=desk.hear)
    desk.hear_coordinator(
        CoordinatorStatus(online=True, session=1, vocabulary=texts.model.vocabulary.sha256)
    )
    link.subscribe(topics.inbox(device, "logits"), qos=0)
    link.start(timeout_s=_START_S)
    try:
        yield RemoteDevice(texts, subject, way, access=desk.access)
    finally:
        link.stop()
