"""From an answer's tokens to the text and facts that can be shown, as soon as they can be."""

import codecs
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from edge_runtime.question import Ended, Notice, Piece, Question, TokenFacts, TokenScore
from edge_runtime.stop_strings import StopStrings
from fedpt.decoding.answer import Fallback, Returned, Step, Token
from fedpt.decoding.top_tokens import top_tokens
from fedpt.proxy_tuning import log_softmax


class Spelling(Protocol):
    """What is needed of a model: how its tokens are spelt."""

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; of a special token none."""


class AnswerWriter:
    """Writes one answer, and knows what it has written."""

    def __init__(self, model: Spelling, question: Question, *, clock: Callable[[], float]) -> None:
        """Begin.

        Args:
            model: The small model.
            question: What was asked.
            clock: Seconds, monotonic.
        """
        self._model = model
        self._top_logprobs = question.top_logprobs
        self._stop = StopStrings(question.stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._clock = clock
        self._began = clock()
        self.text = ""
        self.tokens = 0
        self.steered_tokens = 0
        self.fallback = ""
        """Why it is not, or no longer, steered."""
        self.ended: Ended = "length"
        self.first_token_s = 0.0

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock() - self._began

    def written(self, steps: Iterator[Step]) -> Iterator[Piece | Notice]:
        """The answer's text, in pieces; it ends before a stop string."""
        for step in steps:
            match step:
                case Fallback(reason):
                    self.fallback = reason
                    yield Notice(False, reason)
                case Returned():
                    yield Notice(True)
                case Token(is_end=True):
                    self._note_first()
                    self.ended = "complete"
                    break
                case Token():
                    self._note_first()
                    yield from self._shown(step)
                    if self._stop.is_hit:
                        self.ended = "stop"
                        return
        # cut off in the middle of a character, or of what might have been a stop string
        if rest := self._stop.feed(self._decoder.decode(b"", final=True)) + self._stop.rest():
            self.text += rest
            yield Piece(rest)

    def _note_first(self) -> None:
        self.first_token_s = self.first_token_s or self.seconds

    def _shown(self, token: Token) -> Iterator[Piece]:
        self.tokens += 1
        self.steered_tokens += token.is_steered
        text = self._stop.feed(self._decoder.decode(self._model.piece(token.id)))
        self.text += text
        facts = None if self._top_logprobs is None else self._facts(token, self._top_logprobs)
        if text or facts:
            yield Piece(text, token.is_steered, facts)

    def _facts(self, token: Token, count: int) -> TokenFacts:
        """Of a row of which little is known, probabilities are among what is known."""
        scores = log_softmax(token.logits)
        best = sorted(top_tokens(scores, count), key=lambda place: -scores[place])
        place = int(np.searchsorted(token.ids, token.id))
        is_known = place < len(token.ids) and token.ids[place] == token.id
        chosen = float(scores[place]) if is_known else float(scores.min())
        return TokenFacts(
            self._score(token.id, chosen),
            tuple(self._score(int(token.ids[one]), float(scores[one])) for one in best),
        )

    def _score(self, token: int, logprob: float) -> TokenScore:
        utf8 = self._model.piece(token)
        return TokenScore(utf8.decode("utf-8", "replace"), logprob, utf8)
