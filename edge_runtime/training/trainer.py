"""The training loop: one adapter, one data set, one frozen base model.

The base is the very GGUF file that llama.cpp serves, expanded to torch, and the tokens are
llama.cpp's own; so the adapter fits what will be served, rounding of the weights included.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from converters.gguf_to_torch import load_causal_lm
from converters.lora_in_torch import (
    answer_logits,
    answer_tokens,
    batches,
    put_on,
    read_off,
    trainable,
)
from edge_runtime.training_job import TrainingResult, TrainingStep
from fedpt import adapters
from fedpt.adapters import Adapter
from fedpt.chat import EncodedExample, encode_example
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import TrainingError
from fedpt.examples import Example
from fedpt.gguf_file import weights_sha256
from fedpt.wire.messages import TrainingPlan

_WARMUP_SHARE = 0.1
_MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training."""

    adapter: Adapter
    result: TrainingResult


def encode_for(
    model: LlamaModel, examples: Sequence[Example], *, room: int
) -> list[EncodedExample]:
    """The examples as the model's tokens, each at most `room` of them."""
    return [encode_example(model, example).truncated(room) for example in examples]


def require_base(adapter: Adapter, model: LlamaModel) -> None:
    """Refuse to train an adapter on a base that is not its own.

    Raises:
        WrongBaseError: Names both.
    """
    weights = weights_sha256(model.file)
    adapters.require_base("the adapter", adapter.manifest.base_weights, weights)


def train(
    model: LlamaModel,
    adapter: Adapter,
    examples: Sequence[EncodedExample],
    plan: TrainingPlan,
    *,
    seed: int,
    on_step: Callable[[TrainingStep], None],
) -> Trained:
    """Fine-tune `adapter` on `examples`; deterministic by `seed` on one machine.

    AdamW, linear warm-up, cosine decay to a tenth, gradients clipped to norm 1. The loss is the
    mean cross-entropy of the answers' tokens, in nats.

    Raises:
        TrainingError: The loss is no longer finite.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = put_on(load_causal_lm(model.file.path), adapter)
    network.train()
    optimiser = torch.optim.AdamW(trainable(network), lr=plan.learning_rate, weight_decay=0.0)
    lengths = [len(example.prompt) + len(example.answer) for example in examples]
    total = plan.epochs * -(-len(examples) // plan.batch_examples)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, total))
    started, done, losses = time.monotonic(), 0, []
    for _ in range(plan.epochs):
        sums = np.zeros(2)
        for indices in batches(lengths, size=plan.batch_examples, rng=rng):
            batch = [examples[index] for index in indices]
            loss = cross_entropy(answer_logits(network, batch), answer_tokens(batch))
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss.item()} at step {done + 1}; lower the learning rate"
                    f" ({plan.learning_rate})"
                )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            torch.nn.utils.clip_grad_norm_(trainable(network), _MAX_GRADIENT_NORM)
            optimiser.step()
            schedule.step()
            done += 1
            tokens = sum(len(example.answer) for example in batch)
            sums += (loss.item() * tokens, tokens)
            on_step(TrainingStep(done=done, total=total, loss=loss.item()))
        losses.append(float(sums[0] / sums[1]))
    seconds = time.monotonic() - started
    result = TrainingResult(
        example_count=len(examples),
        seconds=seconds,
        loss=losses[-1],
        first_loss=losses[0],
        tokens_per_s=plan.epochs * sum(lengths) / seconds,
    )
    return Trained(read_off(network, adapter.manifest), result)


def _rate(step: int, total: int) -> float:
    """Share of the learning rate at a step: up over the first tenth, then down a cosine."""
    warmup = max(1, round(total * _WARMUP_SHARE))
    if step < warmup:
        return (step + 1) / warmup
    return 0.1 + 0.45 * (1 + float(np.cos(np.pi * (step - warmup) / max(1, total - warmup))))
