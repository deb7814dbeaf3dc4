"""One fine-tuning from files to an adapter: prepare, choose a way, train, judge.

The daemon's child process and `fedpt device train` both do this and nothing else; they differ in
where things come from and go to.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
import torch

from converters.tensor_names import (
    architecture_of,
    layer_count,
    linear_shapes,
    matrix_shape,
    sizes_of,
)
from edge_runtime.data.preparing import Prepared, cut, prepare
from edge_runtime.data.training_set import read_training_set
from edge_runtime.training.acceptance import require_acceptable
from edge_runtime.training.checkpoint import Checkpoints, Position, fingerprint_of
from edge_runtime.training.early_stopping import best_epoch
from edge_runtime.training.how import How, Mode, Precision
from edge_runtime.training.mapped_weights import MappedMatrix, map_matrices
from edge_runtime.training.memory import (
    available_bytes,
    give_back_holes,
    give_back_memory,
    keep_few_kernels,
    peak_bytes,
    resident_bytes,
)
from edge_runtime.training.memory_fence import fence_memory
from edge_runtime.training.memory_plan import (
    MEGABYTE,
    Sizes,
    choose,
    estimate,
    smallest_budget,
)
from edge_runtime.training.network import open_network
from edge_runtime.training.placement import HOST, best_placement
from edge_runtime.training.precision import faster_precision
from edge_runtime.training.trainer import Task, train
from edge_runtime.training_job import TrainingResult, TrainingStep
from fedpt.adapters import Adapter, AdapterManifest, initial_adapter, module_kinds, require_base
from fedpt.drivers.llama import LlamaModel
from fedpt.files import sha256_bytes
from fedpt.gguf_file import GgufFile, weights_sha256
from fedpt.wire.messages import TrainingPlan

_MOST_BY_DEFAULT: Final = 1200 * MEGABYTE
"""Enough for a fast way with a model that a board answers with, and a third of a 4 GB board."""

_LONG: Final = 1000
"""Entries; only a tokenizer's lists have more."""


@dataclass(frozen=True, slots=True)
class Request:
    """What shall be done."""

    base: Path
    data: Path
    """A device's store, or JSONL."""
    plan: TrainingPlan
    seed: int
    start: Callable[[GgufFile], Adapter]
    """The adapter to start from. Called once; it lives no longer than it has to."""
    checkpoint: Path
    checkpoint_steps: int = 20
    up_to_place: int | None = None
    """Of a store, see `DataStore.usable`; None: all that is there."""
    budget_bytes: int | None = None
    mode: Mode | None = None
    precision: Precision | Literal["auto"] = "auto"
    """auto: what this machine is fast in, found out once a training."""
    clock: Callable[[], float] = time.monotonic
    """In seconds; stands still while this process does."""
    is_fenced: bool = False
    """Whether the process shall end rather than take much more memory than was planned."""


@dataclass(frozen=True, slots=True)
class FineTuned:
    """What came of it."""

    adapter: Adapter
    result: TrainingResult
    position: Position
    how: How
    epoch_steps: int


def fine_tune(request: Request, *, on_step: Callable[[TrainingStep], None]) -> FineTuned:
    """Train an adapter, or go on with it where a checkpoint of the very same training lies.

    Raises:
        FedptError: Anything expected: bad files, too small a budget, a loss that is not finite, an
            update that is worse than what it started from. Whatever was there before is as it was.
    """
    keep_few_kernels()
    prepared, file = _read(request)
    adapter = request.start(file)
    manifest = adapter.manifest
    require_base("the adapter", manifest.base_weights, weights_sha256(file))
    checkpoints = Checkpoints(
        request.checkpoint, _fingerprint(request, adapter, prepared), request.checkpoint_steps
    )
    give_back_holes()
    there = resident_bytes()
    found = checkpoints.position()
    sizes = _sizes(file, adapter, prepared, request.plan)
    how = found.how if found else _choose(request, sizes, there)
    if how.thrifty:
        give_back_memory()
    if request.is_fenced:
        fence_memory(max(request.budget_bytes or 0, there + estimate(sizes, how)), file)
    network = open_network(file, adapter, how, best_placement())
    del adapter
    task = Task(cut(prepared, how.context_tokens), request.plan, how, request.seed)
    trained = train(network, task, on_step=on_step, checkpoints=checkpoints, clock=request.clock)
    del network
    norm_of = partial(_norm, map_matrices(file, HOST))
    require_acceptable(trained.tensors, manifest, trained.position.held_out, norm_of)
    result = _result(task, trained.position, trained.tokens_per_s, there)
    adapter = Adapter(manifest, trained.tensors)
    return FineTuned(adapter, result, trained.position, how, task.epoch_steps)


