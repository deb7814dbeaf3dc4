"""Training a thinned model to predict like its large one.

Knowledge distillation on text: forward KL on half of the positions, for the head is a third of a
small model's work. Embeddings, last norm and head stay the large model's. What the large model
makes of the text is computed once, so several passes over it cost no more of its work.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch.nn.functional import kl_div, linear
from transformers import LlamaForCausalLM

from converters.layer_walk import hidden_states
from fedpt.files import written_aside
from fedpt.progress import OnProgress, Progress

_POSITION_SHARE: Final = 0.5
_WARMUP_SHARE: Final = 0.05
_MAX_GRADIENT_NORM: Final = 1.0
_CHECKPOINT_STEPS: Final = 40


@dataclass(frozen=True, slots=True)
class Lesson:
    """Text `(N, T)` and the large model's last hidden states `(N, T, H)` on it, before its norm."""

    tokens: torch.Tensor
    taught: torch.Tensor


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, how fast, and where to go on after an interruption."""

    steps: int
    batch: int
    learning_rate: float
    seed: int
    checkpoint: Path


@dataclass(frozen=True, slots=True)
class Likeness:
    """How much a small model is like its large one on held-out text."""

    kl: float
    """Mean KL(large || small), nats a token."""
    top1_agreement: float


def heal(
    small: LlamaForCausalLM, lesson: Lesson, schedule: Schedule, *, on_progress: OnProgress
) -> None:
    """Train `small` in place; an interrupted training goes on from its checkpoint."""
    small.train()
    for name, parameter in small.named_parameters():
        parameter.requires_grad_("layers" in name)
    trained = [parameter for parameter in small.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    first = _resume(schedule.checkpoint, small, optimiser)
    for number in range(first, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate * _rate(number, schedule.steps)
        loss = _loss(small, lesson, schedule, number)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        torch.nn.utils.clip_grad_norm_(trained, _MAX_GRADIENT_NORM)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        note = f"healing: KL {loss.item():.2f} nats/token"
        on_progress(Progress(number + 1, schedule.steps, note))
        if (number + 1) % _CHECKPOINT_STEPS == 0:
            _save(schedule.checkpoint, small, optimiser, number + 1)
    small.eval()


@torch.no_grad()
def likeness(small: LlamaForCausalLM, large: LlamaForCausalLM, tokens: torch.Tensor) -> Likeness:
    """Compare the two on text `(N, T)`."""
    total, same = 0.0, 0
    for part in torch.split(tokens, 2):
        of_large, of_small = (
            model(part).logits.float().flatten(0, 1).log_softmax(-1) for model in (large, small)
        )
        total += float(kl_div(of_small, of_large, log_target=True, reduction="sum"))
        same += int((of_large.argmax(-1) == of_small.argmax(-1)).sum())
    return Likeness(total / tokens.numel(), same / tokens.numel())


def _loss(small: LlamaForCausalLM, lesson: Lesson, schedule: Schedule, number: int) -> torch.Tensor:
    """Mean KL(large || small) at some positions of step `number`'s batch; chosen by seed."""
    order = torch.Generator().manual_seed(schedule.seed)
    per_pass = len(lesson.tokens) // schedule.batch
    for _ in range(number // per_pass + 1):
        shuffled = torch.randperm(len(lesson.tokens), generator=order)
    start = number % per_pass * schedule.batch
    rows = shuffled[start : start + schedule.batch]
    chooser = torch.Generator().manual_seed(schedule.seed + number)
    count = int(rows.numel() * lesson.tokens.shape[1] * _POSITION_SHARE)
    chosen = torch.randperm(rows.numel() * lesson.tokens.shape[1], generator=chooser)[:count]
    *_, learning = hidden_states(small, lesson.tokens[rows])
    taught, learnt = (
        linear(small.model.norm(hidden).flatten(0, 1)[chosen], small.lm_head.weight)
        for hidden in (lesson.taught[rows].float(), learning)
    )
    return kl_div(
        learnt.log_softmax(-1), taught.log_softmax(-1), log_target=True, reduction="batchmean"
    )


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
