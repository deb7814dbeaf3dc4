"""What a board makes for itself in a real federation: its personal adapter, its coefficients."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coordinator.state import Phase
from edge_runtime.drivers.local_client import ask_daemon
from edge_runtime.drivers.personal_shelf import PersonalShelf
from edge_runtime.question import AnswerSummary, user_question
from edge_runtime.settings import socket_in
from fedpt.drivers.mqtt import MqttLink, Publication, Received
from fedpt.ids import DeviceId, FederationId
from fedpt.settings import BrokerSettings
from fedpt.wire.codec import decode, encode
from fedpt.wire.messages import ChunkRequest, DeviceStatus
from fedpt.wire.topics import Topics
from tests.integration.running_federation import RunningFederation

pytestmark = [pytest.mark.broker, pytest.mark.llama, pytest.mark.slow]

DEVICE = "kitchen"
TOPICS = Topics(FederationId("home"))
PERSONAL = (
    "[training_conditions]\nmost_load = 1000\nanswer_grace_s = 0\n"  # others use this machine
    "[personal]\nenabled = true\nepochs = 2\nlearning_rate = 5e-3\ncontext_tokens = 64\n"
)


def federation_of_one(folder: Path, *, always: bool, lines: str = "") -> RunningFederation:
    federation = RunningFederation(
        folder, devices=(DEVICE,), examples=80, coordinator_lines="rounds = 1"
    )
    config = federation.config(DEVICE)
    share = 'share_questions = "always"\n' if always else ""
    config.write_text(config.read_text() + share + lines)
    return federation


def ask(federation: RunningFederation, mode: Any = "local") -> AnswerSummary:
    socket = socket_in(federation.folder / f"state-{DEVICE}")
    summary = list(ask_daemon(socket, user_question("turn on kitchen 3", mode)))[-1]
    assert isinstance(summary, AnswerSummary)
    return summary


def part(federation: RunningFederation, name: str) -> dict[str, Any]:
    """Of the device's status."""
    told = federation.status(DEVICE).get(name)
    return told if isinstance(told, dict) else {}


def chunks_told(federation: RunningFederation, *blobs: str) -> list[str]:
    """The topics of all chunks that the device sends when it is asked for these blobs.

    It handles messages in their order, and contradicts who says that it is offline: so when it has
    done that, it has heard the requests.
    """
    heard: list[Received] = []
    link = MqttLink(BrokerSettings(port=federation.port), "curious", on_message=heard.append)
    status = TOPICS.device(DeviceId(DEVICE), "status")
    link.subscribe(TOPICS.device_chunk(DeviceId(DEVICE), "+", "+"), status)
    link.start(timeout_s=20)
    try:
        for sha256 in blobs:
            request = encode(ChunkRequest(sha256=sha256, indices=[0]))
            link.publish(Publication(TOPICS.inbox(DeviceId(DEVICE), "want"), request))
        link.publish(Publication(status, encode(DeviceStatus(session=1, activity="offline"))))
        federation.wait_until(
            lambda: told(heard, status)[-2:] == ["offline", "idle"], "it contradicts"
        )
    finally:
        link.stop()
    return [one.topic for one in heard if "/chunk/" in one.topic]


def told(heard: list[Received], status: str) -> list[str]:
    return [decode(one.payload, DeviceStatus).activity for one in heard if one.topic == status]


def personal_command(federation: RunningFederation, *words: str) -> str:
    command = [sys.executable, "-m", "fedpt.cli", "device", "personal", *words]
    done = subprocess.run(
        [*command, "--config", federation.config(DEVICE)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_personal_adapter_is_trained_after_a_round_answers_and_never_leaves(
    tmp_path: Path,
) -> None:
    with federation_of_one(tmp_path, always=False, lines=PERSONAL) as federation:
        federation.start_all()
        federation.wait_until(lambda: federation.state().phase is Phase.FINISHED, "finished")
        state = federation.state()
        shelf = PersonalShelf(tmp_path / f"state-{DEVICE}")
        federation.wait_until(
            lambda: (
                part(federation, "personal").get("in_use") is True
                and (record := shelf.record()) is not None
                and record.federation == state.adapter
            ),
            "a personal adapter of the last round's answers",
        )
        record = shelf.record()
        assert record is not None
        own = record.adapter
        status = part(federation, "personal")
        assert status["nll_after"] < status["nll_before"]
        assert federation.status(DEVICE)["adapter"] == state.adapter  # as the federation knows it
        answer = ask(federation)
        assert (answer.adapter, answer.is_personal) == (own, True)
        steered = ask(federation, "steered")
        assert (steered.adapter, steered.steered_tokens) == (own, steered.tokens)
        assert steered.steps is not None
        assert steered.steps.where == "logits"  # a worker would need the adapter

        assert chunks_told(federation, own, state.adapter) == []
        blobs = {path.name for path in (tmp_path / "coordinator" / "blobs").rglob("*")}
        assert own not in blobs
        assert own not in federation.log("coordinator")
        why = part(federation, "calibration")["why_not"]
        assert 'share_questions = "ask"' in why

        federation.kill(DEVICE)
        federation.start(DEVICE)
        federation.wait_until(lambda: part(federation, "personal") != {}, "it is up again")
        answer = ask(federation)
        assert (answer.adapter, answer.is_personal) == (own, True)

        assert "in use\ntrained " in personal_command(federation, "show")
        personal_command(federation, "forget")
        federation.wait_until(
            lambda: part(federation, "personal").get("in_use") is False, "it is forgotten"
        )
        assert not ask(federation).is_personal
        assert not list((tmp_path / f"state-{DEVICE}" / "personal").glob("*.blob"))


def test_calibration_asks_the_worker_and_its_choice_steers(tmp_path: Path) -> None:
    with federation_of_one(tmp_path, always=True) as federation:
        federation.start_all()
        federation.wait_until(lambda: federation.state().phase is Phase.FINISHED, "finished")
        adapter = federation.state().adapter
        path = tmp_path / f"state-{DEVICE}" / "adapters" / "calibration.json"
        federation.wait_until(
            lambda: (
                part(federation, "calibration").get("coefficients") is not None
                and path.exists()
                and json.loads(path.read_text())["key"]["adapter"] == adapter
            ),
            "the last adapter's coefficients are calibrated",
        )
        found = part(federation, "calibration")
        assert found["nll"] <= min(found["nll_expert"], found["nll_plain"], found["nll_announced"])
        assert found["positions"] > 0
        choice = tuple(found["coefficients"].values())
        assert steered_with(federation) == choice

        # another choice in the file: that is what steers after a restart
        kept = json.loads(path.read_text())
        other = [1.0, 0.7, 0.21]
        federation.kill(DEVICE)
        path.write_text(json.dumps(kept | {"coefficients": other}))
        federation.start(DEVICE)
        federation.wait_until(
            lambda: federation.status(DEVICE).get("adapter") == adapter, "the adapter is back"
        )
        federation.wait_until(
            lambda: part(federation, "calibration").get("coefficients") is not None, "and this"
        )
        assert steered_with(federation) == tuple(other)


def steered_with(federation: RunningFederation) -> tuple[float, ...]:
    """The coefficients of a steered answer; where the large model is no help it is not asked."""
    answer = ask(federation, "steered")
    if answer.coefficients is None:
        assert answer.fallback == "calibration found that the large model does not help here"
        return (1.0, 0.0, 0.0)
    assert answer.steered_tokens == answer.tokens
    return tuple(answer.coefficients)
