"""The identity: one file, made whole; a lost reply costs nothing."""

from datetime import UTC, datetime, timedelta

import pytest

from edge_runtime.identity import Identity
from fedpt.certificates import (
    Authority,
    read_certificate,
    read_request,
    require_signed_by,
)
from fedpt.enrolment import CertificateReply
from fedpt.errors import EnrolmentError

NOW = datetime.now(UTC)
ISSUING = Authority.new_root("root", NOW).new_issuing("issuing", NOW)


def _reply(request, name=None, now=NOW):
    read = read_request(request.encode())
    pem = ISSUING.issue(type(read)(name or read.name, read.public_key), "device", now)
    return CertificateReply(certificate=pem.decode())


@pytest.fixture
def identity(tmp_path):
    return Identity(tmp_path / "identity.pem", "kitchen")


def _enrolled(identity, now=NOW):
    identity.take(_reply(identity.enrolment_request("token").request, now=now))


def test_a_board_without_identity_needs_to_enrol_and_then_nothing(identity):
    assert identity.need(NOW) == "enrol"
    _enrolled(identity)
    assert identity.need(NOW) == ""
    assert identity.need(NOW + timedelta(days=300)) == "renew"
    assert identity.need(NOW + timedelta(days=366)) == "enrol"


def test_only_the_owner_can_read_keys(identity, tmp_path):
    identity.enrolment_request("token")
    modes = [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()]
    _enrolled(identity)
    modes += [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()]
    assert modes == [0o600, 0o600]


def test_a_request_whose_reply_got_lost_is_made_again_with_the_same_key(identity, tmp_path):
    first = identity.enrolment_request("token")
    again = Identity(tmp_path / "identity.pem", "kitchen").enrolment_request("token")
    keys = {read_request(one.request.encode()).key_sha256 for one in (first, again)}
    assert len(keys) == 1


def test_a_renewal_is_signed_with_the_old_key_and_asks_for_a_new_one(identity, tmp_path):
    _enrolled(identity)
    old = read_certificate((tmp_path / "identity.pem").read_bytes())
    renewal = identity.renewal_request()
    require_signed_by(renewal.certificate.encode(), renewal.request.encode(), renewal.signature)
    identity.take(_reply(renewal.request))
    new = read_certificate((tmp_path / "identity.pem").read_bytes())
    assert new.serial != old.serial
    assert "PRIVATE KEY" not in renewal.certificate


def test_certificate_and_key_in_the_file_belong_together_for_openssl(identity, tmp_path):
    import ssl

    _enrolled(identity)
    ssl.create_default_context().load_cert_chain(tmp_path / "identity.pem")


def test_somebody_elses_certificate_is_not_taken(identity, tmp_path):
    request = identity.enrolment_request("token").request
    with pytest.raises(EnrolmentError, match="somebody else's certificate"):
        identity.take(_reply(request, name="garage"))
    assert not (tmp_path / "identity.pem").exists()
    _enrolled(identity)
    with pytest.raises(EnrolmentError, match="is the identity of 'kitchen'; this board is 'attic'"):
        Identity(tmp_path / "identity.pem", "attic").need(NOW)
