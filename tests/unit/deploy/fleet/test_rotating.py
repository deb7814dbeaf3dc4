"""Rotation: boards learn of a new key by a release that the old key signed."""

import msgspec
import pytest

from deploy.fleet.rotating import rotate_services, rotate_signing_key
from fedpt.certificates import read_certificate
from fedpt.errors import ReleaseError
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
