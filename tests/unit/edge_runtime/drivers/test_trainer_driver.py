"""The training process, really started: on a tiny model, in a second or two of torch."""

import os
import queue
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_runtime.data.store import DataStore
from edge_runtime.drivers.trainer import Trainer
from edge_runtime.settings import DeviceSettings
from edge_runtime.training_job import TrainingResult, TrainingStep
from fedpt.adapters import adapter_from_bytes, require_averageable
from fedpt.errors import UsageError
from fedpt.examples import Example
from fedpt.wire.messages import TrainingPlan
from tests.fakes.tiny_federation import EXAMPLES, TinyFederation
from tests.fakes.wire_messages import PLAN, announcement

pytestmark = [pytest.mark.llama, pytest.mark.slow]

PATIENCE_S = 60
FOR_EVER = TrainingPlan(epochs=10**6, learning_rate=1e-3, batch_examples=2, context_tokens=64)


@dataclass
class Daemon:
    """What a trainer tells."""

    steps: "queue.Queue[TrainingStep]" = field(default_factory=queue.Queue)
    ends: "queue.Queue[tuple[TrainingResult | None, bytes, str]]" = field(
        default_factory=queue.Queue
    )

    def start(self, trainer: Trainer, adapter: Path, plan: TrainingPlan) -> None:
        trainer.start(
            announcement(training=plan),
            adapter,
            seed=1,
            on_step=self.steps.put,
            on_end=lambda *end: self.ends.put(end),
        )


def settings(tiny: TinyFederation, folder: Path) -> DeviceSettings:
    return DeviceSettings(
        name="board-1", small=tiny.small, data=tiny.store, state_dir=folder, training_threads=1
    )


def test_a_training_leaves_its_update_and_result(tiny: TinyFederation, tmp_path: Path) -> None:
    daemon = Daemon()
    daemon.start(Trainer(settings(tiny, tmp_path)), tiny.adapter_blob, PLAN)
    result, update, fault = daemon.ends.get(timeout=PATIENCE_S)
    assert fault == ""
    assert result is not None
    assert (result.example_count, daemon.steps.get_nowait().total) == (len(EXAMPLES), 3)
    trained = adapter_from_bytes(update)
    require_averageable(trained, tiny.adapter)
    assert trained.manifest == tiny.adapter.manifest


@pytest.mark.parametrize(("rank", "trained"), [(2, 2), (99, 4)])
def test_a_device_trains_its_own_rank_up_to_the_federations(
    tiny: TinyFederation, tmp_path: Path, rank: int, trained: int
) -> None:
    daemon = Daemon()
    own = settings(tiny, tmp_path).model_copy(update={"training_rank": rank})
    daemon.start(Trainer(own), tiny.adapter_blob, PLAN)
    result, update, fault = daemon.ends.get(timeout=PATIENCE_S)
    assert (fault, result is not None) == ("", True)
    require_averageable(adapter_from_bytes(update), tiny.adapter)
    assert adapter_from_bytes(update).manifest.rank == trained


