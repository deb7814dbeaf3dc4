"""The service: journals before it answers, and the broker's files always say what it knows."""

import time
from contextlib import closing

import pytest
from cryptography import x509

from coordinator.enrolment.service import EnrolmentService
from deploy.fleet.adding import token_credentials
from edge_runtime.identity import Identity
from fedpt.certificates import read_certificate
from fedpt.enrolment import EnrolmentRequest, SignedStatement, Statement, sign_statement
from fedpt.errors import EnrolmentError, StorageError
from fedpt.signing import SigningKey
from tests.unit.coordinator.enrolment.conftest import PASSPHRASE


def _token(fleet, name="kitchen", hours=1.0):
    return token_credentials(fleet, name, "rpi5", PASSPHRASE, life_h=hours).token


def _statement(fleet, action="remove", name="kitchen", key=None, **more):
    key = key or fleet.signing_key("operator", PASSPHRASE)
    return sign_statement(Statement(action=action, name=name, at_unix_s=time.time(), **more), key)


def _revoked(settings):
    crl = x509.load_pem_x509_crl((settings.broker_folder / "crl.pem").read_bytes())
    return {one.serial_number for one in crl}


@pytest.fixture
def service(service_settings):
    with closing(EnrolmentService(service_settings)) as service:
        yield service


def test_a_board_is_enrolled_and_the_same_request_gets_the_same_certificate(
    fleet, service, tmp_path
):
    identity = Identity(tmp_path / "identity.pem", "kitchen")
    request = identity.enrolment_request(_token(fleet))
    reply = service.enrol(request)
    assert service.enrol(request) == reply
    identity.take(reply)
    assert read_certificate((tmp_path / "identity.pem").read_bytes()).name == "kitchen"
    other = Identity(tmp_path / "other.pem", "kitchen").enrolment_request(request.token)
    with pytest.raises(EnrolmentError, match="used already"):
        service.enrol(other)


def test_a_used_token_stays_used_over_a_restart(fleet, service_settings, tmp_path):
    request = Identity(tmp_path / "a.pem", "kitchen").enrolment_request(_token(fleet))
    with closing(EnrolmentService(service_settings)) as service:
        reply = service.enrol(request)
    with closing(EnrolmentService(service_settings)) as service:
        assert service.enrol(request) == reply
        other = Identity(tmp_path / "b.pem", "kitchen").enrolment_request(request.token)
        with pytest.raises(EnrolmentError, match="used already"):
            service.enrol(other)


def test_the_holder_of_a_certificate_renews_it_and_nobody_else(fleet, service, tmp_path):
    identity = Identity(tmp_path / "identity.pem", "kitchen")
    identity.take(service.enrol(identity.enrolment_request(_token(fleet))))
    first = read_certificate((tmp_path / "identity.pem").read_bytes())
    renewal = identity.renewal_request()
    identity.take(service.renew(renewal))
    second = read_certificate((tmp_path / "identity.pem").read_bytes())
    assert second.name == first.name
    assert second.serial != first.serial
    thief = Identity(tmp_path / "thief.pem", "kitchen").enrolment_request("-").request
    stolen = type(renewal)(
        certificate=renewal.certificate, request=thief, signature=renewal.signature
    )
    with pytest.raises(EnrolmentError, match="not signed by the certificate's holder"):
        service.renew(stolen)


def test_removal_revokes_denies_and_is_told_to_the_coordinator(
    fleet, service, service_settings, tmp_path
):
    identity = Identity(tmp_path / "identity.pem", "kitchen")
    identity.take(service.enrol(identity.enrolment_request(_token(fleet))))
    assert _revoked(service_settings) == set()
    reply = service.operate(_statement(fleet))
    assert [(one.name, one.state) for one in reply.members] == [("kitchen", "removed")]
    serial = read_certificate((tmp_path / "identity.pem").read_bytes()).serial
    assert _revoked(service_settings) == {serial}
    folder = service_settings.broker_folder
    assert "user kitchen\ntopic deny #\n" in (folder / "acl").read_text()
    assert (folder / "removed").read_text() == "kitchen\n"
    with pytest.raises(EnrolmentError, match="is revoked"):
        service.renew(identity.renewal_request())


def test_a_certificate_made_by_hand_is_revoked_by_its_serial(fleet, service, service_settings):
    service.operate(_statement(fleet, name="attic", serials=("12345",)))
    assert _revoked(service_settings) == {12345}
    assert "user attic\ntopic deny #" in (service_settings.broker_folder / "acl").read_text()


def test_a_card_that_was_lost_before_its_board_came_is_worth_nothing_after_a_removal(
    fleet, service, service_settings, tmp_path
):
    token = _token(fleet)
    service.operate(_statement(fleet))
    assert "user kitchen\ntopic deny #\n" in (service_settings.broker_folder / "acl").read_text()
    with pytest.raises(EnrolmentError, match="was removed after this token was made"):
        service.enrol(Identity(tmp_path / "thief.pem", "kitchen").enrolment_request(token))
    service.enrol(Identity(tmp_path / "a.pem", "kitchen").enrolment_request(_token(fleet)))
    assert "deny" not in (service_settings.broker_folder / "acl").read_text()


def test_only_the_operator_may_remove_and_only_what_has_a_name(fleet, service):
    with pytest.raises(EnrolmentError, match="not a statement of this fleet's operator"):
        service.operate(_statement(fleet, key=SigningKey.generate()))
    with pytest.raises(EnrolmentError, match="not a name of a board: 'a b'"):
        service.operate(_statement(fleet, name="a b"))
    wrong = SignedStatement(content=b"x", signature=_statement(fleet).signature)
    with pytest.raises(EnrolmentError, match="not a statement"):
        service.operate(wrong)


def test_workers_of_the_list_may_read_requests_and_answer_them(service, service_settings):
    rules = (service_settings.broker_folder / "acl").read_text()
    worker = rules.partition("user worker-1\n")[2].partition("\n\n")[0]
    assert worker.splitlines() == [
        "topic read fedpt/v1/home/device/+/logits",
        "topic read fedpt/v1/home/worker/worker-1/logits/+",
        "topic write fedpt/v1/home/device/+/inbox/logits",
    ]


def test_the_broker_is_told_by_a_command_when_something_changed(fleet, service_settings, tmp_path):
    told = tmp_path / "told"
    command = ("sh", "-c", f"echo reload >> {told}")
    changed = service_settings.model_copy(update={"reload_command": command})
    with closing(EnrolmentService(changed)) as service:
        service.enrol(Identity(tmp_path / "a.pem", "kitchen").enrolment_request(_token(fleet)))
        assert told.read_text() == "reload\n"  # at the start; an enrolment changes no rule
        service.operate(_statement(fleet))
        service.operate(_statement(fleet))
    assert told.read_text() == "reload\n" * 2


def test_a_missing_key_is_one_line(service_settings):
    service_settings.issuing_key_file.unlink()
    with pytest.raises(StorageError, match=r"cannot read .*issuing-ca\.key"):
        EnrolmentService(service_settings)


def test_a_request_without_token_is_refused(service):
    request = EnrolmentRequest(token="", request="")
    with pytest.raises(EnrolmentError, match="not a token of this fleet's operator"):
        service.enrol(request)
