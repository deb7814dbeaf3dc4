"""Rotation: boards learn of a new key by a release that the old key signed."""

from datetime import UTC, datetime

import msgspec
import pytest

from deploy.fleet.adding import issuing_authority, ready_credentials, write_worker
from deploy.fleet.rotating import rotate_authority, rotate_services, rotate_signing_key
from fedpt.certificates import read_certificate
from fedpt.errors import EnrolmentError, FleetError, ReleaseError
from fedpt.releases import SignedManifest, Trust, verify_manifest
from fedpt.signing import Signature
from tests.unit.deploy.fleet.conftest import PASSPHRASE


def _signed(release):
    signature = msgspec.json.decode((release / "manifest.sig").read_bytes(), type=Signature)
    return SignedManifest((release / "manifest.json").read_bytes(), signature)


def _trust(release):
    return Trust.from_json((release / "trust.json").read_bytes())


def test_the_old_key_vouches_for_the_new_one_and_both_are_believed_for_a_while(fleet):
    before = fleet.trust()
    release = rotate_signing_key(fleet, "release", PASSPHRASE)
    assert verify_manifest(_signed(release), before).kind == "keys"
    new = fleet.signing_key("release", PASSPHRASE).public
    assert [one.key for one in _trust(release).keys][:2] == [new, before.keys[0].key]
    assert fleet.trust() == _trust(release)
    assert (fleet.server / "coordinator" / "trust.json").read_bytes() == fleet.read(
        "keys/trust.json"
    )


def test_a_board_that_missed_one_rotation_can_follow_the_next(fleet):
    rotate_signing_key(fleet, "release", PASSPHRASE)
    missed = fleet.trust()
    second = rotate_signing_key(fleet, "release", PASSPHRASE)
    assert verify_manifest(_signed(second), missed).kind == "keys"
    third = rotate_signing_key(fleet, "release", PASSPHRASE)
    assert len(_trust(third).keys) == 3  # two of releases, one of adapters


def test_a_compromised_key_is_believed_no_more(fleet):
    old = fleet.signing_key("release", PASSPHRASE)
    release = rotate_signing_key(fleet, "release", PASSPHRASE, is_compromised=True)
    content = _signed(release).content
    forged = SignedManifest(content, old.sign(content, purpose="release"))
    with pytest.raises(ReleaseError, match="signed by an unknown key"):
        verify_manifest(forged, _trust(release))


def test_the_adapter_key_is_replaced_and_stays_limited(fleet):
    before = fleet.read("server/coordinator/adapter.key")
    release = rotate_signing_key(fleet, "adapter", PASSPHRASE)
    assert fleet.read("server/coordinator/adapter.key") != before
    assert [one.kinds for one in _trust(release).keys if one.kinds == ["adapter"]] == [
        ["adapter"],
        ["adapter"],
    ]


def test_services_get_new_keys_and_certificates(fleet):
    path = "server/mosquitto/broker.pem"
    before = read_certificate(fleet.read(path)).serial
    rotate_services(fleet)
    assert read_certificate(fleet.read(path)).serial != before


def test_workers_on_other_machines_are_renewed_and_a_removal_still_knows_all_their_certificates(
    fleet,
):
    added = ready_credentials(fleet, "worker-2", "worker")
    write_worker(fleet, added)
    fleet.write_device(added.record)
    (folder,) = rotate_services(fleet)
    renewed = read_certificate((folder / "worker-2.pem").read_bytes())
    assert fleet.device("worker-2").serials == [*added.record.serials, str(renewed.serial)]
    fleet.write_device(msgspec.structs.replace(fleet.device("worker-2"), is_removed=True))
    assert rotate_services(fleet) == []


def test_a_new_authority_vouches_for_nobody_whom_the_old_one_let_in(fleet):
    root = fleet.read("authority/root-ca.pem")
    old = ready_credentials(fleet, "kitchen", "rpi5").identity[0]
    rotate_authority(fleet, PASSPHRASE)
    now = datetime.now(UTC)
    with pytest.raises(EnrolmentError, match="issued by somebody else"):
        issuing_authority(fleet).require_issued(old, now)
    broker = fleet.read("server/mosquitto/broker.pem")
    assert issuing_authority(fleet).require_issued(broker, now).name == "broker"
    trusted = root + issuing_authority(fleet).certificate_pem
    assert fleet.read("server/mosquitto/ca.pem") == trusted
    with pytest.raises(FleetError):
        rotate_authority(fleet, "wrong horse")
    assert fleet.read("server/mosquitto/ca.pem") == trusted, "nothing changed"
