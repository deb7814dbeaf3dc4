"""The training loop: one adapter, one data set, one frozen base model.

The base is the very GGUF file that llama.cpp serves, and the tokens are llama.cpp's own; so the
adapter fits what will be served, rounding of the weights included. How it is computed is `how`'s
matter, and gives the same losses; what becomes of the result is `acceptance`'s.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import torch

from edge_runtime.data.preparing import Prepared
from edge_runtime.training.adamw import AdamW
from edge_runtime.training.checkpoint import Checkpoints, Position
from edge_runtime.training.early_stopping import is_best, is_in_vain
from edge_runtime.training.how import How
from edge_runtime.training.network import Network, nll
from edge_runtime.training.passes import epoch_batches, passes, steps_per_epoch
from edge_runtime.training.proximal import Proximal
from edge_runtime.training.schedule import learning_rate
from edge_runtime.training_job import TrainingStep
from fedpt.adapters import AdapterTensors
from fedpt.errors import TrainingError
from fedpt.wire.messages import TrainingPlan

_MAX_GRADIENT_NORM: Final = 1.0


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained on, and how."""

    examples: Prepared
    plan: TrainingPlan
    how: How
    seed: int

    @property
    def total_steps(self) -> int:
        """Over all epochs."""
        return self.plan.epochs * self.epoch_steps

    @property
    def epoch_steps(self) -> int:
        """In one epoch."""
        return steps_per_epoch(len(self.examples.kept), self.plan.batch_examples)


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training."""

    tensors: AdapterTensors
    position: Position
    tokens_per_s: float


def train(
    network: Network,
    task: Task,
    *,
    on_step: Callable[[TrainingStep], None],
    checkpoints: Checkpoints | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Trained:
    """Fine-tune the network's factors; deterministic by seed on one machine, interrupted or not.

    AdamW, a learning rate by `schedule`, gradients, `proximal` ones included, clipped to norm 1.
    The loss is the mean cross-entropy of the answers' tokens, in nats.

    Args:
        network: Whose factors are trained.
        task: What on, and how.
        on_step: Hears of every step.
        checkpoints: Where to go on from, and to save to; None: nowhere.
        clock: In seconds; stands still while this process does.

    Raises:
        TrainingError: The loss is no longer finite; the last checkpoint stays.
        StorageError: A checkpoint cannot be written; the one before stays.
    """
    return _Run(network, task, on_step, checkpoints, clock).run()


class _Run:
    """The state of one training."""

    def __init__(  # noqa: PLR0917  # `train`'s own
        self,
        network: Network,
        task: Task,
        on_step: Callable[[TrainingStep], None],
        checkpoints: Checkpoints | None,
        clock: Callable[[], float],
    ) -> None:
        self._network = network
        self._task = task
        self._on_step = on_step
        self._checkpoints = checkpoints
        self._clock = clock
        self._factors = list(network.factors.values())
        self._optimiser = AdamW(self._factors, weight_decay=task.plan.weight_decay)
        self._proximal = Proximal(self._factors, task.plan.proximal)
        self._examples = task.examples.kept
        self._lengths = [len(one) for one in self._examples]
        self._position = Position(how=task.how)
        self._best: dict[str, torch.Tensor] = {}
        """Factors after the best epoch; empty: it is the last one."""
        self._tokens_here = 0
        self._seconds_here = 0.0

    def run(self) -> Trained:
        self._begin()
        per_epoch = self._task.epoch_steps
        for epoch in range(self._position.step // per_epoch, self._task.plan.epochs):
            if self._is_over:
                break
            batches = epoch_batches(
                self._lengths,
                size=self._task.plan.batch_examples,
                seed=self._task.seed,
                epoch=epoch,
            )
            for place, batch in enumerate(batches, start=epoch * per_epoch):
                if place >= self._position.step:
                    self._step(batch)
        return Trained(
            {name: one.detach().float().cpu().numpy() for name, one in self._outcome().items()},
            self._position,
            self._tokens_here / self._seconds_here if self._seconds_here else 0.0,
        )

    def _begin(self) -> None:
        found = self._checkpoints.position() if self._checkpoints else None
        if found is not None and self._checkpoints is not None:
            self._position = found
            self._best = self._checkpoints.restore(self._network.factors, self._optimiser)
            return
        self._measure()
        self._save()  # so that a restart computes in the same way, whatever it would choose anew

    def _step(self, batch: Sequence[int]) -> None:
        started = self._clock()
        done = self._position.step
        rate = learning_rate(self._task.plan, done, self._task.total_steps)
        answer_tokens = sum(len(self._examples[index].answer) for index in batch)
        loss = self._gradients(batch, answer_tokens)
        self._proximal.add_gradient()
        norm = torch.nn.utils.clip_grad_norm_(self._factors, _MAX_GRADIENT_NORM)
        if not torch.isfinite(norm):
            raise TrainingError(self._not_finite("gradient", norm.item(), batch))
        self._optimiser.step(rate)
        position = self._position
        self._position = msgspec.structs.replace(
            position,
            step=done + 1,
            losses=(*position.losses, loss),
            token_counts=(*position.token_counts, answer_tokens),
        )
        if self._position.step % self._task.epoch_steps == 0:
            self._end_epoch()
        self._count(batch, self._clock() - started)
        if self._is_due():
            self._save()
        self._tell()

    def _gradients(self, batch: Sequence[int], answer_tokens: int) -> float:
        """Add the batch's gradients up, pass after pass; its mean loss."""
        total = 0.0
        for part in passes(batch, self._lengths, tokens=self._task.how.pass_tokens):
            loss = self._network.loss([self._examples[index] for index in part]) / answer_tokens
            if not torch.isfinite(loss):
                raise TrainingError(self._not_finite("loss", loss.item(), part))
            total += loss.item()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        return total

    def _not_finite(self, what: str, value: float, part: Sequence[int]) -> str:
        """Says at which example: those of a pass are tried one by one."""
        culprit = next((one for one in part if not np.isfinite(self._alone(one))), part[0])
        return (
            f"the {what} is {value} at step {self._position.step + 1}, example"
            f" {self._task.examples.numbers[culprit]} of the data; lower the learning rate"
            f" ({self._task.plan.learning_rate}) or remove the example"
        )

    def _alone(self, index: int) -> float:
        with torch.no_grad():
            return self._network.loss([self._examples[index]]).item()

    def _end_epoch(self) -> None:
        """Keep its factors, if they are the best and others may follow."""
        self._measure()
        if is_best(held_out := self._position.held_out):
            others_follow = bool(held_out) and not self._is_over
            factors = self._named() if others_follow else []
            self._best = {name: one.detach().clone() for name, one in factors}

    @property
    def _is_over(self) -> bool:
        """At an epoch's end: whether no other follows."""
        position, task = self._position, self._task
        is_in_vain_now = is_in_vain(position.held_out, task.plan.patience_epochs)
        return position.step == task.total_steps or is_in_vain_now

    def _outcome(self) -> Mapping[str, torch.Tensor]:
        return self._best or self._network.factors

    def _measure(self) -> None:
        if self._task.examples.held_out:
            value = nll(self._network, self._task.examples.held_out)
            if not math.isfinite(value):
                raise TrainingError(
                    f"the nll on held-out examples is {value} after step {self._position.step};"
                    f" lower the learning rate ({self._task.plan.learning_rate})"
                )
            held_out = (*self._position.held_out, value)
            self._position = msgspec.structs.replace(self._position, held_out=held_out)

    def _count(self, batch: Sequence[int], seconds: float) -> None:
        self._tokens_here += sum(self._lengths[index] for index in batch)
        self._seconds_here += seconds
        self._position = msgspec.structs.replace(
            self._position, seconds=self._position.seconds + seconds
        )

    def _is_due(self) -> bool:
        step = self._position.step
        every = self._checkpoints.every_steps if self._checkpoints else 1
        return self._is_over or step % every == 0

    def _save(self) -> None:
        if self._checkpoints is not None:
            names = [name for name, _ in self._named()]
            self._checkpoints.save(self._position, self._optimiser, names, best=self._best)

    def _named(self) -> list[tuple[str, torch.nn.Parameter]]:
        return list(self._network.factors.items())

    def _tell(self) -> None:
        position = self._position
        total = position.step if self._is_over else self._task.total_steps
        per_step = position.seconds / position.step
        self._on_step(
            TrainingStep(
                done=position.step,
                total=total,
                loss=position.losses[-1],
                tokens_per_s=self._tokens_here / self._seconds_here,
                held_out_nll=position.held_out[-1] if position.held_out else None,
                seconds_left=per_step * (total - position.step),
            )
        )
