"""What fine-tuning takes and how fast it is, by mode, against plain loops of transformers and PEFT.

Every mode runs in a process of its own, so that its peak is its own. Same model, batch, data,
adapter and optimiser; the plain loops compute the loss as `model(input_ids, labels=…)` does.
Medians over the steps but the first.

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


def main() -> None:
    """Measure, and write the table or JSON to standard output."""
    flags = _flags()
    if flags.child:
        sys.stdout.write(json.dumps(_measure(flags.child, flags)) + "\n")
        return
    rows = [_row(way, _in_child(way)) for way in flags.ways or _WAYS]
    _add_differences(rows)
    targets = _targets({str(row["way"]): row for row in rows})
    if flags.json:
        content = {"machine": machine(), "commit": commit(), "rows": rows}
        sys.stdout.write(json.dumps(content | {"targets": list(map(str, targets))}) + "\n")
        return
    head = f"{machine()}; commit {commit()}; {flags.model.name}, {flags.batch} x {flags.tokens}"
    lines = [head, "", *markdown_table(rows), "", *(f"- {one}" for one in targets)]
    sys.stdout.write("\n".join(lines) + "\n")


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="GGUF")
    parser.add_argument("--batch", type=int, default=4, help="examples a step")
    parser.add_argument("--tokens", type=int, default=256, help="of an example; half are answer")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--ways", nargs="*", choices=list(_WAYS), help="unset: all")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("--child", choices=list(_WAYS), help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_child(way: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training_memory", *sys.argv[1:], "--child", way]
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _measure(way: str, flags: argparse.Namespace) -> dict[str, Any]:
    """One way's steps, in this process."""
    import torch

    from edge_runtime.training.fine_tuning import new_adapter
    from edge_runtime.training.memory import peak_bytes
    from fedpt.gguf_file import read_gguf

    torch.set_num_threads(flags.threads)
    file = read_gguf(flags.model)
    adapter = new_adapter(8, 0)(file)
    examples = _examples(file.tensors["token_embd.weight"].shape[0], flags)
    how = _WAYS[way]
    add_gradients, factors, change = (
        _plain(file, adapter, examples, way) if how is None else _ours(file, adapter, examples, how)
    )
    del adapter, file
    losses, seconds, cpu = [], [], []
    for _ in range(flags.steps):
        start, cpu_start = time.perf_counter(), time.process_time()
        losses.append(add_gradients())
        torch.nn.utils.clip_grad_norm_(factors, 1.0)
        change()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    tokens = flags.batch * flags.tokens
    skipped = 1 if flags.steps > 1 else 0
    return {
        "losses": losses,
        "peak": peak_bytes() / _MEGABYTE,
        "speed": tokens / statistics.median(seconds[skipped:]),
        "cpu_speed": tokens / statistics.median(cpu[skipped:]),
    }


def _examples(vocabulary: int, flags: argparse.Namespace) -> list[Any]:
    from fedpt.chat import EncodedExample

    rng = np.random.default_rng(0)
    half = flags.tokens // 2
    rows = rng.integers(0, vocabulary, (flags.batch, flags.tokens)).tolist()
    return [EncodedExample(tuple(row[:half]), tuple(row[half:])) for row in rows]


Training = tuple[Callable[[], float], list[Any], Callable[[], None]]
"""Adds gradients up and gives the loss; the factors; changes them."""


def _plain(file: Any, adapter: Any, examples: Sequence[Any], way: str) -> Training:
    """As in any tutorial: whole logits, prompts masked by labels."""
    import torch

    from converters.gguf_to_torch import load_causal_lm
    from converters.lora_in_torch import put_on, trainable

    dtype = torch.bfloat16 if "bfloat16" in way else torch.float32
    network = put_on(load_causal_lm(file.path, dtype=dtype), adapter)
    network.train()
    ids = torch.tensor([[*one.prompt, *one.answer] for one in examples])
    labels = torch.tensor([[-100] * len(one.prompt) + list(one.answer) for one in examples])

    def add_gradients() -> float:
        loss = network(input_ids=ids, labels=labels).loss
        loss.backward()
        return float(loss.detach())

    factors = trainable(network)
    optimiser = torch.optim.AdamW(factors, lr=_RATE, weight_decay=0.0)

    def change() -> None:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return add_gradients, factors, change


def _ours(file: Any, adapter: Any, examples: Sequence[Any], how: How) -> Training:
    from edge_runtime.training.adam import Adam
    from edge_runtime.training.memory import give_back_memory
    from edge_runtime.training.network import open_network
    from edge_runtime.training.passes import passes

    if how.thrifty:
        give_back_memory()
    network = open_network(file, adapter, how)
    lengths = [len(one) for one in examples]
    answers = sum(len(one.answer) for one in examples)
    parts = passes(range(len(examples)), lengths, tokens=how.pass_tokens)

    def add_gradients() -> float:
        total = 0.0
        for part in parts:
            loss = network.loss([examples[index] for index in part]) / answers
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            total += float(loss.detach())
        return total

    factors = list(network.factors.values())
    return add_gradients, factors, partial(Adam(factors).step, _RATE)


def _row(way: str, measured: dict[str, Any]) -> Row:
    return {
        "way": way,
        "peak MB": round(measured["peak"]),
        "tokens/s": round(measured["speed"], 1),
        "tokens/s of CPU": round(measured["cpu_speed"], 1),
        "last loss": round(measured["losses"][-1], 4),
    }


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
