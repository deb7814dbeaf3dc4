"""A new fleet: everything the server needs, secrets readable by nobody else, nothing half-made."""

import ssl
import tomllib
from datetime import UTC, datetime

import pytest

from coordinator.enrolment.settings import EnrolmentSettings
from coordinator.settings import CoordinatorSettings
from deploy.fleet.creating import ServerPlaces, create_fleet, new_record
from deploy.fleet.fleet_folder import Fleet
from fedpt.certificates import Authority, read_certificate
from fedpt.errors import FleetError
from fedpt.releases import Trust
from fedpt.settings import load
from tests.unit.deploy.fleet.conftest import PASSPHRASE


def test_the_settings_of_coordinator_and_enrolment_service_can_be_used_as_they_are(fleet):
    coordinator = load(
        CoordinatorSettings, toml=fleet.server / "coordinator" / "coordinator.toml", prefix="NONE"
    )
    enrolment = load(
        EnrolmentSettings, toml=fleet.server / "enrolment" / "enrolment.toml", prefix="NONE"
    )
    assert coordinator.broker.host == "hub.local"
    assert coordinator.embedded_broker is False
    for path in (
        coordinator.broker.ca_file,
        coordinator.broker.certificate_file,
        coordinator.broker.key_file,
        coordinator.worker.certificate_file,
        coordinator.worker.key_file,
        coordinator.adapter_key_file,
        coordinator.trust_file,
        enrolment.certificate_file,
        enrolment.key_file,
        enrolment.issuing_key_file,
        enrolment.operator_key_file,
        enrolment.workers_file,
    ):
        assert path.is_file(), path
    assert coordinator.removed == enrolment.broker_folder / "removed"


def test_each_service_has_its_own_identity_that_the_root_vouches_for(fleet):
    expected = {
        "mosquitto/broker": "broker",
        "enrolment/https": "enrolment",
        "coordinator/coordinator": "coordinator",
        "coordinator/worker-1": "worker-1",
    }
    context = ssl.create_default_context(cafile=fleet.folder / "authority" / "root-ca.pem")
    for path, name in expected.items():
        certificate = fleet.server / f"{path}.pem"
        assert read_certificate(certificate.read_bytes()).name == name
        context.load_cert_chain(certificate, fleet.server / f"{path}.key")


def test_secrets_are_for_their_owner_only_and_the_operators_are_encrypted(fleet):
    keys = [*fleet.folder.rglob("*.key")]
    assert len(keys) == 9
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert fleet.folder.stat().st_mode & 0o777 == 0o700
    encrypted = {path.name for path in keys if b"ENCRYPTED" in path.read_bytes()}
    assert encrypted == {"root-ca.key", "release.key", "operator.key"}


def test_nothing_of_the_operators_goes_to_the_server(fleet):
    assert not [path for path in fleet.server.rglob("*") if "root-ca.key" in path.name]
    server = b"".join(path.read_bytes() for path in fleet.server.rglob("*") if path.is_file())
    assert b"ENCRYPTED" not in server


def test_the_coordinators_key_may_sign_adapters_only(fleet):
    trust = Trust.from_json((fleet.server / "coordinator" / "trust.json").read_bytes())
    assert [one.kinds for one in trust.keys] == [
        ["model", "adapter", "runtime", "keys"],
        ["adapter"],
    ]
    assert trust.keys[0].key == fleet.signing_key("release", PASSPHRASE).public


def test_the_root_can_be_opened_with_the_passphrase_only(fleet):
    pem = fleet.read("authority/root-ca.pem")
    key = fleet.read("authority/root-ca.key")
    root = Authority.from_pem(pem, key, PASSPHRASE)
    assert root.new_issuing("another", datetime.now(UTC)).certificate_pem
    with pytest.raises(FleetError, match="passphrase is wrong"):
        Authority.from_pem(pem, key, "guess")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    record = new_record("home", ["hub"], broker_port=1, enrolment_port=2)
    with pytest.raises(FleetError, match="is not empty; choose another folder"):
        create_fleet(tmp_path, record, PASSPHRASE, ServerPlaces())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_broker_wants_tls_1_3_certificates_and_names(fleet):
    lines = (fleet.server / "mosquitto" / "mosquitto.conf").read_text().splitlines()
    for line in (
        "listener 8883",
        "allow_anonymous false",
        "tls_version tlsv1.3",
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "acl_file /var/lib/fedpt-enrolment/broker/acl",
        "crlfile /var/lib/fedpt-enrolment/broker/crl.pem",
        "set_tcp_nodelay true",
    ):
        assert line in lines


def test_the_fleet_is_read_back(fleet):
    again = Fleet.open(fleet.folder)
    assert again.record == fleet.record
    text = (fleet.server / "coordinator" / "coordinator.toml").read_text()
    assert tomllib.loads(text)["federation"] == "home"


def test_names_as_long_as_they_may_be_make_a_fleet(tmp_path):
    record = new_record("f" * 63, ["2001:db8::7"], broker_port=1, enrolment_port=8884)
    fleet = create_fleet(tmp_path / "fleet", record, PASSPHRASE, ServerPlaces())
    assert read_certificate(fleet.read("authority/root-ca.pem")).name.startswith("fedpt root fff")
    assert fleet.record.enrolment_url == "https://[2001:db8::7]:8884"
