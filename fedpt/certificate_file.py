"""Certificate files: what they say, whether an authority vouches for them, whose their key is.

Only reads; making certificates, and trusting them in a connection, is done elsewhere. The package
`cryptography` is loaded when the first certificate is read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpt.errors import ArtifactError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from fedpt.certificates import CertificateFacts


def read_facts(path: Path) -> "CertificateFacts":
    """What a PEM file's first certificate says; those after it are its issuers.

    Raises:
        ArtifactError: There is none, or it cannot be read.
    """
    from fedpt.certificates import read_certificate

    content = _content(path)
    _parse(path, content)  # its message names the file
    return read_certificate(content)


def leads_to_authority(path: Path, authority: Path) -> bool:
    """Whether the issuers, from the file's first certificate on, end at one of `authority`.

    Raises:
        ArtifactError: One of the files cannot be read.
    """
    roots = _read(authority)
    current, *others = _read(path)
    while not any(_is_issued_by(current, root) for root in roots):
        issuers = [one for one in others if _is_issued_by(current, one)]
        if not issuers:
            return False
        current = issuers[0]
        others.remove(current)  # so that it ends, whatever the file holds
    return True


def key_fits(path: Path, key_path: Path) -> bool:
    """Whether the unencrypted key is that of the file's first certificate.

    Raises:
        ArtifactError: One of the files cannot be read.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _content(key_path)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise ArtifactError(f"{key_path} holds no usable key: {error}") from error
    return key.public_key() == _read(path)[0].public_key()


def _read(path: Path) -> "Sequence[Certificate]":
    return _parse(path, _content(path))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error


def _parse(path: Path, content: bytes) -> "Sequence[Certificate]":
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(content)
    except ValueError as error:
        raise ArtifactError(f"{path} holds no usable certificate: {error}") from error


def _is_issued_by(certificate: "Certificate", issuer: "Certificate") -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True
