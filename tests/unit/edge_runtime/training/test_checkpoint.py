"""A training survives: power cuts at any moment, full disks, and damaged or foreign checkpoints."""

import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_runtime.data.store import DataStore
from edge_runtime.training.checkpoint import Checkpoints
from edge_runtime.training.how import How
from edge_runtime.training.network import Network
from edge_runtime.training.trainer import Task, train
from edge_runtime.training_job import CHECKPOINT_NAME, UPDATE_NAME, TrainingJob, TrainingStep
from fedpt.adapters import adapter_from_bytes
from fedpt.errors import StorageError
from fedpt.examples import Example
from fedpt.job_folder import has_result, write_job
from fedpt.wire.messages import TrainingPlan
from tests.fakes.killed_training import train_until_killed
from tests.fakes.tiny_federation import TinyFederation

pytestmark = pytest.mark.llama

PLAN = TrainingPlan(epochs=2, learning_rate=1e-3, batch_examples=2, context_tokens=64)
STEPS = 24
"""Of the 24 examples one or more are held out; then it is less."""


@pytest.fixture
def job(tiny: TinyFederation, tmp_path: Path) -> TrainingJob:
    store = DataStore(tmp_path / "private.db")
    store.add([Example(f"Turn on lamp {n}", f"Lamp {n} is on.") for n in range(24)])
    return TrainingJob(
        small=str(tiny.small), adapter=str(tiny.adapter_blob), data=str(store.path),
        up_to_place=store.last_place(), plan=PLAN, seed=5, threads=1,
        checkpoint_steps=3, precision="float32",
    )  # fmt: skip


@pytest.mark.slow
def test_a_training_of_a_lower_rank_goes_on_after_it_was_killed(
    job: TrainingJob, tmp_path: Path
) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    for folder in (undisturbed, disturbed):
        write_job(folder, msgspec.structs.replace(job, rank=2))
    assert not train_until_killed(undisturbed)
    assert train_until_killed(disturbed, steps=7)
    assert (disturbed / CHECKPOINT_NAME).exists()
    assert not train_until_killed(disturbed)
    updates = [(folder / UPDATE_NAME).read_bytes() for folder in (undisturbed, disturbed)]
    assert updates[0] == updates[1]
    assert adapter_from_bytes(updates[0]).manifest.rank == 2


@pytest.mark.slow
def test_however_often_it_is_killed_and_whatever_is_added_the_update_is_the_same(
    job: TrainingJob, tmp_path: Path
) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    write_job(undisturbed, job)
    write_job(disturbed, job)
    assert not train_until_killed(undisturbed)
    rng = random.Random(11)
    kills = sum(train_until_killed(disturbed, steps=rng.randint(1, 7)) for _ in range(3))
    DataStore(Path(job.data)).add([Example("Good night", "Sleep well.")])
    kills += sum(train_until_killed(disturbed, seconds=rng.uniform(0.3, 1.5)) for _ in range(3))
    assert kills >= 3
    assert not train_until_killed(disturbed)
    updates = [(folder / UPDATE_NAME).read_bytes() for folder in (undisturbed, disturbed)]
    assert updates[0] == updates[1]
    assert has_result(disturbed)
    assert (disturbed / CHECKPOINT_NAME).exists()  # until the daemon has kept the update


Open = Callable[[How], Network]


@pytest.mark.parametrize(
    "changes",
    [{}, {"schedule": "linear", "warmup_share": 0.5, "weight_decay": 0.1, "proximal": 2.0}],
    ids=["plain", "with everything"],
)
def test_a_training_goes_on_bit_for_bit(
    open_tiny: Open, task: Task, tmp_path: Path, changes: dict[str, Any]
) -> None:
    task = replace(task, plan=msgspec.structs.replace(task.plan, **changes))
    checkpoints = Checkpoints(tmp_path / "c", "f", every_steps=2)
    whole = train(open_tiny(task.how), task, on_step=lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        train(open_tiny(task.how), task, on_step=stop_at(5), checkpoints=checkpoints)
    steps: list[TrainingStep] = []
    rest = train(open_tiny(task.how), task, on_step=steps.append, checkpoints=checkpoints)
    assert steps[0].done == 5  # of the fifth step nothing was saved
    assert rest.position.losses == whole.position.losses
    assert rest.position.held_out == whole.position.held_out
    for name, tensor in whole.tensors.items():
        np.testing.assert_array_equal(tensor, rest.tensors[name])


def stop_at(step: int) -> Callable[[TrainingStep], None]:
    def on_step(progress: TrainingStep) -> None:
        if progress.done == step:
            raise KeyboardInterrupt

    return on_step


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_gone_on_from(
    open_tiny: Open, task: Task, tmp_path: Path
) -> None:
    path = tmp_path / "c"
    with pytest.raises(KeyboardInterrupt):
        train(open_tiny(task.how), task, on_step=stop_at(5), checkpoints=Checkpoints(path, "f", 2))
    assert Checkpoints(path, "f").position() is not None
    assert Checkpoints(path, "other").position() is None
    path.write_bytes(path.read_bytes()[:100])
    assert Checkpoints(path, "f").position() is None
    path.unlink()
    assert Checkpoints(path, "f").position() is None


def test_a_full_disk_is_one_clear_line_and_the_old_checkpoint_stays(
    open_tiny: Open, task: Task, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "f", every_steps=2)
    with pytest.raises(KeyboardInterrupt):
        train(open_tiny(task.how), task, on_step=stop_at(3), checkpoints=checkpoints)
    before = (tmp_path / "c").read_bytes()
    network = open_tiny(task.how)
    with no_room_for_files(), pytest.raises(StorageError, match=r"^cannot write .*free some space"):
        train(network, task, on_step=lambda _: None, checkpoints=checkpoints)
    assert (tmp_path / "c").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@contextmanager
def no_room_for_files() -> Iterator[None]:
    """As on a full disk: no file may grow beyond a few bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_order_of_examples_is_the_same_after_a_restart_in_any_epoch(
    open_tiny: Open, task: Task, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "f", every_steps=1)
    whole = train(open_tiny(task.how), task, on_step=lambda _: None)
    for step in (1, 3, 4, 8):
        with pytest.raises(KeyboardInterrupt):
            train(open_tiny(task.how), task, on_step=stop_at(step), checkpoints=checkpoints)
    rest = train(open_tiny(task.how), task, on_step=lambda _: None, checkpoints=checkpoints)
    assert rest.position.losses == whole.position.losses
    assert msgspec.structs.replace(rest.position, seconds=0) == msgspec.structs.replace(
        whole.position, seconds=0
    )