def new_adapter(rank: int, seed: int, targets: Sequence[str] = ()) -> Callable[[GgufFile], Adapter]:
    """An adapter of some kinds of layers, or of all linear ones, that changes nothing yet.

    Alpha is twice the rank.
    """

    def start(file: GgufFile) -> Adapter:
        shapes = linear_shapes(file)
        manifest = AdapterManifest(
            base_weights=weights_sha256(file),
            rank=rank,
            alpha=2.0 * rank,
            target_modules=tuple(sorted(targets)) or module_kinds(shapes),
        )
        return initial_adapter(shapes, manifest, np.random.default_rng(seed))

    return start


def _read(request: Request) -> tuple[Prepared, GgufFile]:
    """The examples as tokens; and the model's file, without its tokenizer, which takes memory."""
    examples = read_training_set(request.data, up_to_place=request.up_to_place)
    with LlamaModel(request.base, vocabulary_only=True) as model:
        prepared = prepare(model, examples, room=request.plan.context_tokens)
        file = model.file
    metadata = {key: value for key, value in file.metadata.items() if not _is_long(value)}
    return prepared, GgufFile(file.path, metadata, file.tensors)


def _is_long(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > _LONG


def _fingerprint(request: Request, adapter: Adapter, prepared: Prepared) -> str:
    """Of everything that the outcome follows from, besides the way to compute."""
    factors = b"".join(one.tobytes() for _, one in sorted(adapter.tensors.items()))
    examples = repr([*prepared.kept, *prepared.held_out]).encode()
    return fingerprint_of(
        {
            "base": adapter.manifest.base_weights,
            "adapter": sha256_bytes(factors),
            "examples": sha256_bytes(examples),
            "plan": msgspec.to_builtins(request.plan),
            "seed": request.seed,
            "wanted": [request.budget_bytes, request.mode, request.precision],
        }
    )


def _choose(request: Request, sizes: Sizes, there: int) -> How:
    precision = _precision(request, sizes, there)
    budget = request.budget_bytes or max(
        min(_MOST_BY_DEFAULT, there + available_bytes() // 2),
        smallest_budget(sizes, there, precision=precision, mode=request.mode),
    )
    return choose(sizes, budget, there, precision=precision, mode=request.mode)


def _precision(request: Request, sizes: Sizes, there: int) -> Precision:
    """The one asked for; else the faster one, if there is a way in it that fits."""
    if request.precision != "auto":
        return request.precision
    faster = faster_precision()
    least = smallest_budget(sizes, there, precision=faster, mode=request.mode)
    fits = request.budget_bytes is None or least <= request.budget_bytes
    return faster if fits else "float32"


def _sizes(file: GgufFile, adapter: Adapter, prepared: Prepared, plan: TrainingPlan) -> Sizes:
    shapes = linear_shapes(file)
    architecture = architecture_of(file)
    layers = layer_count(file)
    lengths = sorted(map(len, [*prepared.kept, *prepared.held_out]))
    dimensions = sizes_of(architecture, file.metadata, matrix_shape(file, "token_embd")[0])
    return Sizes(
        layers=layers,
        hidden=dimensions["hidden"],
        inner=dimensions["inner"],
        queries=dimensions["queries"],
        layer_numbers=sum(rows * columns for rows, columns in shapes.values()) // layers,
        trained_numbers=adapter.parameter_count,
        start_numbers=adapter.parameter_count if plan.proximal else 0,
        longest=lengths[-1],
        batch_tokens=sum(lengths[-plan.batch_examples :]),
    )


def _norm(matrices: Mapping[str, MappedMatrix], module: str) -> float:
    return float(matrices[module].expanded(torch.float32).norm())


def _result(task: Task, position: Position, tokens_per_s: float, there: int) -> TrainingResult:
    examples, held_out = task.examples, position.held_out
    peak = peak_bytes()
    return TrainingResult(
        example_count=len(examples.kept),
        seconds=position.seconds,
        loss=_mean(position, position.step - task.epoch_steps, position.step),
        first_loss=_mean(position, 0, task.epoch_steps),
        tokens_per_s=tokens_per_s,
        nll_before=held_out[0] if held_out else None,
        nll_after=held_out[best_epoch(held_out)] if held_out else None,
        epochs=position.step // task.epoch_steps,
        best_epoch=best_epoch(held_out) if held_out else 0,
        held_out_count=len(examples.held_out),
        truncated_count=examples.truncated,
        dropped_count=examples.dropped,
        mode=task.how.shown,
        peak_bytes=peak,
        own_peak_bytes=max(0, peak - there),
    )


def _mean(position: Position, start: int, stop: int) -> float:
    """Mean loss over some steps, nats a token."""
    counts = position.token_counts[start:stop]
    sums = zip(position.losses[start:stop], counts, strict=True)
    return sum(loss * count for loss, count in sums) / sum(counts)
