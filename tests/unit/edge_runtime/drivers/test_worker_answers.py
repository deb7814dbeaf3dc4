"""Answers that a worker steers, over a wire that the test holds in its hand."""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from edge_runtime.drivers.large_models import Asking
from edge_runtime.drivers.worker_answers import WorkerAnswer, WorkerAnswers
from edge_runtime.steering import AnswerPlan, Traffic
from fedpt.decoding.answer import Fallback, Patience, Returned, Step, Token, decode
from fedpt.decoding.drafting import Drafter, Rules
from fedpt.errors import LargeModelError
from fedpt.proxy_tuning import PLAIN, Logits
from fedpt.wire.messages import AnswerReply, AnswerRequest, LogitRequest
from fedpt.wire.token_format import tokens_from_bytes, tokens_to_bytes

V = 100
END = 99
PROMPT = [1, 2, 3]

Respond = Callable[[AnswerRequest, list[int]], list[AnswerReply]]


def next_token(text: Sequence[int]) -> int:
    """What the steered models say after a text."""
    return (7 * text[-1] + len(text)) % (END - 1)


def true_answer(text: list[int], count: int) -> list[int]:
    text = list(text)
    for _ in range(count):
        text.append(next_token(text))
    return text[len(text) - count :]


class Expert:
    """A `LocalText` that always says 42."""

    def begin(self, _tokens: Sequence[int]) -> int:
        return 0

    def append(self, _tokens: Sequence[int], wanted: int) -> Logits:
        return np.tile(np.float32(np.arange(V) == 42), (wanted, 1))

    def rewind(self, length: int) -> None:
        pass


def reply(
    request: AnswerRequest, tokens: list[int], first: int = 0, *, is_last: bool = True,
    worker: str = "w1", code: str = "",
) -> AnswerReply:  # fmt: skip
    return AnswerReply(
        request=request.request,
        session=request.session,
        worker=worker,
        first=first,
        tokens=tokens_to_bytes(tokens),
        is_last=is_last,
        code=code,
        reason="no" if code else "",
    )


def honest(request: AnswerRequest, text: list[int]) -> list[AnswerReply]:
    """Two tokens a reply."""
    tokens = true_answer(text, request.most)
    return [
        reply(request, tokens[first : first + 2], first, is_last=first + 2 >= len(tokens))
        for first in range(0, len(tokens), 2)
    ]


def silent(_request: AnswerRequest, _text: list[int]) -> list[AnswerReply]:
    return []


