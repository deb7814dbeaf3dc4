"""Certificates: who issues what for whom, checked by OpenSSL itself where it matters."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from fedpt.certificates import (
    MEMBER_DAYS,
    Authority,
    make_request,
    new_key,
    own_request,
    read_certificate,
    read_request,
    require_signed_by,
    sign_with_key,
)
from fedpt.errors import EnrolmentError, FleetError
from fedpt.signing import SigningKey, private_key_to_pem

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ROOT = Authority.new_root("root", NOW)
ISSUING = ROOT.new_issuing("issuing", NOW)


def _issue(name="kitchen", role="device", *, hosts=(), now=NOW):
    key = new_key()
    certificate = ISSUING.issue(own_request(name, key), role, now, hosts=hosts)
    return certificate, private_key_to_pem(key)


def _shake_hands(tmp_path, server, client, *, crl=b""):
    """A TLS handshake in memory between two identities that both trust the root only."""
    contexts = []
    for side, (certificate, key) in ((ssl.PROTOCOL_TLS_SERVER, server), (None, client)):
        context = ssl.SSLContext(side or ssl.PROTOCOL_TLS_CLIENT)
        authorities = ROOT.certificate_pem.decode() + ISSUING.certificate_pem.decode()
        context.load_verify_locations(cadata=authorities if side else ROOT.certificate_pem.decode())
        path = tmp_path / f"{len(contexts)}.pem"
        path.write_bytes(key + certificate)
        context.load_cert_chain(path)
        contexts.append(context)
    contexts[0].verify_mode = ssl.CERT_REQUIRED
    if crl:
        (tmp_path / "crl.pem").write_bytes(crl)
        contexts[0].load_verify_locations(tmp_path / "crl.pem")
        contexts[0].verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        contexts[0].wrap_bio(to_server, to_client, server_side=True),
        contexts[1].wrap_bio(to_client, to_server, server_hostname="hub.local"),
    ]
    for _ in range(4):
        for one in sides:
            try:
                one.do_handshake()
            except ssl.SSLWantReadError:
                continue
    sides[0].write(b"welcome")  # with TLS 1.3 a refusal of the client shows no earlier
    return sides[1].read()


def test_a_device_and_a_broker_of_one_fleet_shake_hands(tmp_path):
    broker = _issue("broker", "broker", hosts=["hub.local", "10.0.0.2"], now=datetime.now(UTC))
    device = _issue(now=datetime.now(UTC))
    assert _shake_hands(tmp_path, broker, device) == b"welcome"


def test_a_device_cannot_pass_as_a_broker_nor_a_broker_as_a_device(tmp_path):
    now = datetime.now(UTC)
    broker = _issue("broker", "broker", hosts=["hub.local"], now=now)
    device = _issue(hosts=["hub.local"], now=now)
    with pytest.raises(ssl.SSLError, match=r"unsuitable|unsupported|purpose|alert"):
        _shake_hands(tmp_path, device, device)
    with pytest.raises(ssl.SSLError):
        _shake_hands(tmp_path, broker, broker)


def test_a_revoked_device_is_refused_and_another_is_not(tmp_path):
    now = datetime.now(UTC)
    broker = _issue("broker", "broker", hosts=["hub.local"], now=now)
    lost, kept = _issue("lost", now=now), _issue("kept", now=now)
    crl = ISSUING.revocation_list([read_certificate(lost[0]).serial], now)
    assert _shake_hands(tmp_path, broker, kept, crl=crl) == b"welcome"
    with pytest.raises(ssl.SSLError, match="revoked"):
        _shake_hands(tmp_path, broker, lost, crl=crl)


def test_an_expired_device_is_refused(tmp_path):
    now = datetime.now(UTC)
    broker = _issue("broker", "broker", hosts=["hub.local"], now=now)
    old = _issue(now=now - timedelta(days=MEMBER_DAYS + 1))
    with pytest.raises(ssl.SSLError, match="expired"):
        _shake_hands(tmp_path, broker, old)


def test_facts_say_who_until_when_and_by_whom():
    facts = read_certificate(_issue()[0])
    assert (facts.name, facts.role, facts.issuer) == ("kitchen", "device", "issuing")
    assert facts.not_after == NOW + timedelta(days=MEMBER_DAYS)
    assert facts.days_left(NOW) == MEMBER_DAYS


@pytest.mark.parametrize(("days", "is_due"), [(0, False), (243, False), (244, True), (400, True)])
def test_renewal_is_due_when_a_third_of_the_life_is_left(days, is_due):
    facts = read_certificate(_issue()[0])
    assert facts.is_due_for_renewal(NOW + timedelta(days=days)) is is_due


def test_a_request_is_read_back():
    key = private_key_to_pem(new_key())
    request = read_request(make_request("kitchen", key))
    assert request.name == "kitchen"
    assert request.key_sha256 == read_request(make_request("kitchen", key)).key_sha256


def _request(name="kitchen", key=None):
    key = key or new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)


def _pem(der):
    request = x509.load_der_x509_csr(der)
    return request.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("pem", "says"),
    [
        (b"nonsense", "not a certificate request"),
        (_pem(_request(key=ec.generate_private_key(ec.SECP384R1()))), "not P-256"),
        (_pem(_request(key=ed25519.Ed25519PrivateKey.generate())), "not P-256"),
        (_pem(_request("a/b")), "for the name 'a/b'"),
        (_pem(_request("#")), "for the name '#'"),
        (_pem(_request("kitchen").replace(b"kitchen", b"garages")), "not signed with its own key"),
    ],
)
def test_a_request_that_cannot_be_trusted_is_refused(pem, says):
    with pytest.raises(EnrolmentError, match=says):
        read_request(pem)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_neither_request_nor_certificate(content):
    with pytest.raises(EnrolmentError):
        read_request(content)
    with pytest.raises(EnrolmentError):
        read_certificate(content)


def test_only_certificates_of_the_authority_that_are_valid_now_pass():
    certificate, _ = _issue()
    assert ISSUING.require_issued(certificate, NOW).name == "kitchen"
    with pytest.raises(EnrolmentError, match="ended on"):
        ISSUING.require_issued(certificate, NOW + timedelta(days=400))
    stranger = Authority.new_root("root", NOW).new_issuing("issuing", NOW)
    with pytest.raises(EnrolmentError, match="issued by somebody else"):
        stranger.require_issued(certificate, NOW)


def test_holding_a_certificate_is_proved_by_its_key_only():
    certificate, key = _issue()
    require_signed_by(certificate, b"content", sign_with_key(key, b"content"))
    for content, signer in ((b"other", key), (b"content", private_key_to_pem(new_key()))):
        with pytest.raises(EnrolmentError, match="not signed by the certificate's holder"):
            require_signed_by(certificate, content, sign_with_key(signer, b"content"))


def test_an_authority_survives_its_files_with_the_right_passphrase_only():
    again = Authority.from_pem(ROOT.certificate_pem, ROOT.key_pem("secret"), "secret")
    assert again.certificate_pem == ROOT.certificate_pem
    with pytest.raises(FleetError, match="passphrase is wrong"):
        Authority.from_pem(ROOT.certificate_pem, ROOT.key_pem("secret"), "guess")
    with pytest.raises(FleetError, match="do not belong together"):
        Authority.from_pem(ROOT.certificate_pem, ISSUING.key_pem())
    with pytest.raises(FleetError, match="none for certificates"):
        Authority.from_pem(ROOT.certificate_pem, SigningKey.generate().to_pem())
