"""Who has a certificate, who is out: events, their fold, and what is allowed next.

Pure. The service journals each event before anybody hears of it; see `service`.

```
 token ──► enrolled ──renewal──► enrolled ──► expired
              │ ▲                    │
     removal  │ │ a newer token      │ removal
              ▼ │                    ▼
             removed ◄───────────────┘
```
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import assert_never

import msgspec

from fedpt.certificates import CertificateFacts, CertificateRequest
from fedpt.enrolment import RESERVED_NAMES, Member, TokenClaims
from fedpt.errors import EnrolmentError


class CertificateIssued(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A board has a certificate. With a nonce it came for a token, without it is a renewal."""

    serial: str
    name: str
    board: str
    key_sha256: str
    certificate: str
    at_unix_s: float
    expires_unix_s: float
    nonce: str = ""
    token_issued_unix_s: float = 0.0


class NameRemoved(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The operator wants it out; so are tokens made before."""

    name: str
    at_unix_s: float
    serials: tuple[str, ...] = ()
    """Certificates that only the operator knew of."""


RegisterEvent = CertificateIssued | NameRemoved


@dataclass(frozen=True, slots=True)
class Register:
    """Everything that was issued and removed."""

    certificates: Mapping[str, CertificateIssued] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """By serial number."""
    revoked: frozenset[str] = frozenset()
    """Serial numbers."""
    removed: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Names that are out at present, and since when."""

    def of_name(self, name: str) -> list[CertificateIssued]:
        """A name's certificates, oldest first."""
        return [one for one in self.certificates.values() if one.name == name]


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same request again, because the reply got lost: the same answer."""

    certificate: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Issue it."""


def fold(events: Iterable[RegisterEvent]) -> Register:
    """The register after all events."""
    register = Register()
    for event in events:
        register = apply(register, event)
    return register


def apply(register: Register, event: RegisterEvent) -> Register:
    """The register after one more event."""
    match event:
        case CertificateIssued():
            certificates = {**register.certificates, event.serial: event}
            changed = replace(register, certificates=MappingProxyType(certificates))
            return _replace_predecessors(changed, event) if event.nonce else changed
        case NameRemoved():
            serials = {one.serial for one in register.of_name(event.name)} | set(event.serials)
            return replace(
                register,
                revoked=register.revoked | serials,
                removed=MappingProxyType({**register.removed, event.name: event.at_unix_s}),
            )
        case _:
            assert_never(event)


def admit_enrolment(
    register: Register, claims: TokenClaims, request: CertificateRequest
) -> Wanted | Repeated:
    """Whether a token that was found genuine gets a certificate.

    Raises:
        EnrolmentError: It was used by another key, a newer one was used, the name is not the
            token's, or is out.
    """
    if claims.name in RESERVED_NAMES:
        raise EnrolmentError(f"{claims.name!r} is a name of the server's own")
    if request.name != claims.name:
        raise EnrolmentError(f"a token for {claims.name!r} with a request for {request.name!r}")
    if claims.issued_unix_s <= register.removed.get(claims.name, float("-inf")):
        raise EnrolmentError(f"{claims.name!r} was removed after this token was made")
    for one in register.of_name(claims.name):
        if one.nonce == claims.nonce:
            if one.key_sha256 == request.key_sha256 and one.serial not in register.revoked:
                return Repeated(one.certificate)
            raise EnrolmentError(
                f"the token for {claims.name!r} was used already; if that was not your board:"
                f" fedpt fleet remove {claims.name}"
            )
    if claims.issued_unix_s < _newest_token_unix_s(register, claims.name):
        raise EnrolmentError(f"a newer token for {claims.name!r} was used already")
    return Wanted()


def admit_renewal(
    register: Register, facts: CertificateFacts, request: CertificateRequest
) -> Wanted | Repeated:
    """Whether the holder of a certificate that was found valid gets its successor.

    Raises:
        EnrolmentError: The certificate is revoked, or the request is for another name.
    """
    if str(facts.serial) in register.revoked or facts.name in register.removed:
        raise EnrolmentError(f"the certificate of {facts.name!r} is revoked")
    if facts.role != "device":
        raise EnrolmentError(f"{facts.name!r} is a {facts.role}: renew it with fedpt fleet rotate")
    if request.name != facts.name:
        raise EnrolmentError(f"{facts.name!r} asks for a certificate for {request.name!r}")
    for one in register.of_name(facts.name):
        if one.key_sha256 == request.key_sha256 and one.serial != str(facts.serial):
            return Repeated(one.certificate)
    return Wanted()


def members(register: Register, now_unix_s: float) -> list[Member]:
    """Every name, by its newest certificate, in alphabetical order."""
    newest = {one.name: one for one in register.certificates.values()}
    return [
        Member(
            name=name,
            board=one.board,
            state="removed"
            if name in register.removed
            else ("expired" if one.expires_unix_s < now_unix_s else "enrolled"),
            enrolled_unix_s=min(two.at_unix_s for two in register.of_name(name)),
            expires_unix_s=one.expires_unix_s,
        )
        for name, one in sorted(newest.items())
    ]


def _newest_token_unix_s(register: Register, name: str) -> float:
    return max((one.token_issued_unix_s for one in register.of_name(name)), default=float("-inf"))


def _replace_predecessors(register: Register, newest: CertificateIssued) -> Register:
    """A token for a name that has a certificate is for another board, or a board set up anew."""
    others = {one.serial for one in register.of_name(newest.name)} - {newest.serial}
    removed = {name: at for name, at in register.removed.items() if name != newest.name}
    return replace(register, revoked=register.revoked | others, removed=MappingProxyType(removed))
