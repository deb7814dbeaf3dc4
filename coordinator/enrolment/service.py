"""Answers requests: decides by `register`, journals, and keeps the broker's files true."""

import logging
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from coordinator.drivers.journal import Journal
from coordinator.enrolment import register as rules
from coordinator.enrolment.broker_files import access_rules, write_broker_files
from coordinator.enrolment.register import CertificateIssued, NameRemoved, RegisterEvent
from coordinator.enrolment.settings import EnrolmentSettings
from fedpt.certificates import (
    Authority,
    CertificateRequest,
    read_certificate,
    read_request,
    require_signed_by,
)
from fedpt.enrolment import (
    CertificateReply,
    EnrolmentRequest,
    OperatorReply,
    RenewalRequest,
    SignedStatement,
    Statement,
    TokenClaims,
    read_statement,
    read_token,
)
from fedpt.errors import EnrolmentError, SettingsError, StorageError
from fedpt.ids import FederationId, is_name
from fedpt.signing import PublicKey

_logger = logging.getLogger(__name__)

_RELOAD_TIMEOUT_S: Final = 20.0


class EnrolmentService:
    """One federation's. Not thread-safe: one request at a time."""

    def __init__(self, settings: EnrolmentSettings) -> None:
        """Read keys and register, and write the broker's files.

        Raises:
            FedptError: A file is missing, damaged or cannot be written.
        """
        self._settings = settings
        self._authority = Authority.from_pem(
            _read(settings.issuing_certificate_file), _read(settings.issuing_key_file)
        )
        self._operator = PublicKey.from_text(_read(settings.operator_key_file).decode())
        self._journal = Journal[RegisterEvent](
            settings.state_dir / "register.sqlite", msgspec.msgpack.Decoder(RegisterEvent).decode
        )
        self._register = rules.fold(self._journal.read())
        self._workers = _read_names(settings.workers_file)
        self._tell_broker()

    def enrol(self, asked: EnrolmentRequest) -> CertificateReply:
        """A certificate for a token, once.

        Raises:
            EnrolmentError: The token or the request is refused.
        """
        now = time.time()
        federation = self._settings.federation
        claims = read_token(asked.token, self._operator, federation=federation, now_unix_s=now)
        request = read_request(asked.request.encode())
        admitted = rules.admit_enrolment(self._register, claims, request)
        if isinstance(admitted, rules.Repeated):
            return CertificateReply(certificate=admitted.certificate)
        issued = self._issue(request, claims.board, claims)
        _logger.info("enrolled", extra={"device": claims.name})
        return issued

    def renew(self, asked: RenewalRequest) -> CertificateReply:
        """A successor for a certificate that is still good.

        Raises:
            EnrolmentError: It is not, or the request is not by its holder.
        """
        certificate = asked.certificate.encode()
        facts = self._authority.require_issued(certificate, datetime.now(UTC))
        require_signed_by(certificate, asked.request.encode(), asked.signature)
        request = read_request(asked.request.encode())
        admitted = rules.admit_renewal(self._register, facts, request)
        if isinstance(admitted, rules.Repeated):
            return CertificateReply(certificate=admitted.certificate)
        known = self._register.certificates.get(str(facts.serial))
        issued = self._issue(request, known.board if known else "")
        _logger.info("renewed", extra={"device": facts.name})
        return issued

    def operate(self, signed: SignedStatement) -> OperatorReply:
        """Do what the operator wants; safe to repeat.

        Raises:
            EnrolmentError: It is not the operator who asks, or what is asked for is unknown.
        """
        statement = read_statement(signed, self._operator, now_unix_s=time.time())
        if statement.action == "remove":
            self._remove(statement)
        return OperatorReply(members=rules.members(self._register, time.time()))

    def close(self) -> None:
        """Close the register."""
        self._journal.close()

    def _remove(self, statement: Statement) -> None:
        """Also a name that never came: its card may be lost, with the token on it."""
        name = statement.name
        if not is_name(name):
            raise EnrolmentError(f"not a name of a board: {name[:80]!r}")
        newest = max((one.at_unix_s for one in self._register.of_name(name)), default=0.0)
        if statement.at_unix_s < newest:
            raise EnrolmentError(f"{name!r} was enrolled after this statement was made")
        self._record(
            NameRemoved(name=name, at_unix_s=statement.at_unix_s, serials=statement.serials)
        )
        _logger.info("removed", extra={"device": name})

    def _issue(
        self, request: CertificateRequest, board: str, claims: TokenClaims | None = None
    ) -> CertificateReply:
        pem = self._authority.issue(request, "device", datetime.now(UTC))
        facts = read_certificate(pem)
        self._record(
            CertificateIssued(
                serial=str(facts.serial),
                name=facts.name,
                board=board,
                key_sha256=request.key_sha256,
                certificate=pem.decode(),
                at_unix_s=time.time(),
                expires_unix_s=facts.not_after.timestamp(),
                nonce=claims.nonce if claims else "",
                token_issued_unix_s=claims.issued_unix_s if claims else 0.0,
            )
        )
        return CertificateReply(certificate=pem.decode())

    def _record(self, event: RegisterEvent) -> None:
        before = self._broker_view()
        self._journal.append(event)
        self._register = rules.apply(self._register, event)
        if self._broker_view() != before:
            self._tell_broker()

    def _broker_view(self) -> tuple[str, frozenset[str]]:
        register = self._register
        workers = self._workers - register.removed.keys()
        federation = FederationId(self._settings.federation)
        return access_rules(federation, workers=workers, removed=register.removed), register.revoked

    def _tell_broker(self) -> None:
        text, revoked = self._broker_view()
        revocations = self._authority.revocation_list(map(int, revoked), datetime.now(UTC))
        folder = self._settings.broker_folder
        write_broker_files(folder, text, revocations, self._register.removed)
        if command := self._settings.reload_command:
            _run(command)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def _read_names(path: Path | None) -> frozenset[str]:
    names = _read(path).decode().split() if path else []
    if wrong := [name for name in names if not is_name(name)]:
        raise SettingsError(f"{path}: not a worker's name: {wrong[0]!r}")
    return frozenset(names)


def _run(command: tuple[str, ...]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_RELOAD_TIMEOUT_S, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StorageError(f"cannot tell the broker to reload: {error}") from error
    if done.returncode:
        _logger.error("the broker was not reloaded", extra={"output": done.stderr[-300:]})
