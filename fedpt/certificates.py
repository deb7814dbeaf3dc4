"""X.509 identities of a fleet: a root authority, an issuing one below it, and who they vouch for.

The root's key stays with the operator and signs issuing authorities only. The issuing authority
is on the server and signs everybody who talks there; a certificate's common name is the name that
the broker's access rules use. Keys are P-256, for every TLS library takes them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Final, Literal, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedpt.errors import EnrolmentError, FleetError
from fedpt.files import sha256_bytes
from fedpt.ids import is_name
from fedpt.signing import private_key_from_pem, private_key_to_pem

Role = Literal["device", "worker", "coordinator", "broker", "enrolment"]

ROOT_DAYS: Final = 20 * 365
ISSUING_DAYS: Final = 10 * 365
MEMBER_DAYS: Final = 365
"""Devices and workers; renewed when a third is left."""
SERVICE_DAYS: Final = 2 * 365

_RENEW_WHEN_LEFT: Final = 1 / 3
_CLOCK_SKEW: Final = timedelta(hours=1)
"""Boards without a clock of their own may be a little behind when they first connect."""

_SERVERS: Final = ("broker", "enrolment")


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says."""

    name: str
    role: str
    serial: int
    not_before: datetime
    not_after: datetime
    issuer: str

    def days_left(self, now: datetime) -> float:
        """Days until it expires; negative afterwards."""
        return (self.not_after - now) / timedelta(days=1)

    def is_due_for_renewal(self, now: datetime) -> bool:
        """Whether less than a third of its life is left."""
        return self.not_after - now < (self.not_after - self.not_before) * _RENEW_WHEN_LEFT


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A request whose sender has proved that it holds the key."""

    name: str
    public_key: ec.EllipticCurvePublicKey

    @property
    def key_sha256(self) -> str:
        """Names the key, so that a repeated request can be told from another's."""
        return sha256_bytes(_public_bytes(self.public_key))


@dataclass(frozen=True, slots=True)
class _Life:
    """When a certificate begins, nearly, and for how long."""

    start: datetime
    days: int


