"""Messages of the logit protocol, damaged at random, against the real ends of it.

What is wrong comes out as any exception but a FedptError, as a worker that no longer answers, or as
memory that grows.
"""

import itertools
import logging
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_runtime.drivers.worker_desk import WorkerDesk
from edge_runtime.settings import AssistantSettings, DeviceSettings
from edge_runtime.steering import AnswerPlan
from fedpt.decoding.answer import Fallback, Patience, Returned, Token, decode
from fedpt.decoding.draft_and_verify import DraftAndVerify, Settings
from fedpt.decoding.drafting import Rules
from fedpt.decoding.sampling import Sampling
from fedpt.drivers.mqtt import Publication, Received
from fedpt.errors import FedptError
from fedpt.proxy_tuning import PLAIN
from fedpt.vocabulary import Vocabulary
from fedpt.wire.codec import decode_worker_request, encode
from fedpt.wire.logit_format import rows_to_bytes
from fedpt.wire.messages import (
    AnswerReply,
    AnswerRequest,
    CoordinatorStatus,
    LogitReply,
    LogitRequest,
    Message,
    Opening,
    SteeringCoefficients,
)
from fedpt.wire.token_format import id_sets_from_bytes, id_sets_to_bytes, tokens_to_bytes
from tests.fakes.scripted_models import END, VOCABULARY, ScriptedModel, ScriptedText
from tests.fakes.served_here import TOPICS, ServedHere

_DEVICES = 5
_SESSIONS = 4
_ODD = (0, 1, 2, 3, 64, 65, 255, 2**16, 2**24, 2**31, 2**32, 2**53, 2**63, 2**64 - 1, -1, -(2**63))


