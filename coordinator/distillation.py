"""Step 5 of a round: the steered large model's answers, taught to the small model's adapter.

The paper leaves the loss open (https://arxiv.org/abs/2410.00362). Ours is the forward KL divergence
from the steered distribution to the student's, position by position, over the kept tokens and one
bucket for all others; its gradient reaches the adapter only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from converters.gguf_to_torch import load_causal_lm
from converters.lora_in_torch import answer_logits, put_on, read_off, trainable
from coordinator.lessons import Lesson
from coordinator.settings import DistillationSettings
from fedpt.adapters import Adapter
from fedpt.batches import batches
from fedpt.errors import TrainingError

_MAX_GRADIENT_NORM = 1.0
_LEAST_TAIL = 1e-6


@dataclass(frozen=True, slots=True)
class Distilled:
    """The taught adapter, and its mean KL divergence in the last epoch, nats a token."""

    adapter: Adapter
    loss: float


def distil(
    small: Path,
    adapter: Adapter,
    lessons: Sequence[Lesson],
    settings: DistillationSettings,
    *,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Distilled:
    """Teach `adapter` the lessons; deterministic by `seed` on one machine.

    Raises:
        TrainingError: The loss is no longer finite.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = put_on(load_causal_lm(small), adapter)
    network.train()
    optimiser = torch.optim.AdamW(trainable(network), lr=settings.learning_rate, weight_decay=0.0)
    lengths = [len(lesson.example) for lesson in lessons]
    total = settings.epochs * -(-len(lessons) // settings.batch_examples)
    done, mean = 0, 0.0
    for _ in range(settings.epochs):
        losses = []
        for indices in batches(lengths, size=settings.batch_examples, rng=rng):
            batch = [lessons[index] for index in indices]
            loss = divergence(answer_logits(network, [one.example for one in batch]), batch)
            if not torch.isfinite(loss):
                raise TrainingError(f"the distillation loss is {loss.item()} at step {done + 1}")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            torch.nn.utils.clip_grad_norm_(trainable(network), _MAX_GRADIENT_NORM)
            optimiser.step()
            losses.append(loss.item())
            done += 1
            on_progress(done, total)
        mean = sum(losses) / len(losses)
    return Distilled(read_off(network, adapter.manifest), mean)


def divergence(student: torch.Tensor, lessons: Sequence[Lesson]) -> torch.Tensor:
    """Mean KL(steered || student) over the positions, kept tokens and the bucket of the others.

    Merging tokens into a bucket never raises a KL divergence (data processing inequality), so this
    is a lower bound of the full one, and zero where the full one is.

    Args:
        student: Logits `(N, V)`, the lessons' positions one after the other.
        lessons: With `N` positions in all.
    """
    tokens = torch.from_numpy(np.concatenate([lesson.tokens for lesson in lessons]))
    taught = torch.from_numpy(np.concatenate([lesson.log_probabilities for lesson in lessons]))
    learnt = torch.log_softmax(student, dim=-1).gather(1, tokens)
    of_kept = (taught.exp() * (taught - learnt)).sum(dim=-1)
    taught_tail, learnt_tail = (
        (1 - kept.exp().sum(dim=-1)).clamp_min(_LEAST_TAIL) for kept in (taught, learnt)
    )
    return (of_kept + taught_tail * (taught_tail.log() - learnt_tail.log())).mean()