class Authority:
    """A certificate authority with its key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def new_root(cls, name: str, now: datetime) -> "Authority":
        """A root that vouches for itself."""
        key = new_key()
        subject = _subject(name, "authority")
        builder = _builder(subject, subject, key.public_key(), _Life(now, ROOT_DAYS))
        return cls(_sign_authority(builder, key.public_key(), key, path_length=1), key)

    @classmethod
    def from_pem(cls, certificate: bytes, key: bytes, passphrase: str | None = None) -> "Authority":
        """Read one.

        Raises:
            FleetError: A file is damaged, the passphrase wrong, or key and certificate do not fit.
        """
        private = _elliptic_key(key, passphrase)
        try:
            loaded = x509.load_pem_x509_certificates(certificate)[0]
        except (ValueError, IndexError):
            raise FleetError("cannot read the authority's certificate: not in PEM") from None
        if _public_bytes(loaded.public_key()) != _public_bytes(private.public_key()):
            raise FleetError("the authority's key and certificate do not belong together")
        return cls(loaded, private)

    @property
    def certificate_pem(self) -> bytes:
        """Its certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, passphrase: str | None = None) -> bytes:
        """Its key, encrypted if there is a passphrase."""
        return private_key_to_pem(self._key, passphrase)

    def new_issuing(self, name: str, now: datetime) -> "Authority":
        """An authority below this one that can make no further authorities."""
        key = new_key()
        builder = _builder(
            _subject(name, "authority"),
            self._certificate.subject,
            key.public_key(),
            _Life(now, ISSUING_DAYS),
        )
        certificate = _sign_authority(builder, key.public_key(), self._key, path_length=0)
        return Authority(certificate, key)

    def issue(
        self, request: CertificateRequest, role: Role, now: datetime, *, hosts: Iterable[str] = ()
    ) -> bytes:
        """Vouch for a key: the certificate in PEM, followed by this authority's.

        Args:
            request: Whose key.
            role: Servers may be connected to under `hosts`, all others only connect themselves.
            now: Its life begins an hour earlier.
            hosts: Names and addresses of a server.
        """
        is_server = role in _SERVERS
        usage = ExtendedKeyUsageOID.SERVER_AUTH if is_server else ExtendedKeyUsageOID.CLIENT_AUTH
        days = MEMBER_DAYS if role in {"device", "worker"} else SERVICE_DAYS
        key, issuer = request.public_key, self._certificate.subject
        builder = (
            _builder(_subject(request.name, role), issuer, key, _Life(now, days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(_authority_identifier(self._key), critical=False)
        )
        if names := [_general_name(host) for host in hosts]:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM) + self.certificate_pem

    def revocation_list(self, serials: Iterable[int], now: datetime) -> bytes:
        """The revoked serial numbers, signed, in PEM.

        It expires with the authority itself: a broker refuses everybody once its list has expired,
        and reads it from a file that nobody can hold back.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now - _CLOCK_SKEW)
            .next_update(self._certificate.not_valid_after_utc)
        )
        for serial in sorted(set(serials)):
            revoked = x509.RevokedCertificateBuilder(serial, now)
            builder = builder.add_revoked_certificate(revoked.build())
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    def require_issued(self, certificate_pem: bytes, now: datetime) -> CertificateFacts:
        """The facts of a certificate, if this authority has issued it and it is valid now.

        Raises:
            EnrolmentError: It has not, or it is not.
        """
        certificate = _load_certificate(certificate_pem)
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            raise EnrolmentError("this certificate was issued by somebody else") from None
        facts = read_certificate(certificate_pem)
        if not facts.not_before <= now <= facts.not_after:
            raise EnrolmentError(f"the certificate of {facts.name!r} ended on {facts.not_after:%F}")
        return facts


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new private key for TLS."""
    return ec.generate_private_key(ec.SECP256R1())


def make_request(name: str, key_pem: bytes) -> bytes:
    """A certificate request in PEM, signed with the key it is for.

    Raises:
        FleetError: The key cannot be read.
    """
    key = _elliptic_key(key_pem, None)
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(name, "request"))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_request(pem: bytes) -> CertificateRequest:
    """Read a request, trusting nothing but the key it proves to have. The name is only a wish.

    Raises:
        EnrolmentError: It is no request, its signature is wrong, or the key is of another kind.
    """
    try:
        request = x509.load_pem_x509_csr(pem)
        is_signed = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, InvalidSignature) as error:
        raise EnrolmentError(f"not a certificate request: {error}") from None
    if not is_signed:
        raise EnrolmentError("a certificate request that is not signed with its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise EnrolmentError("a certificate request for a key that is not P-256")
    names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if len(names) == 1 else ""
    if not is_name(name):
        raise EnrolmentError(f"a certificate request for the name {name[:80]!r}")
    return CertificateRequest(name, key)


def own_request(name: str, key: ec.EllipticCurvePrivateKey) -> CertificateRequest:
    """A request for a key made by the authority's own side."""
    return CertificateRequest(name, key.public_key())


def read_certificate(pem: bytes) -> CertificateFacts:
    """What the first certificate in `pem` says; nothing is verified.

    Raises:
        EnrolmentError: There is none.
    """
    certificate = _load_certificate(pem)
    subject = certificate.subject
    return CertificateFacts(
        name=_attribute(subject, NameOID.COMMON_NAME),
        role=_attribute(subject, NameOID.ORGANIZATIONAL_UNIT_NAME),
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        issuer=_attribute(certificate.issuer, NameOID.COMMON_NAME),
    )


def sign_with_key(key_pem: bytes, content: bytes) -> bytes:
    """An ECDSA signature: the proof of holding a certificate's key.

    Raises:
        FleetError: The key cannot be read.
    """
    return _elliptic_key(key_pem, None).sign(content, ec.ECDSA(hashes.SHA256()))


def require_signed_by(certificate_pem: bytes, content: bytes, signature: bytes) -> None:
    """Check `sign_with_key`'s signature against a certificate.

    Raises:
        EnrolmentError: Another key has signed.
    """
    key = _load_certificate(certificate_pem).public_key()
    try:
        cast("ec.EllipticCurvePublicKey", key).verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError, TypeError, AttributeError):
        raise EnrolmentError("not signed by the certificate's holder") from None


def _load_certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except (ValueError, IndexError):
        raise EnrolmentError("no certificate in PEM") from None


def _elliptic_key(pem: bytes, passphrase: str | None) -> ec.EllipticCurvePrivateKey:
    key = private_key_from_pem(pem, passphrase)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FleetError("this is a private key, but none for certificates (P-256)")
    return key


def _subject(name: str, role: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
        ]
    )


def _attribute(name: x509.Name, kind: x509.ObjectIdentifier) -> str:
    found = name.get_attributes_for_oid(kind)
    return str(found[0].value) if found else ""


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: _Life
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(life.start.astimezone(UTC) - _CLOCK_SKEW)
        .not_valid_after(life.start.astimezone(UTC) + timedelta(days=life.days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _sign_authority(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    path_length: int,
) -> x509.Certificate:
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    builder = builder.add_extension(constraints, critical=True).add_extension(
        _key_usage(signs_certificates=True), critical=True
    )
    if _public_bytes(key) != _public_bytes(signer.public_key()):
        builder = builder.add_extension(_authority_identifier(signer), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_identifier(signer: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _public_bytes(key: object) -> bytes:
    public = cast("ec.EllipticCurvePublicKey", key)
    return public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
