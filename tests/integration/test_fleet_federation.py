"""A whole federation over TLS: boards enrol with tokens, train, answer; one is removed."""

import os
import subprocess
import sys
import tomllib
from contextlib import ExitStack

import pytest
import tomli_w

from coordinator.drivers.journal import read_journal
from coordinator.state import Phase
from coordinator.transitions import fold
from deploy.fleet.operator_calls import call_service
from edge_runtime.data.store import DataStore
from edge_runtime.drivers.local_client import ask_daemon, daemon_status
from edge_runtime.question import user_question
from edge_runtime.settings import socket_in
from fedpt.certificates import read_certificate
from fedpt.errors import DeviceDownError
from fedpt.examples import read_examples
from tests.fakes.tiny_models import write_examples
from tests.integration.running_fleet import PASSPHRASE, RunningFleet

pytestmark = [pytest.mark.broker, pytest.mark.llama, pytest.mark.slow]

DEVICES = ("kitchen", "garage", "attic")


@pytest.fixture
def federation(tmp_path, tiny):
    with ExitStack() as stack:
        fleet = stack.enter_context(RunningFleet(tmp_path))
        yield Federation(fleet, tiny)


class Federation:
    """Settings as the fleet's tools write them, with tiny models and one round."""

    def __init__(self, fleet, tiny):
        self.fleet = fleet
        self.folder = fleet.folder
        path = fleet.fleet.server / "coordinator" / "coordinator.toml"
        settings = tomllib.loads(path.read_text())
        for name in ("evaluation", "public"):
            write_examples(self.folder, name, 4)
            settings[name] = str(self.folder / f"{name}.jsonl")
        settings |= {
            "small": str(tiny.small),
            "large": str(tiny.large),
            "min_devices": 3,
            "rounds": 1,
            "threads": 1,
            "evaluating": {"answer_tokens": 8},
        }
        settings["worker"] |= {"sessions": 2, "context_tokens": 512}
        path.write_text(tomli_w.dumps(settings))
        self.coordinator = path
        self.state_dir = settings["state_dir"]
        self.tokens = [self._write_device(device, tiny) for device in DEVICES]

    def config(self, device):
        return self.folder / device / "device.toml"

    def start(self, name, *words):
        self.fleet.start(name, [sys.executable, "-m", "fedpt.cli", *map(str, words)])

    def state(self):
        from pathlib import Path

        return fold(read_journal(Path(self.state_dir) / "journal.sqlite"))

    def socket(self, device):
        return socket_in(self.folder / device / "state")

    def status(self, device):
        try:
            return daemon_status(self.socket(device))
        except DeviceDownError:
            return {}

    def _write_device(self, device, tiny):
        folder = self.folder / device
        folder.mkdir()
        DataStore(folder / "private.db").add(read_examples(write_examples(folder, device, 8)))
        token = self.fleet.token(device)
        (folder / "enrolment.token").write_text(token)
        record = self.fleet.fleet.record
        authority = self.fleet.fleet.folder / "authority" / "root-ca.pem"
        settings = {
            "name": device,
            "small": str(tiny.small),
            "data": "private.db",
            "state_dir": "state",
            "training_threads": 1,
            "broker": {
                "host": "127.0.0.1",
                "port": record.broker_port,
                "ca_file": str(authority),
                "certificate_file": "identity.pem",
            },
            "enrolment": {
                "url": f"https://127.0.0.1:{record.enrolment_port}",
                "token_file": "enrolment.token",
            },
            "assistant": {"threads": 1, "answer_tokens": 8},
        }
        self.config(device).write_text(tomli_w.dumps(settings))
        return token


def test_boards_enrol_train_a_round_and_answer_and_a_removed_one_is_left_out(federation):
    fleet = federation.fleet
    federation.start("coordinator", "coordinator", "run", "--config", federation.coordinator)
    for device in DEVICES:
        federation.start(device, "device", "run", "--config", federation.config(device))
    fleet.wait_until(lambda: federation.state().phase is Phase.FINISHED, "coordinator")
    state = federation.state()
    assert [sorted(one.updates) for one in state.rounds] == [sorted(DEVICES)]
    for device in DEVICES:
        identity = (federation.folder / device / "identity.pem").read_bytes()
        assert read_certificate(identity).name == device
        assert not (federation.folder / device / "enrolment.token").exists()

    steered = list(ask_daemon(federation.socket("garage"), user_question("turn on", "steered")))[-1]
    assert steered.fallback == ""
    assert steered.steered_tokens == steered.tokens > 0

    call_service(fleet.fleet, fleet.operator_key(), "remove", name="garage")
    fleet.reload_broker()
    alone = list(ask_daemon(federation.socket("garage"), user_question("turn on", "steered")))[-1]
    assert alone.steered_tokens == 0
    assert alone.fallback != ""
    other = list(ask_daemon(federation.socket("attic"), user_question("turn on", "steered")))[-1]
    assert other.fallback == ""

    doctor = subprocess.run(
        [sys.executable, "-m", "fedpt.cli", "device", "doctor", "--config",
         federation.config("garage")],
        capture_output=True, text=True, env=dict(os.environ), check=False,
    )  # fmt: skip
    assert doctor.returncode == 1
    assert "revoked" in doctor.stdout
    secrets = (*federation.tokens, PASSPHRASE, "PRIVATE KEY")
    for name in ("coordinator", *DEVICES, "broker", "enrolment"):
        assert not [one for one in secrets if one in fleet.log(name)], name
