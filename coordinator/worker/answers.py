"""Steering whole answers here, for devices whose adapter we have: they get tokens, no logits.

An answer is the same decode loop that runs on a board, on a thread of its own; its models are the
batched ones. The devices' own way, draft and verify over the network, gives the same tokens.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from coordinator.worker.batching import Batcher
from coordinator.worker.sessions import Session
from coordinator.worker.slot_text import SlotLarge, SlotText
from fedpt.decoding.answer import Fallback, Patience, Token, decode
from fedpt.decoding.draft_and_verify import DraftAndVerify, Settings
from fedpt.decoding.drafting import Rules
from fedpt.errors import FedptError, LargeModelError
from fedpt.ids import DeviceId
from fedpt.proxy_tuning import Coefficients
from fedpt.wire.messages import AnswerReply, AnswerRequest
from fedpt.wire.token_format import tokens_to_bytes

_logger = logging.getLogger(__name__)

LARGE: Final = "large"
EXPERT: Final = "expert"
ANTIEXPERT: Final = "antiexpert"

ROOM_FOR_DRAFTS: Final = 32
"""Tokens that a model's cache may hold beyond an answer's text: twice the rows of a round trip."""

_FLUSH_S: Final = 0.1
_FLUSH_TOKENS: Final = 16


@dataclass(frozen=True, slots=True)
class Answering:
    """What an answer needs besides its text."""

    request: AnswerRequest
    is_end: Callable[[int], bool]
    worker: str
    send: Callable[[AnswerReply], object]
    """From any thread."""
    on_end: Callable[["AnswerThread"], None]
    """On the answer's thread, as the last thing."""


class Texts:
    """One session's texts in the three models; kept from answer to answer."""

    def __init__(self, batcher: Batcher, device: DeviceId, slot: int) -> None:
        self.large = SlotText(batcher, LARGE, device, slot)
        self.expert = SlotText(batcher, EXPERT, device, slot)
        self.antiexpert = SlotText(batcher, ANTIEXPERT, device, slot)


class AnswerThread:
    """One stretch of an answer, being steered."""

    def __init__(self, session: Session, texts: Texts, answering: Answering) -> None:
        self.session = session
        self._texts = texts
        self._answering = answering
        self.has_failed = False
        """What the models hold of the text is not known any more."""
        self._is_cancelled = False
        self._reason: FedptError | None = None
        self._prompt = list(session.tokens)
        self.tokens: list[int] = []
        """What was sent."""
        self._thread = threading.Thread(target=self._run, name="answer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def cancel(self, reason: FedptError | None = None) -> None:
        """Stop at the next token.

        Args:
            reason: What its device is told; None: nothing, for it has gone on itself.
        """
        self._reason = reason
        self._is_cancelled = True

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._thread.is_alive()

    @property
    def unused(self) -> int:
        """How many of the tokens that it might have had its device did not get."""
        return self._answering.request.most - len(self.tokens)

    def join(self, timeout_s: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._send_all(self._decoded())
        except FedptError as error:
            self.has_failed = True
            self._send_failure(error)
        except Exception:  # a fault of ours must not take the worker with it
            self.has_failed = True
            _logger.exception("an answer failed")
            self._send_failure(LargeModelError("the worker failed at this answer"))
        finally:
            self._answering.on_end(self)

    def _decoded(self) -> Iterator[Token]:
        request = self._answering.request
        weights = request.coefficients
        steerer = DraftAndVerify(
            self._texts.antiexpert,
            SlotLarge(self._texts.large),
            Settings(
                Coefficients(weights.alpha, weights.beta, weights.gamma),
                candidates=0,
                first_detail="all",
            ),
            clock=time.monotonic,
        )
        steps = decode(
            self._prompt,
            expert=self._texts.expert,
            steerer=steerer,
            rules=Rules(self._answering.is_end, request.most, request.sampling),
            patience=Patience(time.monotonic, float("inf")),
        )
        for step in steps:
            if self._is_cancelled:
                return
            if isinstance(step, Fallback):
                raise LargeModelError(step.reason)
            if not isinstance(step, Token) or not step.is_steered:
                raise LargeModelError("the large model failed")
            yield step

    def _send_all(self, tokens: Iterator[Token]) -> None:
        """A few at a time: as soon as the first is there, then what has come meanwhile."""
        due, waiting = 0.0, []
        for token in tokens:
            waiting.append(token.id)
            if time.monotonic() >= due or len(waiting) >= _FLUSH_TOKENS:
                self._send(waiting, len(self.tokens), is_last=False)
                waiting, due = [], time.monotonic() + _FLUSH_S
        if not self._is_cancelled:
            self._send(waiting, len(self.tokens), is_last=True)
        elif self._reason is not None:
            self._send([], len(self.tokens), is_last=True, error=self._reason)

    def _send_failure(self, error: FedptError) -> None:
        reason = self._reason if self._is_cancelled else error
        if reason is not None:
            self._send([], len(self.tokens), is_last=True, error=reason)

    def _send(
        self, tokens: list[int], first: int, *, is_last: bool, error: FedptError | None = None
    ) -> None:
        self.tokens += tokens
        self.session.tokens += tokens  # before the device can count on it
        request = self._answering.request
        self._answering.send(
            AnswerReply(
                request=request.request,
                session=request.session,
                worker=self._answering.worker,
                first=first,
                tokens=tokens_to_bytes(tokens),
                is_last=is_last,
                code="" if error is None else error.code,
                reason="" if error is None else str(error),
            )
        )
