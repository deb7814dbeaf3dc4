"""Answers that a logit worker steers by itself: the board gets tokens, a few bytes each.

A worker that falls silent in mid-answer, forgets, or leaves tokens out is replaced: any worker goes
on from the tokens that are here.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from edge_runtime.drivers.large_models import Asking
from edge_runtime.drivers.mailbox import Mailbox, require_good
from edge_runtime.drivers.revival import Revival
from edge_runtime.drivers.worker_line import Send, WorkerLine
from edge_runtime.steering import AnswerPlan, Traffic
from fedpt.decoding.answer import Token
from fedpt.decoding.draft_and_verify import Tally
from fedpt.decoding.drafting import Drafter
from fedpt.decoding.sampling import Distribution
from fedpt.errors import LargeModelError, MalformedMessageError, SessionLostError
from fedpt.wire.messages import AnswerReply, AnswerRequest, SteeringCoefficients
from fedpt.wire.token_format import tokens_from_bytes, tokens_to_bytes

_MOST: Final = 128
"""Tokens asked for at once: what is wasted, at most, when a board is gone in mid-answer."""

_MOST_FAULTS: Final = 1
"""How often workers may forget, or leave tokens out, between two replies that go on."""


class WorkerAnswers:
    """One conversation with a worker, over many answers. One thread at a time."""

    def __init__(
        self,
        send: Send,
        asking: Asking,
        traffic: Traffic,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin a conversation; nothing is sent yet."""
        self.mailbox: Mailbox[AnswerReply] = Mailbox()
        self.asking = asking
        self.clock = clock
        self.line = WorkerLine(send, traffic)
        self._numbers = itertools.count(1)

    def steerer(self, plan: AnswerPlan) -> "WorkerAnswer":
        """For one answer."""
        return WorkerAnswer(self, plan)

    def begin(self, plan: AnswerPlan, text: list[int], most: int) -> None:
        """Ask for the next tokens after a text.

        Raises:
            LargeModelError: There is no connection to the broker.
        """
        self._ask(plan, text, most, self.line.held(text, len(text) - 1))

    def begin_anew(self, plan: AnswerPlan, text: list[int], most: int) -> None:
        """Ask any worker, which has read nothing of the text.

        Raises:
            LargeModelError: There is no connection to the broker.
        """
        self._ask(plan, text, most, 0)

    def stop(self, plan: AnswerPlan) -> None:
        """Somebody has hung up: the worker need not go on. Not heard, it ends by itself."""
        if self.line.worker:
            with contextlib.suppress(LargeModelError):
                self._send_request(plan, 0, [], most=0)

    def _ask(self, plan: AnswerPlan, text: list[int], most: int, position: int) -> None:
        self.line.cut(position)
        self._send_request(plan, position, text[position:], most=most)

    def _send_request(
        self, plan: AnswerPlan, position: int, tokens: list[int], *, most: int
    ) -> None:
        number = next(self._numbers)
        alpha, beta, gamma = plan.coefficients
        request = AnswerRequest(
            request=number,
            session=self.mailbox.session,
            position=position,
            tokens=tokens_to_bytes(tokens),
            most=most,
            adapter=plan.adapter,
            coefficients=SteeringCoefficients(alpha=alpha, beta=beta, gamma=gamma),
            sampling=plan.rules.sampling,
            opening=None if position or not most else self.asking.opening,
        )
        self.mailbox.expect(number)
        self.line.send(request, len(tokens))


class WorkerAnswer:
    """A `fedpt.decoding.answer.Steerer`: one answer of a worker's."""

    def __init__(self, answers: WorkerAnswers, plan: AnswerPlan) -> None:
        self._answers = answers
        self._plan = plan
        self._revival = Revival(answers.clock)
        self._began = 0
        """How long the text was that the present request is about."""
        self._probed: list[int] = []
        self._probed_at = 0.0
        self.tally = Tally()

    def next_tokens(self, drafter: Drafter, most: int) -> Iterator[Token]:
        """Up to some dozens of tokens, as they come.

        Raises:
            LargeModelError: The worker refuses or is silent; what was yielded stands.
        """
        answers, start = self._answers, len(drafter.text)
        goal = start + min(most, _MOST)
        self._began = start
        self.tally.round_trips += 1
        answers.begin(self._plan, drafter.text, goal - start)
        try:
            while True:
                reply, tokens = self._news(drafter.text, goal)
                for token in tokens:
                    is_end = drafter.replace(token)
                    answers.line.heard(reply.worker, drafter.text)
                    yield _told(token, is_end=is_end)
                    if is_end:
                        return
                if reply.is_last:
                    break
        except GeneratorExit:
            answers.stop(self._plan)
            raise
        finally:
            answers.mailbox.expect(None)
        if len(drafter.text) == start:
            raise LargeModelError("the worker's answer is empty")

    def is_back(self, text: list[int]) -> bool:
        """Ask for one token now and then; it is thrown away, for the text has gone on."""
        return self._revival.is_back(lambda: self._probe(text), self._is_probe_over, self._judge)

    def _probe(self, text: list[int]) -> None:
        self._probed, self._probed_at = list(text), self._answers.clock()
        self._answers.begin_anew(self._plan, self._probed, 1)

    def _is_probe_over(self) -> bool:
        end = self._probed_at + self._answers.asking.deadline_s
        return self._answers.mailbox.is_full or self._answers.clock() > end

    def _judge(self) -> None:
        reply = require_good(self._answers.mailbox.take(0.0))
        self._answers.line.heard(reply.worker, self._probed)

    def _news(self, text: list[int], goal: int) -> tuple[AnswerReply, list[int]]:
        """The next reply that goes on from the text, and its tokens."""
        answers, faults = self._answers, 0
        asking, clock = answers.asking, answers.clock
        end = clock() + asking.deadline_s
        while (now := clock()) < end:
            reply = answers.mailbox.take(min(asking.retry_s, end - now))
            self.tally.waited_s += clock() - now
            if reply is None and clock() >= end:
                break
            if reply is not None:
                first, tokens = self._unfolded(reply, goal)
                if first == len(text) and (tokens or reply.is_last):
                    return reply, tokens
                if first is not None and first <= len(text):
                    continue  # these tokens are here
                faults += 1
                if faults > _MOST_FAULTS:
                    raise LargeModelError("workers forget what they have answered")
            self._began = len(text)
            self.tally.round_trips += 1
            answers.begin_anew(self._plan, text, goal - len(text))
        answers.line.forget()
        raise LargeModelError(f"the coordinator is silent for {asking.deadline_s:g} s")

    def _unfolded(self, reply: AnswerReply, goal: int) -> tuple[int | None, list[int]]:
        """Where in the text a reply's tokens begin, and these; None: the session is lost.

        Raises:
            LargeModelError: It is a refusal, or holds no tokens that could be.
        """
        if reply.code == SessionLostError.code:
            return None, []
        try:
            tokens = tokens_from_bytes(require_good(reply).tokens)
        except MalformedMessageError as error:
            raise LargeModelError(f"the coordinator's reply is of no use: {error}") from error
        first, size = self._began + reply.first, self._answers.asking.vocabulary_size
        if first + len(tokens) > goal or any(token >= size for token in tokens):
            raise LargeModelError("the coordinator's reply is of no use: no tokens of this answer")
        return first, tokens


def _told(token: int, *, is_end: bool) -> Token:
    ids = np.array([token], np.int64)
    return Token(token, is_end, True, Distribution(ids, np.ones(1)), ids, np.zeros(1, np.float32))
