"""What an operator, a device and the enrolment service say to each other.

The operator signs tokens: one lets one name be enrolled, once, for a short time. A device answers
with a token and a certificate request. The service believes the operator's public key and nothing
else, so it needs no list of who is to come. Statements (remove a device, list all) are signed by
the same key.
"""

import base64
import binascii
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from fedpt.errors import EnrolmentError
from fedpt.ids import NAME_PATTERN
from fedpt.signing import PublicKey, Signature, SigningKey
from fedpt.wire.messages import Message

NameText = Annotated[str, Meta(pattern=rf"^{NAME_PATTERN}\Z")]
PemText = Annotated[str, Meta(max_length=16_384)]

RESERVED_NAMES: Final = frozenset({"coordinator", "broker", "enrolment", "operator"})
"""Names of the server's own identities."""

STATEMENT_LIFE_S: Final = 300.0
"""A statement is believed for so long."""

_LONGEST_TOKEN: Final = 2000
_CLOCK_SKEW_S: Final = 60.0


class TokenClaims(Message, frozen=True, kw_only=True):
    """What a token allows."""

    federation: NameText
    name: NameText
    board: NameText
    nonce: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    issued_unix_s: float
    expires_unix_s: float


class EnrolmentRequest(Message, frozen=True, kw_only=True):
    """`POST /enrol`."""

    token: Annotated[str, Meta(max_length=_LONGEST_TOKEN)]
    request: PemText
    """Certificate request, PEM, for the token's name."""


class RenewalRequest(Message, frozen=True, kw_only=True):
    """`POST /renew`: the holder of a certificate asks for its successor."""

    certificate: PemText
    request: PemText
    signature: Annotated[bytes, Meta(max_length=200)]
    """By the certificate's key, over the request."""


class CertificateReply(Message, frozen=True, kw_only=True):
    """The answer to both."""

    certificate: PemText
    """The certificate, then the authority that issued it."""


class Statement(Message, frozen=True, kw_only=True):
    """What the operator wants of the service."""

    action: Literal["remove", "list"]
    at_unix_s: float
    name: str = ""
    serials: tuple[str, ...] = ()
    """Certificates that the operator issued by hand, in decimal: the service has not seen them."""


class SignedStatement(Message, frozen=True, kw_only=True):
    """`POST /operator`."""

    content: bytes
    signature: Signature


class Member(Message, frozen=True, kw_only=True):
    """One board that the service knows."""

    name: str
    board: str
    state: Literal["enrolled", "expired", "removed"]
    enrolled_unix_s: float
    expires_unix_s: float


class OperatorReply(Message, frozen=True, kw_only=True):
    """The answer to a statement."""

    members: list[Member]


class Refusal(Message, frozen=True, kw_only=True):
    """The body of every answer with an HTTP status above 399."""

    code: str
    reason: str


def make_token(claims: TokenClaims, key: SigningKey) -> str:
    """One line of text, about 400 characters."""
    content = msgspec.msgpack.encode(claims)
    signed = SignedStatement(content=content, signature=key.sign(content, purpose="token"))
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(signed)).decode().rstrip("=")


def read_token(
    text: str, operator: PublicKey, *, federation: str, now_unix_s: float
) -> TokenClaims:
    """What a token allows, if the operator signed it for this federation and it still lives.

    Raises:
        EnrolmentError: It is damaged, of somebody else, or too old. It is never quoted.
    """
    signed = _open_token(text)
    if signed is None or not operator.verifies(signed.signature, signed.content, purpose="token"):
        claims = None
    else:
        claims = _claims_of(signed)
    if claims is None:
        raise EnrolmentError("not a token of this fleet's operator")
    if claims.federation != federation:
        raise EnrolmentError(f"a token for federation {claims.federation!r}, not {federation!r}")
    if now_unix_s > claims.expires_unix_s:
        late_h = (now_unix_s - claims.expires_unix_s) / 3600
        raise EnrolmentError(
            f"the token for {claims.name!r} expired {late_h:.1f} hours ago; make another:"
            f" fedpt fleet add {claims.name} --renew-token"
        )
    return claims


def unverified_claims(text: str) -> TokenClaims | None:
    """What a token says of itself, for people to see; None: it is none. Nobody must believe it."""
    signed = _open_token(text)
    return None if signed is None else _claims_of(signed)


def sign_statement(statement: Statement, key: SigningKey) -> SignedStatement:
    """Make a statement."""
    content = msgspec.msgpack.encode(statement)
    return SignedStatement(content=content, signature=key.sign(content, purpose="statement"))


def read_statement(signed: SignedStatement, operator: PublicKey, *, now_unix_s: float) -> Statement:
    """What the operator wants, if it is the operator, and now.

    Raises:
        EnrolmentError: It is not, or the statement is old (a replay) or from the future.
    """
    if not operator.verifies(signed.signature, signed.content, purpose="statement"):
        raise EnrolmentError("not a statement of this fleet's operator")
    try:
        statement = msgspec.msgpack.decode(signed.content, type=Statement)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise EnrolmentError(f"not a statement: {error}") from None
    age_s = now_unix_s - statement.at_unix_s
    if not -_CLOCK_SKEW_S <= age_s <= STATEMENT_LIFE_S:
        raise EnrolmentError(
            f"a statement made {age_s:.0f} s ago by the operator's clock; are both clocks right?"
        )
    return statement


def _open_token(text: str) -> SignedStatement | None:
    try:
        raw = base64.urlsafe_b64decode(text.strip() + "=" * (-len(text.strip()) % 4))
        return msgspec.msgpack.decode(raw, type=SignedStatement)
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
        return None


def _claims_of(signed: SignedStatement) -> TokenClaims | None:
    try:
        return msgspec.msgpack.decode(signed.content, type=TokenClaims)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return None
