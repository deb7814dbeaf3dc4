"""The training loop on a tiny model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from edge_runtime.training.checkpoint import Checkpoints
from edge_runtime.training.how import How
from edge_runtime.training.network import Network
from edge_runtime.training.trainer import Task, Trained, train
from edge_runtime.training_job import TrainingStep
from fedpt.errors import TrainingError

pytestmark = pytest.mark.llama

Open = Callable[[How], Network]


def run(open_tiny: Open, task: Task) -> tuple[Trained, list[TrainingStep]]:
    steps: list[TrainingStep] = []
    return train(open_tiny(task.how), task, on_step=steps.append), steps


def test_the_loss_falls_and_each_step_says_how_it_goes(open_tiny: Open, task: Task) -> None:
    trained, steps = run(open_tiny, task)
    losses = trained.position.losses
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert trained.position.held_out[-1] < trained.position.held_out[0]
    assert [step.done for step in steps] == list(range(1, 10))
    assert {step.total for step in steps} == {9}
    assert steps[-1].tokens_per_s > 0
    assert steps[-1].seconds_left == 0


def test_the_same_seed_gives_the_same_update(open_tiny: Open, task: Task) -> None:
    first, _ = run(open_tiny, task)
    again, _ = run(open_tiny, task)
    other, _ = run(open_tiny, replace(task, seed=2))
    for name, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, again.tensors[name])
    assert first.position.losses != other.position.losses


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_example(
    open_tiny: Open, task: Task, tmp_path: Path
) -> None:
    network = open_tiny(task.how)
    checkpoints = Checkpoints(tmp_path / "c", "f", every_steps=1)
    poisoned = _PoisonedBy(network, task.examples.kept[2].answer)
    with pytest.raises(TrainingError, match=r"the loss is nan at step \d, example 3 of the data"):
        train(poisoned, task, on_step=lambda _: None, checkpoints=checkpoints)
    kept = checkpoints.position()
    assert kept is not None
    assert all(np.isfinite(kept.losses))


class _PoisonedBy:
    """A network whose loss is NaN for one answer."""

    def __init__(self, network: Network, answer: tuple[int, ...]) -> None:
        self._network = network
        self._answer = answer
        self.factors = network.factors

    def loss(self, examples):  # type: ignore[no-untyped-def]
        loss = self._network.loss(examples)
        is_poisoned = any(one.answer == self._answer for one in examples)
        return loss * torch.nan if is_poisoned and loss.requires_grad else loss


def test_a_proximal_term_holds_factors_at_their_start(open_tiny: Open, task: Task) -> None:
    start = {name: one.detach().numpy().copy() for name, one in open_tiny(task.how).factors.items()}
    far, near = (
        sum(
            np.square(tensor - start[name]).sum()
            for name, tensor in run(open_tiny, with_plan(task, proximal=mu))[0].tensors.items()
        )
        for mu in (0.0, 10.0)
    )
    assert 0 < near < 0.5 * far


def test_weight_decay_shrinks_factors(open_tiny: Open, task: Task) -> None:
    free, decayed = (
        sum(
            np.square(tensor).sum()
            for tensor in run(open_tiny, with_plan(task, weight_decay=decay))[0].tensors.values()
        )
        for decay in (0.0, 1.0)
    )
    assert decayed < free


def with_plan(task: Task, **changes: float) -> Task:
    return replace(task, plan=msgspec.structs.replace(task.plan, **changes))


def test_a_batch_in_parts_is_still_one_batch(open_tiny: Open, task: Task) -> None:
    whole, _ = run(open_tiny, replace(task, how=How(pass_tokens=10_000)))
    parts, _ = run(open_tiny, replace(task, how=How(pass_tokens=1)))
    # the sums' order differs, and Adam divides small gradients by small ones
    np.testing.assert_allclose(whole.position.losses, parts.position.losses, rtol=1e-4)


def test_one_example_is_enough(open_tiny: Open, task: Task) -> None:
    alone = msgspec.structs.replace(task.plan, epochs=1)
    one = replace(task.examples, kept=task.examples.kept[:1], held_out=[])
    trained, steps = run(open_tiny, replace(task, examples=one, plan=alone))
    assert len(steps) == len(trained.position.losses) == 1


class _JudgedBy:
    """A network whose nll on held-out examples is told beforehand."""

    def __init__(self, network: Network, told: list[float]) -> None:
        self._network = network
        self._told = told
        self.factors = network.factors

    def loss(self, examples):  # type: ignore[no-untyped-def]
        if torch.is_grad_enabled():
            return self._network.loss(examples)
        return torch.tensor(self._told.pop(0) * len(examples[0].answer))


def _judged(network: Network, task: Task, told: list[float]) -> tuple[Task, _JudgedBy]:
    """One held-out example, so that each value told is the nll."""
    examples = replace(task.examples, held_out=task.examples.held_out[:1])
    return replace(task, examples=examples), _JudgedBy(network, told)


def _patient(task: Task, patience_epochs: int) -> Task:
    plan = msgspec.structs.replace(task.plan, epochs=5, patience_epochs=patience_epochs)
    return replace(task, plan=plan)


def test_training_stops_when_more_is_in_vain_and_yields_the_best_epochs_factors(
    open_tiny: Open, task: Task
) -> None:
    task, network = _judged(open_tiny(task.how), _patient(task, 2), [3.0, 2.0, 1.0, 1.1, 1.2, 0.1])
    steps: list[TrainingStep] = []
    after_two: dict[str, np.ndarray] = {}

    def on_step(step: TrainingStep) -> None:
        steps.append(step)
        if step.done == 2 * task.epoch_steps:
            after_two.update({name: one.numpy(force=True).copy() for name, one in factors.items()})

    factors = network.factors
    trained = train(network, task, on_step=on_step)
    assert trained.position.held_out == pytest.approx((3.0, 2.0, 1.0, 1.1, 1.2))
    assert steps[-1].done == steps[-1].total == 4 * task.epoch_steps
    for name, tensor in trained.tensors.items():
        np.testing.assert_array_equal(tensor, after_two[name])
        assert not np.array_equal(tensor, factors[name].numpy(force=True))


def test_without_patience_all_epochs_are_made_and_the_best_one_counts_all_the_same(
    open_tiny: Open, task: Task
) -> None:
    task, network = _judged(open_tiny(task.how), _patient(task, 0), [3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    trained = train(network, task, on_step=lambda _: None)
    assert trained.position.step == task.total_steps
    last = {name: one.numpy(force=True) for name, one in network.factors.items()}
    assert not all(np.array_equal(one, last[name]) for name, one in trained.tensors.items())


def test_the_best_factors_survive_an_interruption(
    open_tiny: Open, task: Task, tmp_path: Path
) -> None:
    told = [3.0, 1.0, 2.0, 2.0]
    whole_task, network = _judged(open_tiny(task.how), _patient(task, 2), list(told))
    whole = train(network, whole_task, on_step=lambda _: None)
    checkpoints = Checkpoints(tmp_path / "c", "f", every_steps=1)
    _, network = _judged(open_tiny(task.how), whole_task, told)

    def stop(step: TrainingStep) -> None:
        if step.done == whole_task.epoch_steps + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(network, whole_task, on_step=stop, checkpoints=checkpoints)
    _, network = _judged(open_tiny(task.how), whole_task, told)
    rest = train(network, whole_task, on_step=lambda _: None, checkpoints=checkpoints)
    for name, tensor in whole.tensors.items():
        np.testing.assert_array_equal(tensor, rest.tensors[name])


@pytest.mark.parametrize("nll", [float("nan"), float("inf")])
def test_an_nll_that_is_not_finite_ends_the_training(
    open_tiny: Open, task: Task, tmp_path: Path, nll: float
) -> None:
    task, network = _judged(open_tiny(task.how), task, [3.0, nll])
    checkpoints = Checkpoints(tmp_path / "c", "f", every_steps=1)
    with pytest.raises(TrainingError, match=r"the nll on held-out examples is (nan|inf) after"):
        train(network, task, on_step=lambda _: None, checkpoints=checkpoints)
    assert checkpoints.position() is not None
