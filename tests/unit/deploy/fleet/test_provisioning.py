"""A new token for a board that is added already."""

import time

import pytest

from deploy.fleet.adding import ready_credentials
from deploy.fleet.bundle import build_bundle
from deploy.fleet.provisioning import describe_expiry, renew_token
from fedpt.enrolment import read_token
from fedpt.errors import FleetError, UsageError
from tests.fakes.bundles import bundle_request
from tests.unit.deploy.fleet.conftest import PASSPHRASE


@pytest.fixture
def ready(fleet):
    """The record of a board that came with a ready key."""
    record = ready_credentials(fleet, "kitchen", "rpi5").record
    fleet.write_device(record)
    return record


def test_a_new_token_is_in_the_bundle_and_older_certificates_are_remembered(fleet, ready, tmp_path):
    assert "with a ready key" in describe_expiry(fleet, "kitchen")
    build_bundle(bundle_request(tmp_path), fleet.device_folder("kitchen") / "bundle")
    folder = renew_token(fleet, "kitchen", PASSPHRASE, life_h=2)
    claims = read_token(
        (folder / "fedpt/enrolment.token").read_text(),
        fleet.signing_key("operator", PASSPHRASE).public,
        federation="home",
        now_unix_s=time.time(),
    )
    record = fleet.device("kitchen")
    assert claims.name == "kitchen"
    assert record.token_expires_unix_s == claims.expires_unix_s
    assert record.serials == ready.serials
    assert "its token is good until" in describe_expiry(fleet, "kitchen")


def test_without_a_bundle_or_with_a_wrong_passphrase_nothing_changes(fleet, ready):
    with pytest.raises(FleetError, match="no bundle in"):
        renew_token(fleet, "kitchen", PASSPHRASE, life_h=2)
    with pytest.raises(FleetError):
        renew_token(fleet, "kitchen", "wrong horse", life_h=2)
    assert fleet.device("kitchen") == ready


def test_a_worker_takes_no_token(fleet):
    fleet.write_device(ready_credentials(fleet, "worker-2", "worker").record)
    with pytest.raises(UsageError, match="has a ready key and no token"):
        renew_token(fleet, "worker-2", PASSPHRASE, life_h=2)
