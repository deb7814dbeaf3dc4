"""Ed25519 signatures (RFC 8032) by keys that may each sign certain things only.

A signature covers a purpose as well as the content, so what was signed as one thing never passes
for another. Which keys are believed is the caller's: see `fedpt.releases.Trust`.
"""

import base64
import binascii
from typing import Annotated, Final, Literal, Self

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from msgspec import Meta

from fedpt.errors import FleetError
from fedpt.files import sha256_bytes

Purpose = Literal["release", "token", "statement"]

KeyId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
"""The first 16 hexadecimal digits of the sha256 of a public key's 32 bytes."""

_KEY_BYTES: Final = 32


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who signed, and the 64 bytes."""

    key: KeyId
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class PublicKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key that signatures are checked with; as text it is base64 of its 32 bytes."""

    raw: Annotated[bytes, Meta(min_length=_KEY_BYTES, max_length=_KEY_BYTES)]

    @property
    def id(self) -> str:
        """What a signature names it by."""
        return sha256_bytes(self.raw)[:16]

    @property
    def text(self) -> str:
        """One line, for files."""
        return base64.b64encode(self.raw).decode()

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read `text`.

        Raises:
            FleetError: It is no such key.
        """
        try:
            raw = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != _KEY_BYTES:
            raise FleetError(f"not an Ed25519 public key in base64: {text.strip()[:60]!r}")
        return cls(raw)

    def verifies(self, signature: Signature, content: bytes, *, purpose: Purpose) -> bool:
        """Whether this key has signed this content for this purpose."""
        if signature.key != self.id:
            return False
        try:
            key = Ed25519PublicKey.from_public_bytes(self.raw)
            key.verify(signature.signature, _signed_bytes(content, purpose))
        except (InvalidSignature, ValueError):
            return False
        return True


class SigningKey:
    """A private key. Keep it out of logs: it has no useful `repr`."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> Self:
        """A new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: str | None = None) -> Self:
        """Read a key.

        Raises:
            FleetError: It is no Ed25519 key, or the passphrase is wrong or missing.
        """
        key = private_key_from_pem(pem, passphrase)
        if not isinstance(key, Ed25519PrivateKey):
            raise FleetError("this is a private key, but none that signs releases (Ed25519)")
        return cls(key)

    def to_pem(self, passphrase: str | None = None) -> bytes:
        """PKCS #8, encrypted if there is a passphrase."""
        return private_key_to_pem(self._key, passphrase)

    @property
    def public(self) -> PublicKey:
        """What others check this key's signatures with."""
        raw = self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        return PublicKey(raw)

    def sign(self, content: bytes, *, purpose: Purpose) -> Signature:
        """Sign."""
        return Signature(self.public.id, self._key.sign(_signed_bytes(content, purpose)))


def private_key_to_pem(key: PrivateKeyTypes, passphrase: str | None = None) -> bytes:
    """Any private key as PKCS #8, encrypted if there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def private_key_from_pem(pem: bytes, passphrase: str | None = None) -> PrivateKeyTypes:
    """Read any private key.

    Raises:
        FleetError: It is none, or the passphrase is wrong or missing.
    """
    try:
        return serialization.load_pem_private_key(pem, passphrase.encode() if passphrase else None)
    except TypeError:  # cryptography's way to say: encrypted without passphrase, or vice versa
        reason = "it is not encrypted" if passphrase else "it is encrypted: give the passphrase"
        raise FleetError(f"cannot read a private key: {reason}") from None
    except (ValueError, UnsupportedAlgorithm):
        wrong = "the passphrase is wrong, or " if passphrase else ""
        raise FleetError(f"cannot read a private key: {wrong}the file is damaged") from None


def _signed_bytes(content: bytes, purpose: Purpose) -> bytes:
    return f"fedpt {purpose} v1\0".encode() + content
