"""Requests for answers that are steered here: who is answered, on which thread, with which texts.

A device that asks again while it is answered has gone on: its answer is stopped, and what it asks
now waits for that.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from coordinator.worker.admission import Admission
from coordinator.worker.answers import Answering, AnswerThread, Texts
from coordinator.worker.models import WorkerModels
from coordinator.worker.replies import Replies
from coordinator.worker.sessions import Key, Sessions
from fedpt.errors import FedptError
from fedpt.ids import DeviceId
from fedpt.wire.messages import AnswerRequest
from fedpt.wire.token_format import tokens_from_bytes

_END_S: Final = 5.0


class AnswersDesk:
    """On the thread that steps the batcher, but for what is said of the answers' own."""

    def __init__(
        self,
        models: WorkerModels,
        sessions: Sessions,
        admission: Admission,
        replies: Replies,
        *,
        on_end: Callable[[AnswerThread], None],
    ) -> None:
        """Make it; nobody is answered yet.

        Args:
            models: Who answers.
            sessions: Conversations.
            admission: Who may ask.
            replies: The way back.
            on_end: Called on an answer's thread as the last thing; it sees to it that `ended` is.
        """
        self._models = models
        self._sessions = sessions
        self._admission = admission
        self._replies = replies
        self._on_end = on_end
        self._texts: dict[int, Texts] = {}
        self._threads: dict[int, AnswerThread] = {}
        self._postponed: dict[int, tuple[DeviceId, AnswerRequest]] = {}

    def hear(self, device: DeviceId, request: AnswerRequest) -> None:
        """Begin with a request, or stop what it does not want any more.

        Raises:
            FedptError: It is refused.
        """
        key: Key = (device, "answers", request.session)
        running = self._running(key)
        if request.most == 0:
            if running is not None:
                running.cancel()
                self._postponed.pop(running.session.slot, None)
            return
        self._models.require_adapter(request.adapter)
        tokens = tokens_from_bytes(request.tokens)
        if running is not None:
            running.cancel()
            self._postponed[running.session.slot] = (device, request)
            return
        self._admission.enter(device, request.most, time.monotonic())
        try:
            session, _ = self._sessions.continued(key, request.position, tokens, more=request.most)
        except FedptError:
            self._admission.leave(device, unused=request.most)
            raise
        session.users += 1
        texts = self._texts.get(session.slot) or Texts(self._models.batcher, device, session.slot)
        self._texts[session.slot] = texts
        answering = Answering(
            request,
            self._models.is_end,
            self._replies.worker,
            partial(self._replies.send, device),
            self._on_end,
        )
        thread = self._threads[session.slot] = AnswerThread(session, texts, answering)
        thread.start()

    def ended(self, thread: AnswerThread) -> None:
        """An answer's thread is at its end; what waited for that is begun with."""
        session = thread.session
        del self._threads[session.slot]
        session.users -= 1
        self._admission.leave(session.device, unused=thread.unused)
        if thread.has_failed:
            self._sessions.lose(session)
        if (postponed := self._postponed.pop(session.slot, None)) is not None:
            try:
                self.hear(*postponed)
            except FedptError as error:
                self._replies.refuse(*postponed, error)

    def forget(self, slot: int) -> None:
        """Nothing is known of a slot's texts any more."""
        self._texts.pop(slot, None)

    def stop_all(self, reason: FedptError) -> None:
        """End all answers; their devices are told why."""
        for thread in self._threads.values():
            thread.cancel(reason)

    def forget_all(self) -> None:
        """Nothing is known of any text any more."""
        self._texts.clear()

    def have_ended(self) -> bool:
        """Wait a little for all threads; whether none runs any more."""
        end = time.monotonic() + _END_S
        for thread in self._threads.values():
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive for thread in self._threads.values())

    def _running(self, key: Key) -> AnswerThread | None:
        session = self._sessions.find(key)
        return self._threads.get(session.slot) if session is not None else None
