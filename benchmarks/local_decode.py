"""Local decode: the assistant with its adapter against a bare llama.cpp loop.

Tokens a second after the first one of each answer, greedy. The bare loop decodes the very tokens
that the assistant gives (checked). Beside them: our decode loop without text, the small model with
the adapter merged into its weights, and without any adapter.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.asked_assistant import ask
from benchmarks.bare_llama import BareContext, BareModel
from benchmarks.interleaving import by_turns, median_ratio
from benchmarks.merging import write_merged
from benchmarks.report import Report, Target
from benchmarks.subject import Subject, arguments, encoded_prompts, subject_of
from edge_runtime.assistant import Assistant
from edge_runtime.settings import AssistantSettings
from fedpt.decoding.answer import Patience, Token, decode
from fedpt.decoding.drafting import Rules
from fedpt.drivers.llama import CachedText, LlamaContext, LlamaModel
from fedpt.examples import Example, read_examples

_OURS, _LOOP, _BARE = (
    "assistant, run-time adapter",
    "our loop, run-time adapter",
    "bare, same adapter",
)
_MERGED, _PLAIN = "bare, merged adapter", "bare, no adapter"


@dataclass(frozen=True, slots=True)
class Decoded:
    """An answer, decoded: steps after its first token."""

    steps: int
    seconds: float
    answer: list[int]
    """Empty where it is not known."""

    @property
    def per_s(self) -> float:
        """Tokens a second."""
        return self.steps / self.seconds


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and tell."""
    flags = arguments(__doc__ or "", runs=5, prompts=12).parse_args(argv)
    subject = subject_of(flags)
    report = Report("local_decode", subject)
    with ExitStack() as stack:
        results = by_turns(_sides(stack, subject), turns=subject.runs * subject.prompts)
    speeds = {name: [one.per_s for one in runs] for name, runs in results.items()}
    for name, values in speeds.items():
        report.rows.append(
            {
                "side": name,
                "tokens/s": statistics.median(values),
                "of bare": median_ratio(values, speeds[_BARE]),
            }
        )
    report.targets.append(
        Target("assistant by bare", median_ratio(speeds[_OURS], speeds[_BARE]), least=0.97)
    )
    cost = 1 - median_ratio(speeds[_BARE], speeds[_MERGED])
    report.notes.append(f"the run-time adapter costs {cost:.1%} against a merged one (both bare)")
    pairs = zip(results[_LOOP], results[_BARE], strict=True)
    is_same = all(ours.answer == theirs.answer for ours, theirs in pairs)
    report.notes.append(f"tokens of our loop and the bare one are the same: {is_same}")
    report.tell()


def _sides(stack: ExitStack, subject: Subject) -> dict[str, Callable[[int], Decoded]]:
    model = stack.enter_context(LlamaModel(subject.small))
    prompts = encoded_prompts(model, subject)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    merged = stack.enter_context(BareModel(write_merged(subject.small, subject.adapter, folder)))
    bare = stack.enter_context(BareModel(subject.small))

    def context(of: BareModel, adapter: Path | None) -> BareContext:
        return stack.enter_context(
            BareContext(of, tokens=subject.context_tokens, threads=subject.threads, adapter=adapter)
        )

    def bare_side(one: BareContext) -> Callable[[int], Decoded]:
        return lambda turn: _bare(one, prompts[turn % len(prompts)], lengths[turn % len(prompts)])

    assistant = stack.enter_context(_assistant(model, subject))
    examples = read_examples(subject.data)
    ours = LlamaContext(
        model, tokens=subject.context_tokens, threads=subject.threads, adapter=subject.adapter
    )
    text, rules = CachedText(stack.enter_context(ours)), Rules(model.is_end, subject.tokens)
    lengths = [len(_loop(text, prompt, rules).answer) for prompt in prompts]
    return {
        _OURS: lambda turn: _ask(assistant, examples[turn % len(prompts)]),
        _LOOP: lambda turn: _loop(text, prompts[turn % len(prompts)], rules),
        _BARE: bare_side(context(bare, subject.adapter)),
        _MERGED: bare_side(context(merged, None)),
        _PLAIN: bare_side(context(bare, None)),
    }


@contextmanager
def _assistant(model: LlamaModel, subject: Subject) -> Iterator[Assistant]:
    settings = AssistantSettings(
        context_tokens=subject.context_tokens, threads=subject.threads, answer_tokens=subject.tokens
    )
    assistant = Assistant(model, settings)
    try:
        assistant.switch("measured", subject.adapter)
        yield assistant
    finally:
        assistant.close()


def _ask(assistant: Assistant, example: Example) -> Decoded:
    summary = ask(assistant, example)
    steps = summary.tokens - (summary.ended == "length")  # else the ending token is one more
    return Decoded(steps, summary.seconds - summary.first_token_s, [])


def _loop(text: CachedText, prompt: list[int], rules: Rules) -> Decoded:
    text.rewind(0)
    patience = Patience(time.monotonic, float("inf"))
    answer: list[int] = []
    began = 0.0
    for step in decode(prompt, expert=text, steerer=None, rules=rules, patience=patience):
        began = began or time.monotonic()
        assert isinstance(step, Token)  # nothing is steered
        answer.append(step.id)
    return Decoded(len(answer) - 1, time.monotonic() - began, answer)


def _bare(context: BareContext, prompt: list[int], length: int) -> Decoded:
    context.clear()
    token = int(context.decode(prompt, 0).argmax())
    answer, began = [token], time.monotonic()
    for position in range(len(prompt), len(prompt) + length - 1):
        token = int(context.decode([token], position).argmax())
        answer.append(token)
    return Decoded(length - 1, time.monotonic() - began, answer)


if __name__ == "__main__":
    main()
