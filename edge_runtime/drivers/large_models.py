"""The large model asked for over MQTT: rows of logits.

One conversation with it lasts as long as the daemon: the worker keeps what it has read, so that
only new tokens travel, within an answer and from one to the next. A worker that is silent is taken
for dead, and the same request goes to any other.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edge_runtime.drivers.mailbox import Mailbox, require_good
from edge_runtime.drivers.revival import Revival
from edge_runtime.drivers.worker_line import Send, WorkerLine
from edge_runtime.steering import Traffic
from fedpt.decoding.ports import Detail, RowsTold, RowsWanted
from fedpt.errors import LargeModelError, MalformedMessageError, SessionLostError
from fedpt.proxy_tuning import TokenIds
from fedpt.wire.logit_format import Precision, rows_from_bytes
from fedpt.wire.messages import LogitReply, LogitRequest, Opening
from fedpt.wire.token_format import id_sets_to_bytes, tokens_to_bytes

_NO_CANDIDATES: Final[TokenIds] = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Asking:
    """How the large model is asked."""

    vocabulary_size: int
    deadline_s: float
    """How long a reply may take in all."""
    retry_s: float
    """After so long without one, another worker is asked."""
    largest: int = 16
    """Of a row's largest logits, so many at first."""
    largest_more: int = 1024
    """After those, where they leave a doubt; beyond these come whole rows, a hundred times more."""
    precision: Precision = "f16"
    opening: Opening = field(default_factory=Opening)


class RemoteLarge:
    """A `fedpt.decoding.ports.LargeModel` behind the broker. One thread at a time."""

    def __init__(
        self,
        send: Send,
        asking: Asking,
        traffic: Traffic,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin a conversation; nothing is sent yet.

        Args:
            send: The way out.
            asking: Deadlines and amounts.
            traffic: Counted up.
            clock: Seconds, monotonic.
        """
        self.line = WorkerLine(send, traffic)
        self._asking = asking
        self._clock = clock
        self.mailbox: Mailbox[LogitReply] = Mailbox()
        self._numbers = itertools.count(1)
        self._number = 0
        self._question: RowsWanted | None = None
        self._asked_at = 0.0
        self._revival = Revival(clock)

    def ask(self, question: RowsWanted) -> None:
        """Send the tokens that the worker does not hold yet.

        Raises:
            LargeModelError: There is no connection to the broker.
        """
        first = len(question.tokens) - question.rows
        self._begin(question, self.line.held(question.tokens, first))

    def is_there(self) -> bool:
        """Whether a reply has come, or none can come any more."""
        is_late = self._clock() > self._asked_at + self._asking.deadline_s
        return self.mailbox.is_full or is_late

    def fetch(self) -> RowsTold:
        """Wait for the reply.

        Raises:
            LargeModelError: The deadline has passed, or the worker refuses.
        """
        return self._fetched(may_ask_again=True)

    def is_back(self, tokens: Sequence[int]) -> bool:
        """Ask any worker for one row now and then, and look whether it has come."""
        return self._revival.is_back(
            lambda: self._begin(RowsWanted(list(tokens), 1, [_NO_CANDIDATES], "few"), 0),
            self.is_there,
            lambda: self._fetched(may_ask_again=False),
        )

    def _begin(self, question: RowsWanted, position: int) -> None:
        self._question = question
        self._asked_at = self._clock()
        self._number = next(self._numbers)
        self.mailbox.expect(self._number)
        self._send_from(position)

    def _fetched(self, *, may_ask_again: bool) -> RowsTold:
        question = self._question
        assert question is not None  # `ask` comes first
        try:
            reply = require_good(self._await_reply(may_ask_again=may_ask_again))
        finally:
            self.mailbox.expect(None)
        total_s = self._clock() - self._asked_at
        try:
            rows = rows_from_bytes(
                reply.rows,
                candidates=question.candidates,
                vocabulary_size=self._asking.vocabulary_size,
            )
        except MalformedMessageError as error:
            self.line.forget()
            raise LargeModelError(f"the coordinator's reply is of no use: {error}") from error
        self.line.heard(reply.worker, question.tokens)
        busy_s = min(reply.busy_us / 1e6, total_s)
        return RowsTold(rows, total_s - busy_s, busy_s, reply.is_approximate)

    def _await_reply(self, *, may_ask_again: bool) -> LogitReply:
        """The first reply to the question, whoever gives it.

        Past `retry_s` the same request goes to any worker: the one that we knew may be dead, or
        only slow, and whichever replies first is right.
        """
        asking, end = self._asking, self._asked_at + self._asking.deadline_s
        while True:
            reply = self.mailbox.take(min(asking.retry_s, end - self._clock()))
            if reply is None and self._clock() >= end:
                self.line.forget()
                raise LargeModelError(f"the coordinator is silent for {asking.deadline_s:g} s")
            if reply is not None:
                if reply.code != SessionLostError.code or not may_ask_again:
                    return reply
                may_ask_again = False  # for that reason; a worker may only forget once
            self._send_from(0)

    def _send_from(self, position: int) -> None:
        question, asking = self._question, self._asking
        assert question is not None  # `ask` comes first
        self.line.cut(position)
        largest, precision = self._amount(question.detail)
        tokens = question.tokens[position:]
        request = LogitRequest(
            request=self._number,
            session=self.mailbox.session,
            position=position,
            tokens=tokens_to_bytes(tokens),
            rows=question.rows,
            largest=largest,
            precision=precision,
            candidates=id_sets_to_bytes(question.candidates),
            opening=None if position else asking.opening,
        )
        self.line.send(request, len(tokens))

    def _amount(self, detail: Detail) -> tuple[int, Precision]:
        match detail:
            case "few":
                return self._asking.largest, self._asking.precision
            case "more":
                return self._asking.largest_more, "f32"
            case "all":
                return 0, "f32"
