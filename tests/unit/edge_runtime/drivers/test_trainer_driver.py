"""The training process, really started: on a tiny model, in a second or two of torch."""

import os
import queue
import resource
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_runtime.data.store import DataStore
from edge_runtime.drivers.trainer import Trainer, TrainingTask, reason_of
from edge_runtime.settings import DeviceSettings
from edge_runtime.training_job import MEMORY_ADVICE, TrainingResult, TrainingStep
from fedpt.adapters import adapter_from_bytes, require_averageable
from fedpt.errors import UsageError
from fedpt.examples import Example
from fedpt.kernel_memory import memory_bytes
from fedpt.wire.messages import TrainingPlan
from tests.fakes.tiny_federation import EXAMPLES, TinyFederation
from tests.fakes.wire_messages import PLAN

pytestmark = [pytest.mark.llama, pytest.mark.slow]

PATIENCE_S = 60
PAUSE_S = 1.0
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
            TrainingTask("training", adapter, plan, seed=1),
            on_step=self.steps.put,
            on_end=lambda *end: self.ends.put(end),
        )

    def await_step(self, number: int) -> None:
        while self.steps.get(timeout=PATIENCE_S).done < number:
            pass


def settings(tiny: TinyFederation, folder: Path) -> DeviceSettings:
    return DeviceSettings(
        name="board-1", small=tiny.small, data=tiny.store, state_dir=folder, training_threads=1
    )


def often_saved(tiny: TinyFederation, folder: Path) -> DeviceSettings:
    """A checkpoint every step, and a store of its own."""
    own = {"training_checkpoint_steps": 1, "data": folder / "private.db"}
    return settings(tiny, folder).model_copy(update=own)


def store_of(device: DeviceSettings) -> DataStore:
    assert device.data is not None
    store = DataStore(device.data)
    store.add(EXAMPLES)
    return store


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
    assert fault == "its process was ended by signal 9, as the system does when memory is short"
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
    daemon.await_step(5)
    os.kill(_training_process(tmp_path), signal.SIGKILL)
    daemon.ends.get(timeout=PATIENCE_S)
    again, trainer = Daemon(), Trainer(often)  # as after a restart of the daemon
    again.start(trainer, tiny.adapter_blob, FOR_EVER)
    assert again.steps.get(timeout=PATIENCE_S).done >= 5
    trainer.stop()