class Wire:
    """Workers that hold what was sent to them, and reply as `respond` says."""

    def __init__(self, respond: Respond, *, deadline_s: float = 5.0, retry_s: float = 5.0) -> None:
        self.sent: list[tuple[int, list[int], str, int]] = []
        self.requests: list[AnswerRequest] = []
        self.respond = respond
        self.ahead_s = 0.0
        asking = Asking(V, deadline_s, retry_s)
        self.traffic = Traffic()
        self.answers = WorkerAnswers(self.send, asking, self.traffic, clock=self.clock)
        self.held: list[int] = []

    def clock(self) -> float:
        return time.monotonic() + self.ahead_s

    def send(self, request: AnswerRequest | LogitRequest, worker: str) -> int:
        assert isinstance(request, AnswerRequest)
        tokens = tokens_from_bytes(request.tokens)
        self.sent.append((request.position, tokens, worker, request.most))
        self.requests.append(request)
        if request.most == 0:
            return 100
        self.held = [*self.held[: request.position], *tokens]
        for one in self.respond(request, list(self.held)):
            self.held += tokens_from_bytes(one.tokens[: len(one.tokens) // 3 * 3])
            self.answers.mailbox.put(one)
        return 100

    def steps(self, prompt: Sequence[int] = PROMPT, most: int = 10) -> Iterator[Step]:
        rules = Rules(lambda token: token == END, most)
        plan = AnswerPlan("a" * 64, PLAIN, rules)
        steerer = self.answers.steerer(plan)
        patience = Patience(self.clock, 300.0)
        return decode(prompt, expert=Expert(), steerer=steerer, rules=rules, patience=patience)

    def answer(self, prompt: Sequence[int] = PROMPT, most: int = 10) -> list[int]:
        """All tokens; each of them steered."""
        steps = list(self.steps(prompt, most))
        assert all(isinstance(step, Token) and step.is_steered for step in steps), steps
        return tokens_of(steps)


def tokens_of(steps: list[Step]) -> list[int]:
    return [step.id for step in steps if isinstance(step, Token)]


def reason_of(steps: list[Step]) -> str:
    (reason,) = (step.reason for step in steps if isinstance(step, Fallback))
    return reason


def test_an_answer_is_what_the_worker_says() -> None:
    wire = Wire(honest)
    assert wire.answer() == true_answer(PROMPT, 10)
    assert wire.sent == [(0, PROMPT, "", 10)]
    assert wire.traffic == Traffic(bytes_up=100, tokens_sent=3)


def test_a_long_answer_comes_in_stretches_and_only_new_tokens_travel() -> None:
    wire = Wire(honest)
    answer = wire.answer(most=200)
    assert answer == true_answer(PROMPT, 200)
    assert wire.sent[1:] == [(130, answer[127:128], "w1", 72)]


def test_the_next_question_goes_on_with_what_the_worker_holds() -> None:
    wire = Wire(honest)
    text = [*PROMPT, *wire.answer(), 50, 51]
    assert wire.answer(text) == true_answer(text, 10)
    assert wire.sent[1] == (13, [50, 51], "w1", 10)


def test_an_answer_that_was_left_in_the_middle_can_be_gone_on_from() -> None:
    wire = Wire(honest)
    steps = wire.steps()
    text = [*PROMPT, *tokens_of([next(steps), next(steps), next(steps)])]
    steps.close()  # type: ignore[attr-defined]  # a generator
    text = [*text[:-1], 60]
    assert wire.answer(text) == true_answer(text, 10)
    assert wire.sent[2] == (5, [60], "w1", 10)


def test_a_worker_is_told_when_somebody_hangs_up_and_not_when_the_answer_ends() -> None:
    wire = Wire(honest)
    steps = wire.steps()
    next(steps)
    steps.close()  # type: ignore[attr-defined]  # a generator
    assert wire.sent[1:] == [(0, [], "w1", 0)]
    wire.answer()
    assert [one.most for one in wire.requests] == [10, 0, 10]


def test_nothing_is_sent_to_stop_a_worker_that_is_not_known() -> None:
    wire = Wire(silent, deadline_s=0.02, retry_s=0.01)
    steps = wire.steps(most=3)
    next(steps)
    steps.close()  # type: ignore[attr-defined]  # a generator
    assert 0 not in {one.most for one in wire.requests}


def test_what_an_unheard_request_may_have_changed_is_sent_again() -> None:
    wire = Wire(honest)
    text = [*PROMPT, *wire.answer()]
    wire.respond = silent
    plan = AnswerPlan("a" * 64, PLAIN, Rules(lambda _: False, 5))
    wire.answers.begin(plan, [1, 2, 77, 78], 5)  # nobody reads the reply
    wire.respond = honest
    wire.answer([*text, 50])
    assert wire.sent[-1] == (2, [*text[2:], 50], "w1", 10)


def test_the_end_is_the_end() -> None:
    wire = Wire(lambda request, _text: [reply(request, [5, END])])
    steps = list(wire.steps())
    assert [(one.id, one.is_end) for one in steps if isinstance(one, Token)] == [
        (5, False),
        (END, True),
    ]


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_worker_that_dies_in_mid_answer_is_replaced_and_the_answer_is_the_same(
    after: int,
) -> None:
    def respond(request: AnswerRequest, text: list[int]) -> list[AnswerReply]:
        if len(wire.sent) == 1:
            return honest(request, text)[:after]
        return [reply(request, true_answer(text, request.most), worker="w2")]

    wire = Wire(respond, retry_s=0.01)
    assert wire.answer() == true_answer(PROMPT, 10)
    here = [*PROMPT, *true_answer(PROMPT, 2 * after)]
    assert wire.sent[1] == (0, here, "", 10 - 2 * after)


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_worker_that_forgets_is_sent_all_tokens_again(after: int) -> None:
    def respond(request: AnswerRequest, text: list[int]) -> list[AnswerReply]:
        if len(wire.sent) == 1:
            lost = reply(request, [], 2 * after, code="session_lost")
            return [*honest(request, text)[:after], lost]
        return honest(request, text)

    wire = Wire(respond)
    assert wire.answer() == true_answer(PROMPT, 10)
    assert len(wire.sent) == 2


def test_a_worker_that_forgets_for_ever_is_given_up() -> None:
    wire = Wire(lambda request, _text: [reply(request, [], code="session_lost")])
    assert reason_of(list(wire.steps(most=3))) == "workers forget what they have answered"
    assert len(wire.sent) == 2


def test_a_reply_that_was_lost_on_the_way_is_asked_for_again() -> None:
    def respond(request: AnswerRequest, text: list[int]) -> list[AnswerReply]:
        replies = honest(request, text)
        if len(wire.sent) == 1:
            del replies[2]
        return replies

    wire = Wire(respond)
    assert wire.answer() == true_answer(PROMPT, 10)
    assert len(wire.sent) == 2


def test_late_foreign_and_repeated_replies_are_ignored() -> None:
    def respond(request: AnswerRequest, text: list[int]) -> list[AnswerReply]:
        late = AnswerReply(
            request=request.request - 1, session=request.session, worker="x", tokens=b"\x05\0\0"
        )
        foreign = AnswerReply(
            request=request.request, session=bytes(8), worker="x", tokens=b"\x05\0\0"
        )
        twice = [one for one in honest(request, text) for _ in range(2)]
        return [late, foreign, *twice]

    assert Wire(respond).answer() == true_answer(PROMPT, 10)


@pytest.mark.parametrize(
    "bad",
    [
        lambda request: reply(request, [V]),
        lambda request: reply(request, [2**24 - 1]),
        lambda request: reply(request, [1] * 11),
        lambda request: reply(request, [1], worker="no/worker"),
        lambda request: reply(request, []),
        lambda request: AnswerReply(
            request=request.request, session=request.session, worker="w1", tokens=b"\x01"
        ),
        lambda request: reply(request, [], 2**63),
        lambda request: reply(request, [], code="not_served"),
        lambda request: reply(request, [], code="of a later version"),
    ],
)
def test_replies_of_no_use_leave_the_answer_to_the_expert(
    bad: Callable[[AnswerRequest], AnswerReply],
) -> None:
    steps = list(Wire(lambda request, _text: [bad(request)]).steps(most=3))
    assert reason_of(steps)
    assert tokens_of(steps) == [42, 42, 42]


def test_a_failure_in_mid_answer_keeps_what_came_before() -> None:
    wire = Wire(
        lambda request, text: [
            *honest(request, text)[:2],
            reply(request, [], 4, code="large_model"),
        ]
    )
    steps = list(wire.steps(most=6))
    assert tokens_of(steps) == [*true_answer(PROMPT, 4), 42, 42]
    assert [one.is_steered for one in steps if isinstance(one, Token)] == [True] * 4 + [False] * 2


def test_empty_replies_do_not_hold_an_answer_up_beyond_the_deadline() -> None:
    def respond(request: AnswerRequest, _text: list[int]) -> list[AnswerReply]:
        wire.ahead_s += 6
        return [reply(request, [], is_last=False)] * 50

    wire = Wire(respond, retry_s=0.01)
    assert "silent for 5 s" in reason_of(list(wire.steps(most=2)))


def test_nobody_who_answers_is_told_within_the_deadline() -> None:
    wire = Wire(silent, deadline_s=0.05, retry_s=0.02)
    steps = list(wire.steps(most=2))
    assert "silent for 0.05 s" in reason_of(steps)
    assert tokens_of(steps) == [42, 42]


def revived(wire: Wire, steps: Iterator[Step], *, step_s: float, most: int) -> list[Step]:
    """Steps, while time passes with each."""
    seen: list[Step] = []
    for step in steps:
        seen.append(step)
        wire.ahead_s += step_s
        if isinstance(step, Returned) or len(seen) > most:
            break
    return seen


def test_it_is_back_after_a_failure_without_a_break_in_the_text() -> None:
    wire = Wire(
        lambda request, text: [*honest(request, text)[:1], reply(request, [], 2, code="busy")]
    )
    steps = wire.steps(most=60)
    head = [next(steps) for _ in range(3)]
    assert isinstance(head[-1], Fallback)
    wire.respond = honest
    alone = revived(wire, steps, step_s=0.5, most=20)
    assert isinstance(alone[-1], Returned)
    text = [*PROMPT, *tokens_of(head), *tokens_of(alone)]
    rest = tokens_of(list(steps))
    assert rest == true_answer(text, len(rest))
    assert len(rest) + len(text) - len(PROMPT) == 60


def test_a_probe_that_is_never_answered_is_followed_by_others() -> None:
    wire = Wire(lambda request, _text: [reply(request, [], code="busy")])
    steps = wire.steps(most=400)
    next(steps)
    wire.respond = silent
    revived(wire, steps, step_s=0.5, most=100)
    assert 3 <= len(wire.sent) <= 8


def test_an_answer_knows_its_round_trips() -> None:
    wire = Wire(honest)
    rules = Rules(lambda _token: False, 200)
    steerer: WorkerAnswer = wire.answers.steerer(AnswerPlan("a" * 64, PLAIN, rules))
    drafter = Drafter(PROMPT, Expert(), rules)
    assert len(list(steerer.next_tokens(drafter, 200))) == 128
    assert steerer.tally.round_trips == 1


def test_without_a_connection_the_expert_answers() -> None:
    def send(_request: object, _worker: str) -> int:
        raise LargeModelError("the coordinator is offline")

    wire = Wire(honest)
    wire.answers = WorkerAnswers(send, Asking(V, 5.0, 1.0), Traffic())
    assert reason_of(list(wire.steps(most=2))) == "the coordinator is offline"
