"""A fleet, made by the real thing, in a folder of the test."""

import pytest

from deploy.fleet.creating import ServerPlaces, create_fleet, new_record

PASSPHRASE = "correct horse"


@pytest.fixture
def fleet(tmp_path):
    record = new_record("home", ["hub.local", "10.0.0.2"], broker_port=8883, enrolment_port=8884)
    return create_fleet(tmp_path / "fleet", record, PASSPHRASE, ServerPlaces())
