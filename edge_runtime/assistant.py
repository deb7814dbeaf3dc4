"""The on-device assistant: a question in, an answer out in pieces, with what it was made of.

Expert and antiexpert are one GGUF in memory with two contexts. Which adapter the expert uses can be
switched at any time; a running answer keeps the one that it began with.
"""

import codecs
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from edge_runtime.generation import Fallback, LargeModel, Steering, Token, generate
from edge_runtime.settings import AssistantSettings
from fedpt.chat import encode_prompt
from fedpt.drivers.llama import CachedSequence, LlamaContext, LlamaModel
from fedpt.errors import UsageError
from fedpt.proxy_tuning import PLAIN, Coefficients

Mode = Literal["local", "steered"]

_SWITCH_WAIT_S: Final = 10.0
"""A running answer may take minutes; whoever switches has other things to do meanwhile."""


class AnswerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer was made of; comes after its last piece."""

    mode: Mode
    text: str
    tokens: int
    steered_tokens: int
    fallback: str
    """Why the large model was not asked to the end; empty if it was, or was not to be."""
    ended: Literal["complete", "length"]
    adapter: str
    """The expert's adapter; empty for the small model as it was pre-trained."""
    coefficients: Coefficients | None
    """(alpha, beta, gamma) of a steered answer."""
    prompt_tokens: int
    first_token_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Question:
    """What someone asks, and how it may be answered."""

    text: str
    mode: Mode
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class _Expert:
    """A context with its adapter."""

    adapter: str
    context: LlamaContext
    sequence: CachedSequence


class Assistant:
    """Answers one question at a time; others wait."""

    def __init__(
        self,
        model: LlamaModel,
        settings: AssistantSettings,
        *,
        make_large: Callable[[], LargeModel] | None = None,
    ) -> None:
        """Make it; it starts as the small model without an adapter.

        Args:
            model: The small model.
            settings: Lengths, threads, system prompt.
            make_large: A new conversation with the large model; None: there is no large model.
        """
        self._model = model
        self._settings = settings
        self._make_large = make_large
        self._lock = threading.Lock()
        self._step_since: float | None = None
        self.coefficients: Coefficients = PLAIN
        self._antiexpert = self._new_context(None)
        self._antiexpert_sequence = CachedSequence(self._antiexpert)
        self._expert = self._new_expert("", None)

    @property
    def adapter(self) -> str:
        """The id of the adapter that answers; empty before the first."""
        return self._expert.adapter

    @property
    def is_answering(self) -> bool:
        """Whether an answer runs."""
        return self._lock.locked()

    @property
    def step_s(self) -> float:
        """How long the present step of an answer has taken, s; 0 while none is computed."""
        since = self._step_since
        return 0.0 if since is None else time.monotonic() - since

    def switch(self, adapter: str, path: Path) -> bool:
        """Answer with another adapter from the next question on.

        Returns:
            False: an answer runs and takes long; try again later.

        Raises:
            ArtifactError: It is damaged or for another base; the old one stays in use.
        """
        if not self._lock.acquire(timeout=_SWITCH_WAIT_S):
            return False
        try:
            old, self._expert = self._expert, self._new_expert(adapter, path)
            old.context.close()
        finally:
            self._lock.release()
        return True

    def answer(self, question: Question) -> Iterator[str | AnswerSummary]:
        """Answer, piece by piece; the last item is the summary.

        Raises:
            UsageError: The question is empty or does not fit into the context.
        """
        prompt = self._encode(question)
        with self._lock:
            yield from self._answer(question, prompt)

    def close(self) -> None:
        """Free the contexts; the model stays."""
        with self._lock:
            self._expert.context.close()
            self._antiexpert.close()

    def _answer(self, question: Question, prompt: tuple[int, ...]) -> Iterator[str | AnswerSummary]:
        expert, steering, fallback = self._expert, self._steering(question), ""
        if question.mode == "steered" and steering is None:
            fallback = "this assistant has no large model to ask"
        room = self._settings.context_tokens - len(prompt)
        limit = min(question.max_tokens or self._settings.answer_tokens, room)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        started, first_token_s, count, steered, text, ended = time.monotonic(), 0.0, 0, 0, "", False
        steps = generate(
            prompt,
            expert=expert.sequence,
            steering=steering,
            is_end=self._model.is_end,
            max_tokens=limit,
        )
        for step in self._timed(steps):
            if isinstance(step, Fallback):
                fallback = step.reason
                continue
            first_token_s = first_token_s or time.monotonic() - started
            ended = step.is_end
            if not ended:
                count += 1
                steered += step.is_steered
                piece = decoder.decode(self._model.piece(step.id))
                text += piece
                yield piece
        if rest := decoder.decode(b"", final=True):  # cut off in the middle of a character
            text += rest
            yield rest
        yield AnswerSummary(
            mode=question.mode,
            text=text,
            tokens=count,
            steered_tokens=steered,
            fallback=fallback,
            ended="complete" if ended else "length",
            adapter=expert.adapter,
            coefficients=steering.coefficients if steering else None,
            prompt_tokens=len(prompt),
            first_token_s=first_token_s,
            seconds=time.monotonic() - started,
        )

    def _timed(self, steps: Iterator[Token | Fallback]) -> Iterator[Token | Fallback]:
        """The same steps; that one is being computed can be seen in `step_s`."""
        while True:
            self._step_since = time.monotonic()
            try:
                step = next(steps, None)
            finally:
                self._step_since = None
            if step is None:
                return
            yield step

    def _steering(self, question: Question) -> Steering | None:
        if question.mode == "local" or self._make_large is None:
            return None
        return Steering(self._antiexpert_sequence, self._make_large(), self.coefficients)

    def _encode(self, question: Question) -> tuple[int, ...]:
        if not question.text.strip():
            raise UsageError("the question is empty")
        system = self._settings.system_prompt
        prompt = encode_prompt(self._model, question.text, system=system)
        if len(prompt) >= self._settings.context_tokens:
            raise UsageError(
                f"the question is {len(prompt)} tokens; the context holds"
                f" {self._settings.context_tokens}: shorten it or raise context_tokens"
            )
        return prompt

    def _new_context(self, adapter: Path | None) -> LlamaContext:
        settings = self._settings
        return LlamaContext(
            self._model, tokens=settings.context_tokens, threads=settings.threads, adapter=adapter
        )

    def _new_expert(self, adapter: str, path: Path | None) -> _Expert:
        context = self._new_context(path)
        return _Expert(adapter, context, CachedSequence(context))
