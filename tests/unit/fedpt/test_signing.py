"""Signatures hold for the key, the content and the purpose that they were made with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpt.errors import FleetError
from fedpt.signing import PublicKey, SigningKey

KEY = SigningKey.generate()


@given(content=st.binary(max_size=200), other=st.binary(max_size=200))
def test_a_signature_verifies_its_own_content_only(content, other):
    signature = KEY.sign(content, purpose="release")
    assert KEY.public.verifies(signature, content, purpose="release")
    assert KEY.public.verifies(signature, other, purpose="release") == (content == other)


def test_a_signature_for_one_purpose_is_worth_nothing_for_another():
    signature = KEY.sign(b"x", purpose="token")
    assert not KEY.public.verifies(signature, b"x", purpose="statement")


def test_another_key_does_not_verify_even_when_the_signature_claims_its_id():
    other = SigningKey.generate()
    signature = KEY.sign(b"x", purpose="release")
    assert not other.public.verifies(signature, b"x", purpose="release")
    forged = type(signature)(other.public.id, signature.signature)
    assert not other.public.verifies(forged, b"x", purpose="release")


def test_a_key_survives_its_files():
    again = SigningKey.from_pem(KEY.to_pem("correct horse"), "correct horse")
    assert again.public == KEY.public
    assert PublicKey.from_text(KEY.public.text) == KEY.public


@pytest.mark.parametrize(
    ("passphrase", "given_passphrase", "says"),
    [
        ("right", "wrong", "the passphrase is wrong"),
        ("right", None, "it is encrypted: give the passphrase"),
        (None, "needless", "it is not encrypted"),
    ],
)
def test_a_wrong_passphrase_is_told_in_one_line(passphrase, given_passphrase, says):
    pem = KEY.to_pem(passphrase)
    with pytest.raises(FleetError, match=says):
        SigningKey.from_pem(pem, given_passphrase)


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "é" * 44])
def test_what_is_no_public_key_is_refused(text):
    with pytest.raises(FleetError, match="not an Ed25519 public key"):
        PublicKey.from_text(text)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_private_key(content):
    with pytest.raises(FleetError, match="cannot read a private key"):
        SigningKey.from_pem(content)
