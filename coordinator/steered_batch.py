"""Many texts at a time through large, expert and antiexpert: their logits, and steered answers.

For evaluation and distillation, where throughput counts. All texts of a batch advance together,
one llama.cpp batch a step and model; what their prompts have in common is computed once.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from fedpt.chat import EncodedExample
from fedpt.drivers.llama import LlamaContext, LlamaModel
from fedpt.drivers.llama_runs import Run
from fedpt.proxy_tuning import Coefficients, Logits, Rows, steer_logits
from fedpt.token_texts import common_prefix
from fedpt.vocabulary import require_same_vocabulary

BATCH_TEXTS: Final = 24
"""Texts at a time: beyond, the arithmetic is no denser and only the rows of logits grow."""

Prompt = Sequence[int]


class TextBatch:
    """Up to `BATCH_TEXTS` texts in one context, by slot."""

    def __init__(
        self, model: LlamaModel, *, longest: int, threads: int | None, adapter: Path | None = None
    ) -> None:
        self._context = LlamaContext(
            model,
            tokens=BATCH_TEXTS * longest,
            sequences=BATCH_TEXTS,
            threads=threads,
            adapter=adapter,
        )
        self._prompts: tuple[tuple[int, ...], ...] = ()

    def load(self, prompts: Sequence[Prompt]) -> None:
        """Make `prompts` the texts, all but each one's last token; keep them if they are it."""
        wanted = tuple(tuple(prompt) for prompt in prompts)
        if wanted != self._prompts:
            self._fill(wanted)
        for slot, prompt in enumerate(wanted):
            self._context.forget(slot, len(prompt) - 1)

    def logits(self, tokens: Sequence[tuple[int, int, Sequence[int]]]) -> list[Logits]:
        """Add to some texts and give the logits after each added token.

        Args:
            tokens: Slot, position of the first token, and the tokens to add.

        Returns:
            For each `(T, V)`.
        """
        return self._context.evaluate(
            [Run(slot, position, new, wanted=len(new)) for slot, position, new in tokens]
        )

    def close(self) -> None:
        """Free it."""
        self._context.close()

    def _fill(self, prompts: tuple[tuple[int, ...], ...]) -> None:
        for slot in range(BATCH_TEXTS):
            self._context.forget(slot)
        self._prompts = prompts
        shared = min(common_prefix(prompts[0], prompt) for prompt in prompts)
        shared = min(shared, min(map(len, prompts)) - 1)
        if shared:
            self._context.evaluate([Run(0, 0, prompts[0][:shared], wanted=0)])
            for slot in range(1, len(prompts)):
                self._context.share(0, slot)
        rest = [(slot, prompt[shared:-1]) for slot, prompt in enumerate(prompts)]
        self._context.evaluate([Run(slot, shared, new, wanted=0) for slot, new in rest if new])


class Trio:
    """Large, expert and antiexpert, loaded to work on the same texts."""

    def __init__(
        self,
        small: Path,
        adapter: Path | None,
        large: Path,
        *,
        longest: int,
        threads: int | None = None,
    ) -> None:
        """Load them.

        Args:
            small: The small model.
            adapter: What makes it the expert; None: expert and antiexpert are the same.
            large: The large model.
            longest: Tokens of the longest text, answer included.
            threads: None: all cores.

        Raises:
            ModelFileError: A model is missing or damaged.
            VocabularyMismatchError: Small and large do not share their vocabulary.
            AdapterError: The adapter is damaged or for another base.
        """
        self.small = LlamaModel(small)
        self.large = LlamaModel(large)
        require_same_vocabulary(self.small.vocabulary, self.large.vocabulary)
        self._batches = (  # in the order of `Rows`
            TextBatch(self.large, longest=longest, threads=threads),
            TextBatch(self.small, longest=longest, threads=threads, adapter=adapter),
            TextBatch(self.small, longest=longest, threads=threads),
        )

    def answer_rows(self, examples: Sequence[EncodedExample]) -> list[Rows]:
        """Each model's logits at the positions that predict the answers: per example `(T, V)`."""
        of_each = [self._teacher_forced(batch, examples) for batch in self._batches]
        return [Rows(*rows) for rows in zip(*of_each, strict=True)]

    def answers(
        self,
        prompts: Sequence[Prompt],
        coefficients: Coefficients,
        *,
        max_tokens: int,
        on_logits: Callable[[int, Logits], None] = lambda _slot, _logits: None,
    ) -> list[list[int]]:
        """Decode greedily after each prompt; the ending token is left out.

        A model whose weight is zero does not run: (1, 0, 0) is the expert alone, (0, 1, 0) the
        large model, (0, 0, -1) the antiexpert.

        Args:
            prompts: At most `BATCH_TEXTS`.
            coefficients: How the three are combined.
            max_tokens: Longest answer.
            on_logits: Sees each slot's combined logits `(V,)` before its token is chosen.
        """
        weights = (coefficients.beta, coefficients.alpha, coefficients.gamma)
        batches = [
            batch if weight else None for batch, weight in zip(self._batches, weights, strict=True)
        ]
        for batch in batches:
            if batch is not None:
                batch.load(prompts)
        answers: list[list[int]] = [[] for _ in prompts]
        running = {slot: prompt[-1] for slot, prompt in enumerate(prompts)}
        for step in range(max_tokens):
            new = [
                (slot, len(prompts[slot]) - 1 + step, [token]) for slot, token in running.items()
            ]
            combined = self._combine(batches, new, coefficients)
            for slot, logits in zip(list(running), combined, strict=True):
                on_logits(slot, logits)
                token = int(logits.argmax())
                if self.small.is_end(token):
                    del running[slot]
                else:
                    answers[slot].append(token)
                    running[slot] = token
            if not running:
                break
        return answers

    def close(self) -> None:
        """Free everything."""
        for batch in self._batches:
            batch.close()
        self.small.close()
        self.large.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.close()

    def _teacher_forced(self, batch: TextBatch, examples: Sequence[EncodedExample]) -> list[Logits]:
        batch.load([example.prompt for example in examples])
        new = [
            (slot, len(example.prompt) - 1, [example.prompt[-1], *example.answer[:-1]])
            for slot, example in enumerate(examples)
        ]
        return batch.logits(new)

    def _combine(
        self,
        batches: Sequence[TextBatch | None],
        new: Sequence[tuple[int, int, Sequence[int]]],
        coefficients: Coefficients,
    ) -> list[Logits]:
        """Combined logits `(V,)` of each text."""
        nothing = np.zeros((len(new), self.small.vocabulary_size), np.float32)
        of_each = [
            nothing if batch is None else np.concatenate(batch.logits(new)) for batch in batches
        ]
        return list(steer_logits(Rows(*of_each), coefficients))


def groups(count: int) -> list[range]:
    """The indices of `count` texts, cut into batches."""
    return [range(start, min(start + BATCH_TEXTS, count)) for start in range(0, count, BATCH_TEXTS)]
