"""This board's identity: one file that holds its certificate and key, made on the board itself.

The key never leaves the board. It is written before it is asked for a certificate, so that a
reply that got lost can be asked for again with the same key; certificate and key then become the
identity in one rename.
"""

from datetime import datetime
from pathlib import Path
from typing import Literal

from fedpt.certificates import make_request, new_key, read_certificate, sign_with_key
from fedpt.enrolment import CertificateReply, EnrolmentRequest, RenewalRequest
from fedpt.errors import EnrolmentError, FleetError, StorageError
from fedpt.files import write_bytes
from fedpt.signing import private_key_to_pem

_OWNER_ONLY = 0o600


class Identity:
    """The identity in a file, and the key of the one that comes next."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._next_key_path = path.with_name(f"{path.name}.next-key")
        self._name = name

    def need(self, now: datetime) -> Literal["", "enrol", "renew"]:
        """What it takes to have a good one: nothing, a token, or the old one.

        Raises:
            EnrolmentError: The file is damaged, or is somebody else's identity.
        """
        if not self._path.exists():
            return "enrol"
        facts = read_certificate(self._read(self._path))
        if facts.name != self._name:
            raise EnrolmentError(
                f"{self._path} is the identity of {facts.name!r}; this board is {self._name!r}:"
                " move the file away, or mend the name in the settings"
            )
        if facts.not_after <= now:
            return "enrol"
        return "renew" if facts.is_due_for_renewal(now) else ""

    def enrolment_request(self, token: str) -> EnrolmentRequest:
        """Ask for the first certificate.

        Raises:
            StorageError: The new key cannot be written.
        """
        return EnrolmentRequest(token=token, request=self._request(self._next_key()).decode())

    def renewal_request(self) -> RenewalRequest:
        """Ask for the next certificate.

        Raises:
            StorageError: The new key cannot be written, or the old one not be read.
        """
        old = self._read(self._path)
        request = self._request(self._next_key())
        try:
            signature = sign_with_key(old, request)
        except FleetError as error:
            raise EnrolmentError(f"{self._path}: {error}") from error
        certificate = old[old.index(b"-----BEGIN CERTIFICATE") :].decode()
        return RenewalRequest(
            certificate=certificate, request=request.decode(), signature=signature
        )

    def take(self, reply: CertificateReply) -> None:
        """Make the certificate that came, with its key, the identity.

        Raises:
            EnrolmentError: It is not for this board.
            StorageError: It cannot be written.
        """
        certificate = reply.certificate.encode()
        if read_certificate(certificate).name != self._name:
            raise EnrolmentError("the enrolment service sent somebody else's certificate")
        write_bytes(self._path, self._next_key() + certificate, mode=_OWNER_ONLY)
        self._next_key_path.unlink(missing_ok=True)

    def _request(self, key_pem: bytes) -> bytes:
        return make_request(self._name, key_pem)

    def _next_key(self) -> bytes:
        if not self._next_key_path.exists():
            write_bytes(self._next_key_path, private_key_to_pem(new_key()), mode=_OWNER_ONLY)
        return self._read(self._next_key_path)

    @staticmethod
    def _read(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
