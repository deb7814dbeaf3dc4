"""Steered decode in one process: ours against the reference algorithm in torch.

Greedy answers, all models having read the prompt before the clock starts (`--whole`: the clock
starts with the question). Draft and verify over llama.cpp, the same models one token at a time over
llama.cpp without any of our code, and one token at a time in torch.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.bare_llama import BareContext, BareModel
from benchmarks.interleaving import by_turns, median_ratio
from benchmarks.report import Report, Target
from benchmarks.subject import Subject, arguments, encoded_prompts, subject_of
from benchmarks.torch_reference import TorchReference
from edge_runtime.drivers.local_large import ParallelLarge
from fedpt.decoding.answer import Patience, Token, decode
from fedpt.decoding.draft_and_verify import DraftAndVerify, Settings
from fedpt.decoding.drafting import Rules
from fedpt.decoding.pace import Pace
from fedpt.drivers.llama import CachedText, LlamaContext, LlamaModel

_OURS, _BARE, _TORCH = (
    "draft and verify",
    "llama.cpp, a token at a time",
    "torch, a token at a time",
)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer with its time."""

    tokens: list[int]
    seconds: float
    tokens_per_trip: float = 1.0

    @property
    def per_s(self) -> float:
        """Tokens a second."""
        return len(self.tokens) / self.seconds


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and tell."""
    parser = arguments(__doc__ or "", runs=3, prompts=12)
    parser.add_argument("--whole", action="store_true", help="time the reading of the prompt too")
    flags = parser.parse_args(argv)
    subject = subject_of(flags)
    with ExitStack() as stack:
        results = by_turns(
            _sides(stack, subject, is_read=not flags.whole), turns=subject.runs * subject.prompts
        )
    report = Report("steered_decode", subject)
    speeds = {name: [one.per_s for one in turns] for name, turns in results.items()}
    for name, values in speeds.items():
        turns = results[name]
        report.rows.append(
            {
                "side": name,
                "tokens/s": statistics.median(values),
                "of torch": median_ratio(values, speeds[_TORCH]),
                "tokens a large pass": statistics.mean(one.tokens_per_trip for one in turns),
                "answers as ours": statistics.mean(
                    one.tokens == ours.tokens
                    for one, ours in zip(turns, results[_OURS], strict=True)
                ),
            }
        )
    report.targets.append(
        Target("ours by torch", median_ratio(speeds[_OURS], speeds[_TORCH]), least=8)
    )
    report.notes.append(
        "torch computes in float32, llama.cpp rounds activations to 8 bits: near ties may differ"
    )
    report.tell()


def _sides(
    stack: ExitStack, subject: Subject, *, is_read: bool
) -> dict[str, Callable[[int], Answered]]:
    model = stack.enter_context(LlamaModel(subject.small))
    prompts = encoded_prompts(model, subject)
    reference = TorchReference(
        subject.small,
        subject.adapter,
        subject.large,
        subject.coefficients,
        threads=os.cpu_count() or 1,
    )
    ours, bare = Ours(stack, model, subject), _Bare(stack, subject, model.vocabulary_size)

    def torch_side(turn: int) -> Answered:
        prompt = prompts[turn % len(prompts)]
        began = time.monotonic()
        reference.begin()
        if is_read:
            reference.read(prompt[:-1])
            began = time.monotonic()
        tokens = reference.answer(
            prompt, subject.tokens, is_end=model.is_end, width=model.vocabulary_size
        )
        return Answered(tokens, time.monotonic() - began)

    return {
        _OURS: lambda turn: ours.answer(prompts[turn % len(prompts)], is_read=is_read),
        _BARE: lambda turn: bare.answer(
            prompts[turn % len(prompts)], model.is_end, is_read=is_read
        ),
        _TORCH: torch_side,
    }


class Ours:
    """`DraftAndVerify` with all three models in this process."""

    def __init__(self, stack: ExitStack, model: LlamaModel, subject: Subject) -> None:
        large = stack.enter_context(LlamaModel(subject.large))
        self._subject = subject
        self._rules = Rules(model.is_end, subject.tokens)
        self._pace = Pace(most_rows=16)
        self._texts = [
            CachedText(
                stack.enter_context(
                    LlamaContext(
                        of,
                        tokens=subject.context_tokens,
                        threads=subject.threads,
                        adapter=adapter,
                    )
                )
            )
            for of, adapter in ((model, subject.adapter), (model, None), (large, None))
        ]
        self._large = stack.enter_context(ParallelLarge(self._texts[2], clock=time.monotonic))

    def answer(self, prompt: list[int], *, is_read: bool = False) -> Answered:
        """Answer after a prompt; `is_read`: all models have read it before the clock starts."""
        expert, antiexpert, _ = self._texts
        for text in self._texts:
            text.rewind(0)
            if is_read:
                text.append(prompt[:-1], 0)
        began = time.monotonic()
        steerer = DraftAndVerify(
            antiexpert,
            self._large,
            Settings(self._subject.coefficients, candidates=0, first_detail="all"),
            clock=time.monotonic,
            pace=self._pace,
        )
        steps = decode(
            prompt,
            expert=expert,
            steerer=steerer,
            rules=self._rules,
            patience=Patience(time.monotonic, float("inf")),
        )
        tokens = [step.id for step in steps if isinstance(step, Token)]
        seconds = time.monotonic() - began
        return Answered(tokens, seconds, len(tokens) / steerer.tally.round_trips)


class _Bare:
    """Three contexts, one token at a time, nothing of ours."""

    def __init__(self, stack: ExitStack, subject: Subject, width: int) -> None:
        small, large = (
            stack.enter_context(BareModel(path)) for path in (subject.small, subject.large)
        )
        alpha, beta, gamma = subject.coefficients
        self._most, self._width = subject.tokens, width
        self._weighed = [
            (
                weight,
                stack.enter_context(
                    BareContext(
                        of,
                        tokens=subject.context_tokens,
                        threads=subject.threads,
                        adapter=adapter,
                    )
                ),
            )
            for weight, of, adapter in (
                (alpha, small, subject.adapter),
                (beta, large, None),
                (-gamma, small, None),
            )
        ]

    def answer(
        self, prompt: list[int], is_end: Callable[[int], bool], *, is_read: bool
    ) -> Answered:
        position = len(prompt) - 1 if is_read else 0
        for _, context in self._weighed:
            context.clear()
            if is_read:
                context.decode(prompt[:-1], 0)
        began = time.monotonic()
        new, answer = prompt[position:], list[int]()
        while len(answer) < self._most:
            rows = [
                w * context.decode(new, position)[: self._width] for w, context in self._weighed
            ]
            token = int(sum(rows[1:], rows[0]).argmax())
            answer.append(token)
            if is_end(token):
                break
            position, new = position + len(new), [token]
        return Answered(answer, time.monotonic() - began)


if __name__ == "__main__":
    main()
