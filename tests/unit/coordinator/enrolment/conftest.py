"""A fleet's server side in a folder, and its operator's key."""

import pytest

from coordinator.enrolment.settings import EnrolmentSettings
from deploy.fleet.creating import ServerPlaces, create_fleet, new_record
from fedpt.settings import load
from tests.fakes.brokers import free_port

PASSPHRASE = "correct horse"


@pytest.fixture
def fleet(tmp_path):
    folder = tmp_path / "fleet"
    record = new_record("home", ["127.0.0.1"], broker_port=free_port(), enrolment_port=free_port())
    return create_fleet(folder, record, PASSPHRASE, ServerPlaces.inside(folder))


@pytest.fixture
def service_settings(fleet):
    path = fleet.server / "enrolment" / "enrolment.toml"
    return load(EnrolmentSettings, toml=path, prefix="NOTHING", overrides={"host": "127.0.0.1"})
