"""Credentials and settings of a new board."""

import time
import tomllib

import msgspec
import pytest

from deploy.fleet.adding import (
    WORKER,
    device_settings,
    ready_credentials,
    token_credentials,
    write_worker,
)
from deploy.fleet.boards import find_board
from edge_runtime.settings import DeviceSettings
from fedpt.certificates import read_certificate
from fedpt.enrolment import read_token
from fedpt.errors import FleetError, UsageError
from tests.unit.deploy.fleet.conftest import PASSPHRASE


def test_a_token_is_the_operators_for_one_name_and_some_hours(fleet):
    before = time.time()
    made = token_credentials(fleet, "kitchen", "rpi5", PASSPHRASE, life_h=2)
    operator = fleet.signing_key("operator", PASSPHRASE).public
    claims = read_token(made.token, operator, federation="home", now_unix_s=before)
    assert (claims.name, claims.board) == ("kitchen", "rpi5")
    assert claims.expires_unix_s == pytest.approx(before + 7200, abs=60)
    assert made.record.token_expires_unix_s == claims.expires_unix_s
    other = token_credentials(fleet, "kitchen", "rpi5", PASSPHRASE, life_h=2)
    assert other.token != made.token


def test_a_wrong_passphrase_makes_no_token(fleet):
    with pytest.raises(FleetError, match="the passphrase is wrong"):
        token_credentials(fleet, "kitchen", "rpi5", "guess", life_h=2)


def test_a_ready_key_remembers_its_serial_so_that_it_can_be_revoked(fleet):
    made = ready_credentials(fleet, "kitchen", "rpi5")
    facts = read_certificate(made.identity[0])
    assert (facts.name, facts.role) == ("kitchen", "device")
    assert made.record.serials == [str(facts.serial)]
    assert made.record.token_expires_unix_s is None


def test_a_removed_name_gets_no_ready_key_for_the_broker_would_refuse_it(fleet):
    removed = ready_credentials(fleet, "kitchen", "rpi5").record
    fleet.write_device(msgspec.structs.replace(removed, is_removed=True))
    with pytest.raises(UsageError, match="only a token brings it back"):
        ready_credentials(fleet, "kitchen", "rpi5")


def test_a_worker_gets_its_files_and_the_server_knows_its_name(fleet):
    made = ready_credentials(fleet, "worker-2", WORKER)
    folder = write_worker(fleet, made)
    assert sorted(path.name for path in folder.iterdir()) == [
        "ca.pem", "worker-2.key", "worker-2.pem",
    ]  # fmt: skip
    assert (folder / "worker-2.key").stat().st_mode & 0o777 == 0o600
    assert fleet.read("server/enrolment/workers") == b"worker-1\nworker-2\n"


def test_without_the_issuing_key_no_ready_key_can_be_made(fleet):
    (fleet.server / "enrolment" / "issuing-ca.key").unlink()
    with pytest.raises(FleetError, match=r"cannot issue certificates here: .*issuing-ca\.key"):
        ready_credentials(fleet, "kitchen", "rpi5")


@pytest.mark.parametrize("board", ["rpi5", "rpi4", "jetson", "generic-arm64", "generic-x86"])
def test_a_boards_settings_can_be_used_as_they_are(fleet, board):
    values = tomllib.loads(device_settings(fleet, "kitchen", find_board(board)))
    settings = DeviceSettings.model_validate(values)
    assert settings.enrolment.url == "https://hub.local:8884"
    assert settings.broker.port == 8883
    assert settings.broker.certificate_file.name == "identity.pem"
    assert str(settings.small) == "/var/lib/fedpt/releases/model/current/model.gguf"
