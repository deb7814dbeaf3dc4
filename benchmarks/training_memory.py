"""What fine-tuning takes and how fast it is, by mode, against plain loops of transformers and PEFT.

Every mode runs in a process of its own, so that its peak is its own. Same model, batches, data,
adapter and optimiser; the plain loops compute the loss as `model(input_ids, labels=…)` does. Tokens
are those of examples; padding is none. Medians over the steps but the first, and over whole runs.

    python -m benchmarks.training_memory --model SMALL.gguf
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.report import Row, Target, commit, machine, markdown_table
from edge_runtime.training.how import How

_WAYS: Final = {
    "plain loop, float32": None,
    "plain loop, bfloat16": None,
    "expanded": How(mode="expanded", recompute=False, pass_tokens=512),
    "mapped": How(mode="mapped", recompute=False, pass_tokens=256),
    "mapped, again": How(mode="mapped", recompute=True),
    "expanded, bfloat16": How(
        mode="expanded", recompute=False, pass_tokens=512, precision="bfloat16"
    ),
    "mapped, bfloat16": How(mode="mapped", recompute=False, pass_tokens=512, precision="bfloat16"),
    "mapped, bfloat16, again": How(mode="mapped", recompute=True, precision="bfloat16"),
    "quanto, bfloat16": How(mode="quanto", recompute=False, pass_tokens=512, precision="bfloat16"),
    "quanto, bfloat16, again": How(mode="quanto", recompute=True, precision="bfloat16"),
    "smallest": How(
        mode="mapped", recompute=True, thrifty=True, pass_tokens=256, precision="bfloat16"
    ),
}
_MEGABYTE: Final = 1e6
_RATE: Final = 1e-3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the table or JSON to standard output."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    flags = _flags(given)
    if flags.child:
        sys.stdout.write(json.dumps(_measure(flags.child, flags)) + "\n")
        return
    rows = [
        _row(
            way,
            [
                _in_child([*given, "--child", way, "--seed", str(flags.seed + run)])
                for run in range(flags.runs)
            ],
        )
        for way in flags.ways or _WAYS
    ]
    _add_differences(rows)
    targets = _targets({str(row["way"]): row for row in rows})
    if flags.json:
        content = {"machine": machine(), "commit": commit(), "rows": rows}
        sys.stdout.write(json.dumps(content | {"targets": list(map(str, targets))}) + "\n")
        return
    size = f"{flags.batch} of {flags.data}" if flags.data else f"{flags.batch} x {flags.tokens}"
    head = f"{machine()}; commit {commit()}; {flags.model.name}, {size}; {flags.runs} runs, medians"
    lines = [head, "", *markdown_table(rows), "", *(f"- {one}" for one in targets)]
    sys.stdout.write("\n".join(lines) + "\n")


def _flags(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="GGUF")
    parser.add_argument("--batch", type=int, default=4, help="examples a step")
    parser.add_argument("--tokens", type=int, default=256, help="of an example; half are answer")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--data", type=Path, help="real examples, JSONL, instead of random ones")
    parser.add_argument("--held-out", type=Path, help="JSONL; with --data: nll after all steps")
    parser.add_argument("--seed", type=int, default=0, help="of data and adapter, the first run's")
    parser.add_argument("--runs", type=int, default=1, help="whole runs; medians are shown")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--ways", nargs="*", choices=list(_WAYS), help="unset: all")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("--child", choices=list(_WAYS), help=argparse.SUPPRESS)
    return parser.parse_args(given)


def _in_child(arguments: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training_memory", *arguments]
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _measure(way: str, flags: argparse.Namespace) -> dict[str, Any]:
    """One way's steps, in this process."""
    import torch

    from edge_runtime.training.fine_tuning import new_adapter
    from edge_runtime.training.memory import keep_few_kernels, peak_bytes
    from fedpt.gguf_file import read_gguf

    torch.set_num_threads(flags.threads)
    keep_few_kernels()
    batches, held_out = _work(flags)
    file = read_gguf(flags.model)
    adapter = new_adapter(8, flags.seed)(file)
    how = _WAYS[way]
    side = _plain(file, adapter, way) if how is None else _ours(file, adapter, how)
    del adapter, file
    losses, seconds, cpu = [], [], []
    for batch in batches:
        start, cpu_start = time.perf_counter(), time.process_time()
        losses.append(side.add_gradients(batch))
        torch.nn.utils.clip_grad_norm_(side.factors, 1.0)
        side.change()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    peak = peak_bytes()
    skipped = 1 if flags.steps > 1 else 0
    tokens = [sum(map(len, batch)) for batch in batches]
    speeds = [count / taken for count, taken in zip(tokens, seconds, strict=True)]
    cpu_speeds = [count / taken for count, taken in zip(tokens, cpu, strict=True)]
    return {
        "losses": losses,
        "peak": peak / _MEGABYTE,
        "speed": statistics.median(speeds[skipped:]),
        "cpu_speed": statistics.median(cpu_speeds[skipped:]),
        "nll": side.nll(held_out) if held_out else None,
    }


def _work(flags: argparse.Namespace) -> tuple[list[list[Any]], list[Any]]:
    """A batch for every step, and what is held out."""
    if flags.data is None:
        return [_random_batch(flags)] * flags.steps, []
    from edge_runtime.training.passes import epoch_batches
    from fedpt.chat import encode_example
    from fedpt.drivers.llama import LlamaModel
    from fedpt.examples import read_examples

    with LlamaModel(flags.model, vocabulary_only=True) as model:
        kept = [encode_example(model, one) for one in read_examples(flags.data)]
        judging = read_examples(flags.held_out) if flags.held_out else []
        held_out = [encode_example(model, one) for one in judging]
    lengths, batches = list(map(len, kept)), []
    for epoch in range(flags.steps):  # more than enough
        for batch in epoch_batches(lengths, size=flags.batch, seed=flags.seed, epoch=epoch):
            batches.append([kept[index] for index in batch])
    return batches[: flags.steps], held_out


