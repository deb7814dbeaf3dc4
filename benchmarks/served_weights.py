"""What training against the served, quantised weights gains over training against their original.

The model as F16 is the original; it is quantised to several types. The same adapter is trained, on
the same data with the same seeds, once against the original and once against each quantised file.
llama.cpp then judges each on that quantised file: held-out nll of the answers. Without `--data` and
`--held-out`: one home of the demonstration.

    python -m benchmarks.served_weights --model SMALL.gguf
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from benchmarks.report import Row, Target, tell_conversions
from converters.adapter_to_gguf import convert_adapter
from converters.model_to_gguf import convert_model
from deploy.demo.smart_home import make_smart_home_data
from edge_runtime.data.preparing import Prepared
from edge_runtime.training.fine_tuning import new_adapter
from edge_runtime.training.how import How
from edge_runtime.training.network import open_network
from edge_runtime.training.trainer import Task, train
from fedpt.adapters import Adapter
from fedpt.chat import EncodedExample, encode_example
from fedpt.drivers.llama import LlamaContext, LlamaModel
from fedpt.drivers.llama_runs import Run
from fedpt.examples import Example, read_examples
from fedpt.gguf_file import read_gguf
from fedpt.proxy_tuning import log_softmax
from fedpt.wire.messages import TrainingPlan

_RANK: Final = 8


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is trained on and judged by, as tokens."""

    kept: Sequence[EncodedExample]
    held_out: Sequence[EncodedExample]
    how: How
    plan: TrainingPlan


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the table or JSON to standard output."""
    flags = _flags(arguments)
    torch.set_num_threads(flags.threads or torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        rows = _rows(flags, Path(folder))
    targets = [
        Target(f"{row['served']}: nll with the served weights' adapter", _ratio(row), most=1.0)
        for row in rows
    ]
    how = f"seeds, medians; {flags.model.name}, {flags.examples} examples, {flags.epochs} epochs"
    tell_conversions(rows, targets, runs=flags.runs, how=how, as_json=flags.json)


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=str(__doc__).splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, help="GGUF; its values are the original")
    add("--kinds", nargs="+", default=["Q8_0", "Q4_0", "Q3_K_S"], help="what is served")
    add("--data", type=Path, help="examples to train on, JSONL")
    add("--held-out", type=Path, help="examples to judge by, JSONL")
    add("--examples", type=int, default=128, help="how many of the data")
    add("--epochs", type=int, default=2)
    add("--learning-rate", type=float, default=5e-4)
    add("--precision", choices=["float32", "bfloat16"], default="float32")
    add("--runs", type=int, default=3, help="seeds")
    add("--threads", type=int, help="unset: torch's own choice")
    add("--json", action="store_true", help="figures as JSON instead of a table")
    return parser.parse_args(arguments)


def _rows(flags: argparse.Namespace, folder: Path) -> list[Row]:
    original = folder / "original.gguf"
    convert_model(flags.model, original, kind="F16")
    lesson = _lesson(flags, original)
    seeds = range(flags.runs)
    of_original = [_adapter(original, lesson, seed) for seed in seeds]
    rows: list[Row] = []
    for kind in flags.kinds:
        served = folder / f"{kind}.gguf"
        convert_model(original, served, kind=kind)
        theirs = [_served_nll(served, one, lesson) for one in of_original]
        ours = [_served_nll(served, _adapter(served, lesson, seed), lesson) for seed in seeds]
        gains = [1 - own / other for own, other in zip(ours, theirs, strict=True)]
        rows.append(
            {
                "served": kind,
                "without adapter": round(_served_nll(served, None, lesson), 4),
                "trained on the original": round(statistics.median(theirs), 4),
                "trained on what is served": round(statistics.median(ours), 4),
                "gain, %": round(100 * statistics.median(gains), 2),
                "least gain, %": round(100 * min(gains), 2),
            }
        )
    return rows


def _ratio(row: Row) -> float:
    gain = row["gain, %"]
    assert isinstance(gain, int | float)  # made above
    return 1 - gain / 100


def _lesson(flags: argparse.Namespace, model: Path) -> Lesson:
    kept, held_out = _examples(flags)
    with LlamaModel(model, vocabulary_only=True) as tokenizer:
        encoded = [encode_example(tokenizer, one) for one in kept[: flags.examples]]
        judging = [encode_example(tokenizer, one) for one in held_out]
    plan = TrainingPlan(
        epochs=flags.epochs,
        learning_rate=flags.learning_rate,
        batch_examples=4,
        context_tokens=max(map(len, encoded)),
    )
    how = How(mode="expanded", recompute=False, pass_tokens=512, precision=flags.precision)
    return Lesson(encoded, judging, how, plan)


def _examples(flags: argparse.Namespace) -> tuple[Sequence[Example], Sequence[Example]]:
    if flags.data and flags.held_out:
        return read_examples(flags.data), read_examples(flags.held_out)
    data = make_smart_home_data(devices=1, examples_per_device=flags.examples, public=0)
    (private,) = data.private.values()
    return private, data.evaluation


def _adapter(base: Path, lesson: Lesson, seed: int) -> Adapter:
    """Train one against a file."""
    file = read_gguf(base)
    start = new_adapter(_RANK, seed)(file)
    numbers = range(1, len(lesson.kept) + 1)
    prepared = Prepared(lesson.kept, numbers, held_out=[], truncated=0, dropped=0)
    task = Task(prepared, lesson.plan, lesson.how, seed)
    trained = train(open_network(file, start, lesson.how), task, on_step=lambda _: None)
    return Adapter(start.manifest, trained.tensors)


def _served_nll(served: Path, adapter: Adapter | None, lesson: Lesson) -> float:
    """Of the held-out answers' tokens in llama.cpp, nats a token."""
    with tempfile.TemporaryDirectory() as folder, LlamaModel(served) as model:
        path = None
        if adapter is not None:
            path = Path(folder) / "adapter.gguf"
            convert_adapter(adapter, model.file, path)
        longest = max(map(len, lesson.held_out))
        with LlamaContext(model, tokens=longest, adapter=path) as context:
            total = sum(_nll(context, one) for one in lesson.held_out)
    return total / sum(len(one.answer) for one in lesson.held_out)


def _nll(context: LlamaContext, example: EncodedExample) -> float:
    context.forget(0)
    tokens = (*example.prompt, *example.answer[:-1])
    (rows,) = context.evaluate([Run(0, 0, tokens, wanted=len(example.answer))])
    return -float(log_softmax(rows)[range(len(rows)), list(example.answer)].sum())


if __name__ == "__main__":
    main()
