"""Whole federations: a coordinator and three devices as processes, over a real broker."""

from pathlib import Path

import pytest

from coordinator.state import Phase
from edge_runtime.drivers.local_client import ask_daemon
from edge_runtime.question import AnswerSummary, user_question
from edge_runtime.settings import socket_in
from edge_runtime.training_job import UPDATE_NAME
from fedpt.adapters import adapter_from_bytes
from fedpt.blobs import BlobStore
from tests.integration.running_federation import RunningFederation

pytestmark = [pytest.mark.broker, pytest.mark.llama, pytest.mark.slow]


def _ask(federation: RunningFederation, device: str, mode: str) -> AnswerSummary:
    socket = socket_in(federation.folder / f"state-{device}")
    return list(ask_daemon(socket, user_question("turn on the lamp", mode)))[-1]


def test_two_rounds_end_with_assistants_that_answer_alone_and_steered(tmp_path):
    with RunningFederation(tmp_path, coordinator_lines="rounds = 2") as federation:
        federation.start_all()
        federation.wait_until(lambda: federation.state().phase is Phase.FINISHED, "finished")
        state = federation.state()
        assert [sorted(one.updates) for one in state.rounds] == [["attic", "garage", "kitchen"]] * 2
        assert len({one.aggregated.adapter for one in state.rounds}) == 2
        first, second = (one.evaluation.scores for one in state.rounds)
        assert first["large"].nll == pytest.approx(second["large"].nll, rel=1e-6)
        assert second["expert"].nll < first["antiexpert"].nll

        federation.wait_until(
            lambda: all(
                federation.status(device).get("adapter") == state.adapter
                for device in federation.devices
            ),
            "every assistant has the last adapter",
        )
        local, steered = (_ask(federation, "garage", mode) for mode in ("local", "steered"))
        assert local.steered_tokens == 0
        assert steered.fallback == ""
        assert steered.steered_tokens == steered.tokens
        assert local.adapter == steered.adapter == state.adapter

        federation.processes["coordinator"].terminate()
        federation.processes.pop("coordinator").wait(15)
        alone = _ask(federation, "garage", "steered")
        assert alone.steered_tokens == 0
        assert alone.fallback != ""
        assert alone.text == local.text


def test_rounds_with_devices_of_several_ranks_improve_on_examples_that_no_device_has(tmp_path):
    with RunningFederation(
        tmp_path,
        devices=("kitchen", "garage"),
        examples=24,
        coordinator_lines="rounds = 2\n[adapter]\nrank = 16\nalpha = 32",
        device_lines={"kitchen": "training_rank = 4"},
    ) as federation:
        federation.start_all()
        federation.wait_until(lambda: federation.state().phase is Phase.FINISHED, "finished")
        state = federation.state()
        assert [sorted(one.updates) for one in state.rounds] == [["garage", "kitchen"]] * 2
        ranks = {device: _trained_rank(federation, device) for device in federation.devices}
        assert ranks == {"kitchen": 4, "garage": 16}
        first, second = (one.evaluation.scores for one in state.rounds)
        assert second["expert"].nll < first["expert"].nll < first["antiexpert"].nll
        blobs = BlobStore(federation.folder / "coordinator" / "blobs")
        last = adapter_from_bytes(blobs.get(state.adapter))
        assert (last.manifest.rank, last.manifest.alpha) == (16, 32)


def _trained_rank(federation: RunningFederation, device: str) -> int:
    """Of a device's last update."""
    update = federation.folder / f"state-{device}" / "training" / UPDATE_NAME
    return adapter_from_bytes(update.read_bytes()).manifest.rank


def test_a_round_completes_after_device_and_coordinator_are_killed_in_its_middle(tmp_path):
    with RunningFederation(tmp_path, examples=600, coordinator_lines="rounds = 1") as federation:
        federation.start_all()
        federation.wait_until(
            lambda: all(
                float(federation.status(device).get("training_done", 0)) > 0
                for device in federation.devices
            ),
            "all devices are in the middle of their training",
        )
        federation.kill("attic")
        federation.kill("coordinator")
        run = federation.state().run
        assert federation.state().phase is Phase.TRAINING
        federation.start("coordinator", "attic")
        federation.wait_until(lambda: federation.state().phase is Phase.FINISHED, "finished")
        state = federation.state()
        assert state.run == run
        assert sorted(state.rounds[0].updates) == ["attic", "garage", "kitchen"]


def test_no_process_outlives_a_killed_coordinator(tmp_path):
    with RunningFederation(tmp_path) as federation:
        federation.start("coordinator")
        federation.wait_until(lambda: _has_worker(federation), "the logit worker runs")
        federation.kill("coordinator")
        federation.processes.clear()
        federation.wait_until(lambda: not _has_worker(federation), "it has ended too")


def _has_worker(federation: RunningFederation) -> bool:
    """Whether a process runs that was given this federation's worker settings."""
    settings = str(federation.folder / "coordinator" / "worker.json").encode()
    return any(settings in _command_line(path) for path in Path("/proc").glob("[0-9]*"))


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""
