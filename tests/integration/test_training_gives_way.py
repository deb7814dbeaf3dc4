"""A real device in a real federation trains, pauses for a question, and loses nothing by it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.state import Phase
from edge_runtime.drivers.local_client import ask_daemon
from edge_runtime.question import AnswerSummary, user_question
from edge_runtime.settings import socket_in
from fedpt.files import sha256_bytes
from tests.integration.running_federation import RunningFederation

pytestmark = [pytest.mark.broker, pytest.mark.llama, pytest.mark.slow]

DEVICE = "kitchen"


def federation_of_one(folder: Path, lines: str) -> RunningFederation:
    federation = RunningFederation(
        folder, devices=(DEVICE,), examples=600, coordinator_lines="rounds = 1"
    )
    with federation.config(DEVICE).open("a") as config:
        config.write(f"[training_conditions]\n{lines}\n")
    return federation


def test_training_pauses_while_an_answer_runs_and_its_update_is_the_same(tmp_path: Path) -> None:
    grace = "answer_grace_s = 5\nmost_load = 1000"  # others may use this machine
    with federation_of_one(tmp_path, grace) as federation:
        federation.start_all()
        federation.wait_until(
            lambda: isinstance(federation.status(DEVICE).get("progress"), dict),
            "the training has begun",
        )
        training = tmp_path / f"state-{DEVICE}" / "training"
        again = tmp_path / "again"
        again.mkdir()
        job = json.loads((training / "job.json").read_text())
        shutil.copy(job["adapter"], again / "adapter")
        socket = socket_in(tmp_path / f"state-{DEVICE}")
        *_, summary = ask_daemon(socket, user_question("turn on the lamp"))
        assert isinstance(summary, AnswerSummary)
        status = federation.status(DEVICE)
        assert status["waiting"] == "waits: the assistant answers"
        assert status["activity"] == "training"
        assert state_of_process_with(str(training)) == "T"
        federation.wait_until(lambda: federation.state().phase is Phase.FINISHED, "finished")
        result = json.loads((training / "result.json").read_text())
        assert result["paused_seconds"] > 4
        assert result["seconds"] > 0
        update = federation.state().rounds[0].updates[DEVICE].update

    (again / "job.json").write_text(json.dumps(job | {"adapter": str(again / "adapter")}))
    subprocess.run([sys.executable, "-m", "edge_runtime.training", again], check=True)
    assert sha256_bytes((again / "update").read_bytes()) == update


def test_a_board_without_room_says_so_and_trains_when_it_may(tmp_path: Path) -> None:
    with federation_of_one(tmp_path, "least_free_disk_mb = 1_000_000_000") as federation:
        federation.start_all()
        federation.wait_until(
            lambda: str(federation.status(DEVICE).get("waiting")).startswith("waits: "),
            "the device waits",
        )
        status = federation.status(DEVICE)
        assert "MB of disk free, at least 1000000000 MB" in str(status["waiting"])
        assert status["failing_conditions"] == {
            "disk": str(status["waiting"]).removeprefix("waits: ")
        }
        assert (status["activity"], status["fault"]) == ("idle", "")
        readings = status["readings"]
        assert isinstance(readings, dict)
        assert readings["free_disk_bytes"] > 0
        federation.kill(DEVICE)
        text = federation.config(DEVICE).read_text()
        federation.config(DEVICE).write_text(text.replace("1_000_000_000", "1"))
        federation.start(DEVICE)
        federation.wait_until(
            lambda: isinstance(federation.status(DEVICE).get("progress"), dict), "it trains"
        )


def state_of_process_with(argument: str) -> str:
    """T: it is halted."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            stat = (path / "stat").read_text()
        except OSError:  # it has just ended
            continue
        if argument.encode() in words:
            return stat.rpartition(")")[2].split()[0]
    return ""
