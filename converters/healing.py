"""Training a thinned model to be like its large one: on logits, and layer by layer on the way.

The hidden states carry far more signal a token than the logits alone, and cost no head; with them a
quarter of the positions is enough for the logits. Embeddings, norm and head stay the large model's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch.nn.functional import kl_div, linear
from transformers import LlamaForCausalLM

from converters.layer_repair import targets
from converters.layer_walk import hidden_states
from fedpt.files import written_aside
from fedpt.progress import OnProgress, Progress

_LOGIT_SHARE: Final = 0.25
_WARMUP_SHARE: Final = 0.05
_MAX_GRADIENT_NORM: Final = 1.0
_CHECKPOINT_STEPS: Final = 20


@dataclass(frozen=True, slots=True)
class Schedule:
    """How fast, and where to go on after an interruption."""

    batch: int
    learning_rate: float
    seed: int
    checkpoint: Path


@dataclass(frozen=True, slots=True)
class Pair:
    """A large model and a small one that has its layers `kept`."""

    large: LlamaForCausalLM
    small: LlamaForCausalLM
    kept: Sequence[int]


@dataclass(frozen=True, slots=True)
class Likeness:
    """How much a small model is like its large one on held-out text."""

    kl: float
    """Mean KL(large || small), nats a token."""
    top1_agreement: float


def heal(pair: Pair, tokens: torch.Tensor, schedule: Schedule, *, on_progress: OnProgress) -> None:
    """Train the small model in place, one pass over `tokens` `(N, T)`."""
    small, checkpoint = pair.small, schedule.checkpoint
    small.train()
    for name, parameter in small.named_parameters():
        parameter.requires_grad_("layers" in name)
    trained = [parameter for parameter in small.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, betas=(0.9, 0.95), weight_decay=0.0)
    total = len(tokens) // schedule.batch
    first = _resume(checkpoint, small, optimiser)
    for number in range(first, total):
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate * _rate(number, total)
        batch = tokens[number * schedule.batch : (number + 1) * schedule.batch]
        chooser = torch.Generator().manual_seed(schedule.seed + number)
        loss, kl = _loss(pair, batch, chooser)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        torch.nn.utils.clip_grad_norm_(trained, _MAX_GRADIENT_NORM)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        on_progress(Progress(number + 1, total, f"healing: KL {kl:.2f} nats/token"))
        if (number + 1) % _CHECKPOINT_STEPS == 0:
            _save(checkpoint, small, optimiser, number + 1)
    small.eval()


@torch.no_grad()
def likeness(pair: Pair, tokens: torch.Tensor) -> Likeness:
    """Compare the two on text `(N, T)`."""
    total, same = 0.0, 0
    for part in torch.split(tokens, 2):
        of_large, of_small = (
            model(part).logits.float().flatten(0, 1).log_softmax(-1)
            for model in (pair.large, pair.small)
        )
        total += float(kl_div(of_small, of_large, log_target=True, reduction="sum"))
        same += int((of_large.argmax(-1) == of_small.argmax(-1)).sum())
    return Likeness(total / tokens.numel(), same / tokens.numel())


def _loss(pair: Pair, batch: torch.Tensor, chooser: torch.Generator) -> tuple[torch.Tensor, float]:
    """KL on some positions plus the relative error of the layers' outputs; and the KL alone."""
    large = pair.large
    with torch.no_grad():
        of_large = list(hidden_states(large, batch))
        goals = [of_large[depth] for depth in targets(pair.kept, len(large.model.layers))]
    outputs = list(hidden_states(pair.small, batch))[1:]
    errors = [
        ((output - goal).square().mean(-1) / goal.square().mean(-1)).mean()
        for output, goal in zip(outputs[:-1], goals[:-1], strict=True)
    ]
    count = batch.numel()
    chosen = torch.randperm(count, generator=chooser)[: int(count * _LOGIT_SHARE)]
    head = large.lm_head.weight
    taught, learnt = (
        linear(large.model.norm(hidden).flatten(0, 1)[chosen], head).log_softmax(-1)
        for hidden in (goals[-1], outputs[-1])
    )
    kl = kl_div(learnt, taught, log_target=True, reduction="batchmean")
    return kl + torch.stack(errors).mean(), kl.item()


def _rate(step: int, total: int) -> float:
    """Share of the learning rate: a short warm-up, then a cosine to zero."""
    warm = min(1.0, (step + 1) / max(1.0, total * _WARMUP_SHARE))
    return warm * 0.5 * (1 + math.cos(math.pi * step / total))


def _save(
    path: Path, model: LlamaForCausalLM, optimiser: torch.optim.Optimizer, steps: int
) -> None:
    with written_aside(path) as aside:
        torch.save(
            {"steps": steps, "model": model.state_dict(), "optimiser": optimiser.state_dict()},
            aside,
        )


def _resume(path: Path, model: LlamaForCausalLM, optimiser: torch.optim.Optimizer) -> int:
    """Load our own checkpoint, if there is one; the number of steps that are done."""
    if not path.is_file():
        return 0
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    return int(saved["steps"])
