"""The large model for the assistant: in this process, or asked for over MQTT."""

import itertools
import queue
import time
from collections.abc import Callable, Sequence
from uuid import uuid4

from fedpt.drivers.llama import CachedSequence, common_prefix
from fedpt.errors import LargeModelError, MalformedMessageError, SessionLostError
from fedpt.ids import is_name
from fedpt.proxy_tuning import Logits
from fedpt.wire.codec import row_from_bytes
from fedpt.wire.messages import LogitReply, LogitRequest


class LocalLarge:
    """A large model in this process, for trying models out."""

    def __init__(self, sequence: CachedSequence) -> None:
        self._sequence = sequence
        self._tokens: list[int] = []

    def ask(self, tokens: Sequence[int]) -> None:
        """Remember the question; nothing runs beside us in one process."""
        self._tokens = list(tokens)

    def fetch(self) -> Logits:
        """Compute."""
        return self._sequence.logits_after(self._tokens)


class LogitDesk:
    """Where replies to this device's logit requests arrive, for the one conversation at hand."""

    def __init__(self) -> None:
        self._session = ""
        self._tray: queue.SimpleQueue[LogitReply] = queue.SimpleQueue()

    def open(self, session: str) -> queue.SimpleQueue[LogitReply]:
        """A tray for a session's replies; the conversation before has no more."""
        self._session, self._tray = session, queue.SimpleQueue()
        return self._tray

    def deliver(self, reply: LogitReply) -> None:
        """Put a reply into the tray; one that nobody waits for is dropped."""
        if reply.session == self._session:
            self._tray.put(reply)


class RemoteLarge:
    """One conversation with the large model behind the broker; one token a request."""

    def __init__(
        self,
        send: Callable[[LogitRequest, str], None],
        desk: LogitDesk,
        *,
        vocabulary_size: int,
        deadline_s: float,
    ) -> None:
        """Begin a conversation.

        Args:
            send: Publishes a request to a worker, or to any worker if its name is empty. Raises
                LargeModelError when there is no connection.
            desk: Where replies come in.
            vocabulary_size: Tokens in a row of logits.
            deadline_s: How long a reply may take.
        """
        self._send = send
        self._vocabulary_size = vocabulary_size
        self._deadline_s = deadline_s
        self._session = uuid4().hex
        self._tray = desk.open(self._session)
        self._numbers = itertools.count(1)
        self._worker = ""
        self._held: list[int] = []
        self._asked: list[int] = []
        self._number = 0

    def ask(self, tokens: Sequence[int]) -> None:
        """Send the tokens that the worker does not hold yet.

        Raises:
            LargeModelError: There is no connection to the broker.
        """
        self._asked = list(tokens)
        self._send_from(min(common_prefix(self._held, tokens), len(tokens) - 1))

    def fetch(self) -> Logits:
        """Wait for the reply; a worker that lost the session gets all tokens once more.

        Raises:
            LargeModelError: The deadline has passed, or the worker refuses.
        """
        end = time.monotonic() + self._deadline_s
        reply = self._wait(end)
        if reply.code == SessionLostError.code:
            self._worker = ""
            self._send_from(0)
            reply = self._wait(end)
        if reply.worker and not is_name(reply.worker):  # it becomes a topic level
            raise LargeModelError(f"the reply comes from {reply.worker!r}, which is no worker")
        if reply.code:
            raise LargeModelError(f"the coordinator refuses: {reply.reason} ({reply.code})")
        try:
            row = row_from_bytes(reply.row, vocabulary_size=self._vocabulary_size)
        except MalformedMessageError as error:
            raise LargeModelError(f"the coordinator's reply is of no use: {error}") from error
        self._worker, self._held = reply.worker, self._asked
        return row

    def _send_from(self, position: int) -> None:
        self._number = next(self._numbers)
        request = LogitRequest(
            request=self._number,
            session=self._session,
            position=position,
            tokens=self._asked[position:],
        )
        self._send(request, self._worker if position else "")

    def _wait(self, end: float) -> LogitReply:
        while True:
            try:
                reply = self._tray.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise LargeModelError(
                    f"the coordinator is silent for {self._deadline_s:g} s"
                ) from None
            if reply.request == self._number:  # else an answer to what we no longer ask
                return reply