def test_what_cannot_be_trained_is_a_fault_in_one_line(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    daemon = Daemon()
    blob = tmp_path / "damaged"
    blob.write_bytes(tiny.adapter_blob.read_bytes()[:100])
    daemon.start(Trainer(settings(tiny, tmp_path)), blob, PLAN)
    result, update, fault = daemon.ends.get(timeout=PATIENCE_S)
    assert (result, update) == (None, b"")
    assert fault.startswith("damaged adapter")
    assert "\n" not in fault


def test_a_killed_child_is_a_fault_and_a_stopped_one_ends(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    daemon, trainer = Daemon(), Trainer(settings(tiny, tmp_path))
    daemon.start(trainer, tiny.adapter_blob, FOR_EVER)
    daemon.steps.get(timeout=PATIENCE_S)
    os.kill(_training_process(tmp_path), signal.SIGKILL)
    _, _, fault = daemon.ends.get(timeout=PATIENCE_S)
    assert fault == "its process was ended by signal 9"
    daemon.start(trainer, tiny.adapter_blob, FOR_EVER)
    trainer.stop()
    trainer.stop()  # it is gone: nothing happens
    assert daemon.ends.get(timeout=PATIENCE_S)[0] is None


def test_a_training_goes_on_where_its_process_was_killed(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    daemon = Daemon()
    often = settings(tiny, tmp_path).model_copy(update={"training_checkpoint_steps": 1})
    daemon.start(Trainer(often), tiny.adapter_blob, FOR_EVER)
    while daemon.steps.get(timeout=PATIENCE_S).done < 5:
        pass
    os.kill(_training_process(tmp_path), signal.SIGKILL)
    daemon.ends.get(timeout=PATIENCE_S)
    again, trainer = Daemon(), Trainer(often)  # as after a restart of the daemon
    again.start(trainer, tiny.adapter_blob, FOR_EVER)
    assert again.steps.get(timeout=PATIENCE_S).done >= 5
    trainer.stop()


def test_examples_added_meanwhile_wait_and_the_interrupted_training_goes_on(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    store = DataStore(tmp_path / "private.db")
    store.add(EXAMPLES)
    often = settings(tiny, tmp_path).model_copy(
        update={"training_checkpoint_steps": 1, "data": store.path}
    )
    daemon = Daemon()
    daemon.start(Trainer(often), tiny.adapter_blob, FOR_EVER)
    while daemon.steps.get(timeout=PATIENCE_S).done < 5:
        pass
    store.add([Example("Good night", "Sleep well.")])  # while it runs
    os.kill(_training_process(tmp_path), signal.SIGKILL)
    daemon.ends.get(timeout=PATIENCE_S)
    again, trainer = Daemon(), Trainer(often)
    again.start(trainer, tiny.adapter_blob, FOR_EVER)
    assert again.steps.get(timeout=PATIENCE_S).done >= 5
    trainer.stop()
    again.ends.get(timeout=PATIENCE_S)
    other = Daemon()
    other.start(Trainer(often), tiny.adapter_blob, PLAN)  # another training
    result, _, _ = other.ends.get(timeout=PATIENCE_S)
    assert result is not None
    assert result.example_count == len(EXAMPLES) + 1


def test_a_removed_example_is_not_gone_on_with(tiny: TinyFederation, tmp_path: Path) -> None:
    store = DataStore(tmp_path / "private.db")
    store.add(EXAMPLES)
    often = settings(tiny, tmp_path).model_copy(
        update={"training_checkpoint_steps": 1, "data": store.path}
    )
    daemon = Daemon()
    daemon.start(Trainer(often), tiny.adapter_blob, FOR_EVER)
    while daemon.steps.get(timeout=PATIENCE_S).done < 5:
        pass
    os.kill(_training_process(tmp_path), signal.SIGKILL)
    daemon.ends.get(timeout=PATIENCE_S)
    store.remove([1])
    again, trainer = Daemon(), Trainer(often)
    again.start(trainer, tiny.adapter_blob, FOR_EVER)
    assert again.steps.get(timeout=PATIENCE_S).done == 1
    trainer.stop()


def test_without_examples_or_a_store_a_training_says_so(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    daemon, here = Daemon(), settings(tiny, tmp_path)
    empty = here.model_copy(update={"data": tmp_path / "private.db"})
    daemon.start(Trainer(empty), tiny.adapter_blob, PLAN)
    fault = daemon.ends.get(timeout=PATIENCE_S)[2]
    assert fault == f"{tmp_path}/private.db holds no examples to train on: fedpt device data add"
    with pytest.raises(UsageError, match="no data store"):
        daemon.start(Trainer(here.model_copy(update={"data": None})), tiny.adapter_blob, PLAN)


def _training_process(state_dir: Path) -> int:
    """The process that has our folder among its arguments."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        arguments = path.read_bytes().split(b"\0") if path.exists() else []
        if str(state_dir / "training").encode() in arguments and b"-m" in arguments:
            return int(path.parent.name)
    raise AssertionError("no training process")
