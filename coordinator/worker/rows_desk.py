"""Requests for rows of logits, from a device's message to the reply."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from coordinator.worker.admission import Admission
from coordinator.worker.answers import LARGE
from coordinator.worker.batching import Batcher, Job, Told
from coordinator.worker.replies import Replies
from coordinator.worker.sessions import Session, Sessions
from coordinator.worker.told_rows import told_to_bytes
from fedpt.errors import FedptError
from fedpt.ids import DeviceId
from fedpt.proxy_tuning import TokenIds
from fedpt.wire.messages import LogitReply, LogitRequest
from fedpt.wire.token_format import id_sets_from_bytes, tokens_from_bytes


@dataclass(frozen=True, slots=True)
class RowSource:
    """Where rows come from, and what is known of them."""

    batcher: Batcher
    vocabulary_size: int
    is_approximate: bool = False
    """Whether rows may be off by more than they say."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that waits for its rows."""

    request: LogitRequest
    candidates: Sequence[TokenIds]
    arrived: float


class RowsDesk:
    """On the thread that steps the batcher."""

    def __init__(
        self,
        source: RowSource,
        sessions: Sessions,
        admission: Admission,
        replies: Replies,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batcher = source.batcher
        self._sessions = sessions
        self._admission = admission
        self._replies = replies
        self._vocabulary_size = source.vocabulary_size
        self._is_approximate = source.is_approximate
        self._clock = clock

    def hear(self, device: DeviceId, request: LogitRequest, arrived: float) -> None:
        """Begin with a request.

        Raises:
            FedptError: It is refused.
        """
        tokens = tokens_from_bytes(request.tokens)
        candidates = id_sets_from_bytes(
            request.candidates, request.rows, vocabulary_size=self._vocabulary_size
        )
        self._admission.require_amount(largest=request.largest, candidates=len(candidates[0]))
        self._admission.enter(device, request.rows, self._clock())
        try:
            session, kept = self._sessions.continued(
                (device, "rows", request.session), request.position, tokens, wanted=request.rows
            )
        except FedptError:
            self._admission.leave(device, unused=request.rows)
            raise
        session.users += 1
        on_done = partial(self._tell, session, _Asked(request, candidates, arrived))
        new = session.tokens[kept:]
        self._batcher.submit(Job(LARGE, device, session.slot, kept, new, request.rows, on_done))

    def _tell(self, session: Session, asked: _Asked, told: Told | FedptError) -> None:
        request = asked.request
        session.users -= 1
        self._admission.leave(session.device)
        try:
            if isinstance(told, FedptError):
                raise told
            rows = told_to_bytes(told, request, asked.candidates)
        except FedptError as error:
            self._sessions.lose(session)
            self._replies.refuse(session.device, request, error)
            return
        reply = LogitReply(
            request=request.request,
            session=request.session,
            worker=self._replies.worker,
            busy_us=int((self._clock() - asked.arrived) * 1e6),
            rows=rows,
            is_approximate=self._is_approximate,
        )
        self._replies.send_rows(session.device, request, reply)