def _random_batch(flags: argparse.Namespace) -> list[Any]:
    from fedpt.chat import EncodedExample
    from fedpt.gguf_file import read_gguf

    vocabulary = read_gguf(flags.model).tensors["token_embd.weight"].shape[0]
    rng = np.random.default_rng(flags.seed)
    half = flags.tokens // 2
    rows = rng.integers(0, vocabulary, (flags.batch, flags.tokens)).tolist()
    return [EncodedExample(tuple(row[:half]), tuple(row[half:])) for row in rows]


@dataclass(frozen=True, slots=True)
class _Side:
    """A way to train, opened."""

    add_gradients: Callable[[Sequence[Any]], float]
    """Of a batch; gives its mean loss."""
    factors: list[Any]
    change: Callable[[], None]
    """Change the factors by their gradients, and forget those."""
    nll: Callable[[Sequence[Any]], float]


def _plain(file: Any, adapter: Any, way: str) -> _Side:
    """As in any tutorial: whole logits, prompts and padding masked by labels."""
    import torch

    from converters.gguf_to_torch import load_causal_lm
    from converters.lora_in_torch import put_on, trainable

    dtype = torch.bfloat16 if "bfloat16" in way else torch.float32
    network = put_on(load_causal_lm(file.path, dtype=dtype), adapter)
    network.train()
    factors = trainable(network)
    optimiser = torch.optim.AdamW(factors, lr=_RATE, weight_decay=0.0)

    def loss(examples: Sequence[Any]) -> Any:
        width = max(map(len, examples))
        padding = [[0] * (width - len(one)) for one in examples]
        rows = list(zip(examples, padding, strict=True))
        ids = [[*one.prompt, *one.answer, *rest] for one, rest in rows]
        labels = [
            [-100] * len(one.prompt) + list(one.answer) + [-100] * len(rest) for one, rest in rows
        ]
        mask = [[1] * len(one) + rest for one, rest in rows]
        return network(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            labels=torch.tensor(labels),
        ).loss

    def add_gradients(examples: Sequence[Any]) -> float:
        value = loss(examples)
        value.backward()
        return float(value.detach())

    def change() -> None:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def nll(examples: Sequence[Any]) -> float:
        with torch.no_grad():
            total = sum(float(loss([one])) * len(one.answer) for one in examples)
        return total / sum(len(one.answer) for one in examples)

    return _Side(add_gradients, factors, change, nll)


def _ours(file: Any, adapter: Any, how: How) -> _Side:
    from edge_runtime.training.adamw import AdamW
    from edge_runtime.training.memory import give_back_memory
    from edge_runtime.training.network import nll, open_network
    from edge_runtime.training.passes import passes

    if how.thrifty:
        give_back_memory()
    network = open_network(file, adapter, how)

    def add_gradients(examples: Sequence[Any]) -> float:
        total = 0.0
        answers = sum(len(one.answer) for one in examples)
        lengths = list(map(len, examples))
        for part in passes(range(len(examples)), lengths, tokens=how.pass_tokens):
            loss = network.loss([examples[index] for index in part]) / answers
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            total += float(loss.detach())
        return total

    factors = list(network.factors.values())
    change = partial(AdamW(factors).step, _RATE)
    return _Side(add_gradients, factors, change, partial(nll, network))


def _row(way: str, runs: Sequence[dict[str, Any]]) -> Row:
    """Medians of whole runs."""

    def median(name: str) -> float:
        return statistics.median(one[name] for one in runs)

    row: Row = {
        "way": way,
        "peak MB": round(median("peak")),
        "tokens/s": round(median("speed"), 1),
        "tokens/s of CPU": round(median("cpu_speed"), 1),
        "last loss": round(runs[0]["losses"][-1], 4),
    }
    if runs[0]["nll"] is not None:
        row["held-out nll"] = round(median("nll"), 4)
    return row


def _add_differences(rows: list[Row]) -> None:
    """Of the last loss, from the plain loop in float32."""
    reference = next(
        (row["last loss"] for row in rows if row["way"] == "plain loop, float32"), None
    )
    for row in rows:
        last = row["last loss"]
        if isinstance(last, float) and isinstance(reference, float):
            row["difference"] = round(last - reference, 4)


def _targets(rows: dict[str, Row]) -> list[Target]:
    full, half = rows.get("plain loop, float32"), rows.get("plain loop, bfloat16")
    targets = []
    for way, row in rows.items():
        if row is full or row is half:
            continue
        if full:
            share = _number(row, "peak MB") / _number(full, "peak MB")
            targets.append(Target(f"{way}: of the float32 loop's peak", share, most=0.35))
        if half:
            share = _number(row, "peak MB") / _number(half, "peak MB")
            targets.append(Target(f"{way}: of the bfloat16 loop's peak", share, most=0.5))
            speed = _number(row, "tokens/s") / _number(half, "tokens/s")
            targets.append(Target(f"{way}: of the bfloat16 loop's speed", speed, least=0.8))
    if "smallest" in rows:
        targets.append(Target("smallest, MB", _number(rows["smallest"], "peak MB"), most=450))
    return targets


def _number(row: Row, column: str) -> float:
    value = row[column]
    assert isinstance(value, int | float)  # rows are made above
    return float(value)


if __name__ == "__main__":
    main()
