"""The on-device assistant: a question in, an answer out in pieces, with what it was made of.

Expert and antiexpert are one GGUF in memory with two contexts. Which adapter the expert uses can be
switched at any time; a running answer keeps the one that it began with. Their caches keep the last
conversation, so that the next turn costs its new tokens only.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from edge_runtime.answer_writer import AnswerWriter
from edge_runtime.calibration import SmallRows
from edge_runtime.consent import choose_mode
from edge_runtime.prompt_cache import Conversation, PromptCache
from edge_runtime.question import (
    AnswerSummary,
    Notice,
    Piece,
    Question,
    Steps,
)
from edge_runtime.settings import AssistantSettings
from edge_runtime.steering import (
    AnswerPlan,
    LargeAccess,
    Traffic,
    WorkerFirst,
    WorkerSteerer,
    steps_of,
    where_to_steer,
)
from fedpt.chat import ChatMessage, encode_messages, with_begin
from fedpt.decoding.answer import Patience, Step, decode
from fedpt.decoding.draft_and_verify import DraftAndVerify, Settings
from fedpt.decoding.drafting import Rules
from fedpt.decoding.pace import Pace
from fedpt.drivers.llama import LlamaContext, LlamaModel
from fedpt.drivers.llama_grammar import GrammarConstraint
from fedpt.errors import LongQuestionError, UsageError
from fedpt.proxy_tuning import EXPERT_ALONE, PLAIN, Coefficients
from fedpt.wire.codec import MAX_MESSAGE_BYTES

_LARGEST_REPLY_BYTES: Final = MAX_MESSAGE_BYTES - 4096
_SWITCH_WAIT_S: Final = 10.0
"""A running answer may take minutes; whoever switches has other things to do meanwhile."""

_NO_HELP: Final = "calibration found that the large model does not help here"


@dataclass(frozen=True, slots=True)
class _Expert:
    """A context with its adapter, and what it remembers."""

    adapter: str
    is_personal: bool
    context: LlamaContext
    cache: PromptCache


@dataclass(frozen=True, slots=True)
class _Steering:
    """What steers one answer."""

    steerer: WorkerSteerer
    coefficients: Coefficients
    traffic: Traffic
    """Of the whole assistant."""
    traffic_before: Traffic

    def steps(self) -> Steps:
        """What it took."""
        traffic = self.traffic.since(self.traffic_before)
        where = self.steerer.where if isinstance(self.steerer, WorkerFirst) else "logits"
        return steps_of(where, self.steerer.tally, traffic)


class Assistant:
    """Answers one question at a time; others wait."""

    def __init__(
        self,
        model: LlamaModel,
        settings: AssistantSettings,
        *,
        large: LargeAccess | None = None,
        undisturbed: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Make it; it starts as the small model without an adapter.

        Args:
            model: The small model.
            settings: Lengths, threads, system prompt.
            large: The way to the large model; None: there is no large model.
            undisturbed: Entered when a question begins and left when its answer ends: whatever
                else wants the processor can give way meanwhile.
        """
        self._undisturbed = undisturbed
        self._model = model
        self._settings = settings
        self._large = large
        self._lock = threading.Lock()
        self._step_since: float | None = None
        self._pace = Pace(most_rows=self._most_rows())
        self.coefficients: Coefficients = PLAIN
        """As the federation announced them."""
        self.calibrated: tuple[str, Coefficients] | None = None
        """An adapter, and what this board steers with while that one answers; None: nothing."""
        self._is_closed = False
        self._antiexpert = self._new_context(None)
        self._expert = self._new_expert("", None, is_personal=False)

    @property
    def adapter(self) -> str:
        """The id of the adapter that answers; empty before the first."""
        return self._expert.adapter

    @property
    def is_personal(self) -> bool:
        """Whether that adapter is this board's own."""
        return self._expert.is_personal

    @property
    def chat_template(self) -> str:
        """The small model's; empty if it has none."""
        return self._model.chat_template

    @property
    def has_large(self) -> bool:
        """Whether there is a large model to ask, at least in principle."""
        return self._large is not None

    @property
    def is_answering(self) -> bool:
        """Whether an answer runs."""
        return self._lock.locked()

    @property
    def step_s(self) -> float:
        """How long the present step of an answer has taken, s; 0 while none is computed."""
        since = self._step_since
        return 0.0 if since is None else time.monotonic() - since

    def switch(self, adapter: str, path: Path | None, *, is_personal: bool = False) -> bool:
        """Answer with another adapter from the next question on.

        Args:
            adapter: Its id.
            path: Its GGUF; None: without one.
            is_personal: Whether it is this board's own, which no worker has.

        Returns:
            False: an answer runs and takes long; try again later.

        Raises:
            ArtifactError: It is damaged or for another base; the old one stays in use.
        """
        if not self._lock.acquire(timeout=_SWITCH_WAIT_S):
            return False
        try:
            new = self._new_expert(adapter, path, is_personal=is_personal)
            old, self._expert = self._expert, new
            old.context.close()
        finally:
            self._lock.release()
        return True

    def answer(self, question: Question) -> Iterator[Piece | Notice | AnswerSummary]:
        """Answer, piece by piece; the last item is the summary. Closing it stops the work.

        Raises:
            UsageError: The question is empty, does not fit into the context, or its grammar is
                none.
        """
        with self._undisturbed():
            prompt = self.encode(question)
            rules = self._rules(question, len(prompt))
            with self._lock:
                yield from self._answer(question, prompt, rules)

    def encode(self, question: Question) -> tuple[int, ...]:
        """The tokens after which the answer begins.

        Raises:
            UsageError: The question is empty or does not fit into the context: never cut silently.
        """
        prompt = self._encoded(question)
        if len(prompt) >= self._settings.context_tokens:
            raise LongQuestionError(
                f"the question is {len(prompt)} tokens; the context holds"
                f" {self._settings.context_tokens}: shorten it or raise context_tokens"
            )
        return prompt

    def small_rows(self, text: Sequence[int], rows: int) -> SmallRows | None:
        """What expert and antiexpert say after each of the last tokens of a text, for calibration.

        Args:
            text: Its beginning is read only if it is not the text of the call before.
            rows: For so many of its last tokens; 0: it is only read.

        Returns:
            None: an answer runs; try again later.

        Raises:
            UsageError: It does not fit into the context.
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if self._is_closed:
                return None
            expert = self._expert
            spare = expert.cache.spare
            pair = spare.expert.rows(text, rows), spare.antiexpert.rows(text, rows)
            return SmallRows(expert.adapter, *pair)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Free the contexts; the model stays."""
        with self._lock:
            self._is_closed = True
            self._expert.context.close()
            self._antiexpert.close()

    def _rules(self, question: Question, prompt_tokens: int) -> Rules:
        constraint = (
            GrammarConstraint.of_gbnf(self._model, question.grammar) if question.grammar else None
        )
        room = self._settings.context_tokens - prompt_tokens
        return Rules(
            self._model.is_end,
            min(question.max_tokens or self._settings.answer_tokens, room),
            _with_seed(question).sampling,
            constraint,
        )

    def _answer(
        self, question: Question, prompt: tuple[int, ...], rules: Rules
    ) -> Iterator[Piece | Notice | AnswerSummary]:
        expert, writer = self._expert, AnswerWriter(self._model, question, clock=time.monotonic)
        mode, writer.fallback = choose_mode(
            self._settings.share_questions, question.mode, has_large=self.has_large
        )
        conversation, cached = expert.cache.pick(prompt)
        if mode == "steered" and self._own_choice == EXPERT_ALONE:
            mode, writer.fallback = "local", _NO_HELP  # so nothing leaves the board for nothing
        steering = self._steering(question, rules, conversation) if mode == "steered" else None
        steps = decode(
            prompt,
            expert=conversation.expert,
            steerer=steering.steerer if steering else None,
            rules=rules,
            patience=Patience(time.monotonic, self._settings.answer_deadline_s),
        )
        yield from writer.written(self._timed(steps))
        yield AnswerSummary(
            mode=question.mode,
            text=writer.text,
            tokens=writer.tokens,
            steered_tokens=writer.steered_tokens,
            fallback=writer.fallback,
            ended=writer.ended,
            adapter=expert.adapter,
            is_personal=expert.is_personal,
            coefficients=steering.coefficients if steering else None,
            prompt_tokens=len(prompt),
            cached_tokens=cached,
            first_token_s=writer.first_token_s,
            seconds=writer.seconds,
            steps=steering.steps() if steering else None,
        )

    def _timed(self, steps: Iterator[Step]) -> Iterator[Step]:
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

    def _steering(self, question: Question, rules: Rules, conversation: Conversation) -> _Steering:
        access, settings = self._large, self._settings
        coefficients = self._own_choice or self.coefficients
        assert access is not None  # nothing is steered without
        where = where_to_steer(
            settings.steer_by,
            has_worker=access.at_worker is not None,
            is_personal=self._expert.is_personal or not self._expert.adapter,
            needs_logits=question.top_logprobs is not None,
            is_constrained=bool(question.grammar),
        )
        steerer: WorkerSteerer
        if where == "logits" or access.at_worker is None:
            steerer = self._drafting(access, conversation, coefficients)
        else:
            plan = AnswerPlan(self._expert.adapter, coefficients, rules)
            worker = access.at_worker(plan)
            steerer = WorkerFirst(
                worker, lambda: self._drafting(access, conversation, coefficients)
            )
        before = access.traffic.copy()
        return _Steering(steerer, coefficients, access.traffic, before)

    def _drafting(
        self, access: LargeAccess, conversation: Conversation, coefficients: Coefficients
    ) -> WorkerSteerer:
        settings = self._settings
        return DraftAndVerify(
            conversation.antiexpert,
            access.large,
            Settings(
                coefficients,
                candidates=settings.candidate_logits,
                tolerance=settings.sampling_tolerance,
                first_detail="all" if settings.exact_logits else "few",
                most_rows=self._most_rows(),
            ),
            clock=time.monotonic,
            pace=self._pace,
        )

    @property
    def _own_choice(self) -> Coefficients | None:
        """What calibration has found for the present adapter, if it has."""
        adapter, coefficients = self.calibrated or ("", None)
        return coefficients if adapter == self.adapter else None

    def _most_rows(self) -> int:
        """Whole rows are large: no more of them than go into one message."""
        settings = self._settings
        if not settings.exact_logits:
            return settings.draft_tokens
        fitting = _LARGEST_REPLY_BYTES // (4 * self._model.vocabulary_size)
        return max(1, min(settings.draft_tokens, fitting))

    def _encoded(self, question: Question) -> tuple[int, ...]:
        if question.text:
            return with_begin(self._model, self._model.tokenize(question.text, special=True))
        messages = question.messages
        if not messages or not messages[-1].content.strip():
            raise UsageError("the question is empty")
        system = self._settings.system_prompt
        if system and messages[0].role != "system":
            messages = (ChatMessage(role="system", content=system), *messages)
        return encode_messages(self._model, messages, question.tools)

    def _new_context(self, adapter: Path | None) -> LlamaContext:
        settings = self._settings
        return LlamaContext(
            self._model,
            tokens=settings.context_tokens * settings.conversations,
            sequences=settings.conversations,
            threads=settings.threads,
            adapter=adapter,
            is_shared=False,
        )

    def _new_expert(self, adapter: str, path: Path | None, *, is_personal: bool) -> _Expert:
        context = self._new_context(path)
        return _Expert(adapter, is_personal, context, PromptCache(context, self._antiexpert))


def _with_seed(question: Question) -> Question:
    """Sampling without a seed is seeded by chance, so that two answers differ."""
    sampling = question.sampling
    if sampling.is_greedy or sampling.seed:
        return question
    seed = 1 + secrets.randbelow(2**53 - 1)
    return replace(question, sampling=msgspec.structs.replace(sampling, seed=seed))