class Mutator:
    """Damages messages: their bytes, or single fields of them."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def damaged(self, message: Message) -> bytes:
        """Mostly still a message: whatever is no MessagePack is refused at once."""
        dice = self.dice
        match dice.randrange(10):
            case 0:
                return encode(message)
            case 1 | 2 | 3 | 4:
                return self._with_odd_field(message)
            case 5 | 6 | 7:
                return self._with_odd_bytes(encode(message))
            case 8:
                content = encode(message)
                return content[: dice.randrange(len(content))]
            case _:
                return dice.randbytes(dice.randrange(60))

    def _with_odd_bytes(self, content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(self.dice.randint(1, 4)):
            changed[self.dice.randrange(len(changed))] = self.dice.randrange(256)
        return bytes(changed)

    def _with_odd_field(self, message: Message) -> bytes:
        fields = list(msgspec.to_builtins(message, builtin_types=(bytes,)))
        for _ in range(self.dice.randint(1, 2)):
            place = self.dice.randrange(1, len(fields))
            fields[place] = self._odd(fields[place])
        return msgspec.msgpack.encode(fields)

    def _odd(self, value: Any) -> Any:
        dice = self.dice
        if isinstance(value, bytes) and value and dice.random() < 0.8:
            return dice.choice([self._with_odd_bytes(value), value[:-1], value + b"\0", value * 3])
        if isinstance(value, int) and dice.random() < 0.8:
            near = value + dice.randint(-3, 3)
            return max(-(2**63), min(2**64 - 1, dice.choice([*_ODD, near])))
        if isinstance(value, str) and value and dice.random() < 0.8:
            place = dice.randrange(len(value))
            return value[:place] + chr(dice.randrange(1, 300)) + value[place + 1 :]
        if isinstance(value, dict) and value and dice.random() < 0.8:
            key = dice.choice(list(value))
            return {**value, key: dice.choice([*_ODD, 0.5, 1e300, float("nan"), float("inf")])}
        return dice.choice([None, [], {}, "", b"", 0, -1, 1.5, True, "x" * 300, bytes(2000)])


def fuzz_requests(served: ServedHere, count: int, *, seed: int) -> Counter[str]:
    """Damaged requests to a worker; what became of them, by the codes of its replies.

    Raises:
        Exception: Whatever the worker did not catch.
    """
    mutator, codes = Mutator(seed), Counter[str]()
    dice = mutator.dice
    for _ in range(count):
        served.receive(
            f"board-{dice.randrange(_DEVICES)}", mutator.damaged(_any_request(served, dice))
        )
        if dice.random() < 0.8:
            served.serving.turn(0.0)
        _count(served, codes)
    while served.serving._answers._threads or served.serving._inbox:
        served.serving.turn(0.01)
    _count(served, codes)
    codes["not even read"] = count - sum(codes.values())
    return codes


def _count(served: ServedHere, codes: Counter[str]) -> None:
    while not served.replies.empty():
        reply = served.replies.get_nowait()
        if isinstance(reply, LogitReply) or reply.is_last:
            codes[reply.code or "answered"] += 1


def _any_request(served: ServedHere, dice: random.Random) -> LogitRequest | AnswerRequest:
    size = dice.choice([1, 2, 5, 20, 100])
    tokens = [dice.randrange(384) for _ in range(size)]
    session = bytes([dice.randrange(_SESSIONS)]) * 8
    position = dice.choice([0, 0, dice.randrange(30)])
    opening = Opening() if dice.random() < 0.2 else None
    if dice.random() < 0.6:
        rows = dice.randint(1, min(size, 8))
        candidates = [np.array(sorted(dice.sample(range(384), 4))) for _ in range(rows)]
        return LogitRequest(
            request=dice.randrange(100),
            session=session,
            position=position,
            tokens=tokens_to_bytes(tokens),
            rows=rows,
            largest=dice.choice([0, 1, 16, 384]),
            precision=dice.choice(["f16", "q8", "f32"]),
            candidates=id_sets_to_bytes(candidates),
            opening=opening,
        )
    return AnswerRequest(
        request=dice.randrange(100),
        session=session,
        position=position,
        tokens=tokens_to_bytes(tokens),
        most=dice.randint(1, 12),
        adapter=served.adapter,
        coefficients=SteeringCoefficients(gamma=dice.choice([0.0, 1.0])),
        sampling=Sampling(
            temperature=dice.choice([0.0, 1.0]), top_p=0.9, top_k=dice.choice([0, 5])
        ),
        opening=opening,
    )


class FuzzedWorkers:
    """Workers that damage their replies; behind them one that answers well."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self._mutator = Mutator(seed)
        self._large = ScriptedModel(3)
        vocabulary = Vocabulary("scripted", tuple(map(str, range(VOCABULARY))))
        settings = DeviceSettings(
            name="board-1",
            small=folder / "s",
            state_dir=folder,
            assistant=AssistantSettings(large_deadline_s=0.02, large_retry_s=0.005),
        )
        self.desk = WorkerDesk(settings, TOPICS, vocabulary, publish=self._publish)
        online = CoordinatorStatus(online=True, session=1, vocabulary=vocabulary.sha256)
        self.desk.hear_coordinator(online)
        self.sent = 0

    def answers(self, count: int) -> Counter[str]:
        """Ask until so many damaged replies were heard; how the answers went.

        Raises:
            Exception: Whatever is no FedptError.
        """
        outcomes, numbers = Counter[str](), itertools.count()
        end = self.sent + count
        while self.sent < end:
            outcomes += self._answer(next(numbers))
        return outcomes

    def _answer(self, number: int) -> Counter[str]:
        sampling = Sampling(temperature=1.0, seed=number) if number % 2 else Sampling()
        rules = Rules(lambda token: token == END, 6, sampling)
        prompt = [1 + number % 30, 2, 3]
        access = self.desk.access
        assert access.at_worker is not None
        plan = AnswerPlan("a" * 64, PLAIN, rules)
        antiexpert = ScriptedText(ScriptedModel(2))
        steerer: Any = (
            access.at_worker(plan)
            if number % 3 == 0
            else DraftAndVerify(antiexpert, access.large, Settings(PLAIN, 4), clock=time.monotonic)
        )
        outcomes = Counter[str]()
        expert, patience = ScriptedText(ScriptedModel(1)), Patience(time.monotonic, 60.0)
        try:
            for step in decode(
                prompt, expert=expert, steerer=steerer, rules=rules, patience=patience
            ):
                match step:
                    case Token():
                        assert 0 <= step.id < VOCABULARY
                        outcomes["steered" if step.is_steered else "expert's"] += 1
                    case Fallback():
                        outcomes["fallbacks"] += 1
                    case Returned():
                        outcomes["returns"] += 1
        except FedptError as error:
            outcomes[f"failed: {error.code}"] += 1
        return outcomes

    def _publish(self, publication: Publication) -> bool:
        request = decode_worker_request(publication.payload)
        good = self._good(request)
        for _ in range(self._mutator.dice.randrange(4)):
            self.sent += 1
            damaged = self._mutator.damaged(good)
            self.desk.hear(Received(TOPICS.inbox(self.desk._device, "logits"), damaged))
        self.desk.hear(Received(TOPICS.inbox(self.desk._device, "logits"), encode(good)))
        return True

    def _good(self, request: LogitRequest | AnswerRequest) -> LogitReply | AnswerReply:
        echo: dict[str, Any] = {"request": request.request, "session": request.session}
        if isinstance(request, AnswerRequest):
            tokens = tokens_to_bytes([5] * request.most)
            return AnswerReply(**echo, worker="w1", tokens=tokens, is_last=True)
        rows = np.stack([self._large.row([row]) for row in range(request.rows)])
        candidates = id_sets_from_bytes(
            request.candidates, request.rows, vocabulary_size=VOCABULARY
        )
        content = rows_to_bytes(
            rows, k=request.largest, candidates=candidates, precision=request.precision
        )
        return LogitReply(**echo, worker="w1", busy_us=10, rows=content)


def rss_bytes() -> int:
    """What this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@contextmanager
def quiet_log() -> Iterator[None]:
    """A line for each of 100,000 dropped messages is of no use."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