def test_what_the_daemon_had_not_kept_when_it_ended_comes_again_in_a_moment(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    updates = []
    for _ in range(2):  # the second as after a restart of the daemon
        daemon, trainer = Daemon(), Trainer(settings(tiny, tmp_path))
        daemon.start(trainer, tiny.adapter_blob, PLAN)
        _, update, fault = daemon.ends.get(timeout=PATIENCE_S)
        assert fault == ""
        updates.append(update)
    assert daemon.steps.empty()  # the training itself was not done again
    assert updates[0] == updates[1]
    trainer.settle()
    daemon.start(trainer, tiny.adapter_blob, PLAN)
    assert daemon.ends.get(timeout=PATIENCE_S)[1] == updates[0]
    assert not daemon.steps.empty()


def test_examples_added_meanwhile_wait_and_the_interrupted_training_goes_on(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    often = often_saved(tiny, tmp_path)
    store = store_of(often)
    daemon = Daemon()
    daemon.start(Trainer(often), tiny.adapter_blob, FOR_EVER)
    daemon.await_step(5)
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
    often = often_saved(tiny, tmp_path)
    store = store_of(often)
    daemon = Daemon()
    daemon.start(Trainer(often), tiny.adapter_blob, FOR_EVER)
    daemon.await_step(5)
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


@pytest.mark.parametrize(
    ("code", "errors", "reason"),
    [
        (1, "a warning\nthe data is empty\n", "the data is empty"),
        (3, "", "its process ended with code 3"),
        (-15, "a warning", "its process was ended by signal 15"),
        (
            -11,
            "a warning",
            "its process was ended by signal 11: a crash, or it was refused memory",
        ),
        (-9, "", "its process was ended by signal 9, as the system does when memory is short"),
        (
            -6,
            "terminate called after throwing an instance of 'std::bad_alloc'\n  what(): ...",
            f"its process needed more memory than it may take; {MEMORY_ADVICE}",
        ),
    ],
)
def test_why_a_process_left_nothing_is_one_line(code: int, errors: str, reason: str) -> None:
    assert reason_of(code, errors) == reason


def test_a_paused_training_does_no_step_and_counts_no_second(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    daemon, trainer = Daemon(), Trainer(settings(tiny, tmp_path))
    daemon.start(trainer, tiny.adapter_blob, FOR_EVER)
    done = daemon.steps.get(timeout=PATIENCE_S)
    trainer.pause()
    assert trainer.is_paused
    trainer.pause()  # again: nothing changes
    wait_until_halted(trainer)
    time.sleep(PAUSE_S)  # what is in the pipe still comes
    while not daemon.steps.empty():
        done = daemon.steps.get()
    time.sleep(PAUSE_S)
    assert daemon.steps.empty()
    trainer.go_on()
    assert trainer.paused_s >= 2 * PAUSE_S
    assert not trainer.is_paused
    first = daemon.steps.get(timeout=PATIENCE_S)
    assert first.done == done.done + 1
    # what it had taken so far, without the pause; a step takes milliseconds
    assert seconds_of(first) - seconds_of(done) < 2 * PAUSE_S
    trainer.stop()
    assert trainer.all_paused_s == trainer.paused_s


def test_the_result_says_how_long_it_was_paused(tiny: TinyFederation, tmp_path: Path) -> None:
    daemon, trainer = Daemon(), Trainer(settings(tiny, tmp_path))
    plan = TrainingPlan(epochs=20, learning_rate=1e-3, batch_examples=2, context_tokens=64)
    daemon.start(trainer, tiny.adapter_blob, plan)
    daemon.steps.get(timeout=PATIENCE_S)
    trainer.pause()
    time.sleep(PAUSE_S)
    trainer.go_on()
    result, paused_update, _ = daemon.ends.get(timeout=PATIENCE_S)
    assert result is not None
    assert result.paused_seconds == pytest.approx(trainer.paused_s, abs=1e-6)
    daemon.start(trainer, tiny.adapter_blob, plan)
    result, update, _ = daemon.ends.get(timeout=PATIENCE_S)
    assert result is not None
    assert result.paused_seconds == 0
    assert update == paused_update


def test_a_paused_training_is_stopped(tiny: TinyFederation, tmp_path: Path) -> None:
    daemon, trainer = Daemon(), Trainer(settings(tiny, tmp_path))
    daemon.start(trainer, tiny.adapter_blob, FOR_EVER)
    daemon.steps.get(timeout=PATIENCE_S)
    trainer.pause()
    wait_until_halted(trainer)
    trainer.stop()
    assert daemon.ends.get(timeout=PATIENCE_S)[0] is None
    assert trainer.pid is None
    assert not trainer.is_paused


def test_a_training_is_fenced_and_running_out_of_memory_is_one_line(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    daemon, trainer = Daemon(), Trainer(settings(tiny, tmp_path))
    daemon.start(trainer, tiny.adapter_blob, FOR_EVER)
    daemon.steps.get(timeout=PATIENCE_S)
    pid = _training_process(tmp_path)
    private = memory_bytes(Path(f"/proc/{pid}/status"))["VmData"]
    fence, _ = resource.prlimit(pid, resource.RLIMIT_DATA)
    assert private < fence < private + 2_000_000_000
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "800\n"
    # as if it had grown up to its fence: the next request for memory is refused
    resource.prlimit(pid, resource.RLIMIT_DATA, (private // 2, private // 2))
    _, _, fault = daemon.ends.get(timeout=PATIENCE_S)
    # native code does not always look; what the daemon's users get is one line in any case
    assert f"needed more memory than it may take; {MEMORY_ADVICE}" in fault or (
        fault.endswith("a crash, or it was refused memory")
    )
    assert "\n" not in fault


def wait_until_halted(trainer: Trainer) -> None:
    assert trainer.pid is not None
    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{trainer.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.001)


def seconds_of(step: TrainingStep) -> float:
    """What it has trained for."""
    return step.seconds_left * step.done / (step.total - step.done)


def _training_process(state_dir: Path) -> int:
    """The process that has our folder among its arguments."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        arguments = path.read_bytes().split(b"\0") if path.exists() else []
        if str(state_dir / "training").encode() in arguments and b"-m" in arguments:
            return int(path.parent.name)
    raise AssertionError("no training process")
