"""Tokens and statements: only the operator's, only in time, and never shown."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpt.enrolment import (
    Statement,
    TokenClaims,
    make_token,
    read_statement,
    read_token,
    sign_statement,
)
from fedpt.errors import EnrolmentError
from fedpt.signing import SigningKey

OPERATOR = SigningKey.generate()
CLAIMS = TokenClaims(
    federation="home",
    name="kitchen",
    board="rpi5",
    nonce="0" * 32,
    issued_unix_s=1000.0,
    expires_unix_s=2000.0,
)
TOKEN = make_token(CLAIMS, OPERATOR)


def _read(token, *, federation="home", now=1500.0, operator=OPERATOR):
    return read_token(token, operator.public, federation=federation, now_unix_s=now)


def test_a_token_says_what_the_operator_wrote():
    assert _read(TOKEN) == CLAIMS
    assert _read(f"  {TOKEN}\n") == CLAIMS
    assert len(TOKEN) < 500


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"operator": SigningKey.generate()}, "not a token of this fleet's operator"),
        ({"federation": "office"}, "a token for federation 'home', not 'office'"),
        ({"now": 2000.0 + 7200}, "expired 2.0 hours ago; make another: fedpt fleet add kitchen"),
    ],
)
def test_a_token_of_others_or_of_yesterday_is_refused(change, says):
    with pytest.raises(EnrolmentError, match=says):
        _read(TOKEN, **change)


@given(st.data())
def test_no_changed_token_is_believed_and_none_is_quoted(data):
    raw = bytearray(base64.urlsafe_b64decode(TOKEN + "=" * (-len(TOKEN) % 4)))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    changed = base64.urlsafe_b64encode(bytes(raw)).decode()
    with pytest.raises(EnrolmentError) as caught:
        _read(changed)
    assert changed[:20] not in str(caught.value)


@given(st.text(max_size=300))
def test_arbitrary_text_is_no_token(text):
    with pytest.raises(EnrolmentError, match="not a token"):
        _read(text)


def test_a_statement_is_no_token_and_a_token_no_statement():
    content = msgspec.msgpack.encode(CLAIMS)
    as_statement = sign_statement(Statement(action="list", at_unix_s=1500.0), OPERATOR)
    crossed = base64.urlsafe_b64encode(msgspec.msgpack.encode(as_statement)).decode()
    with pytest.raises(EnrolmentError, match="not a token"):
        _read(crossed)
    signature = OPERATOR.sign(content, purpose="token")
    with pytest.raises(EnrolmentError, match="not a statement"):
        read_statement(
            type(as_statement)(content=content, signature=signature),
            OPERATOR.public,
            now_unix_s=1500.0,
        )


@pytest.mark.parametrize(("age_s", "is_believed"), [(-61, 0), (-59, 1), (0, 1), (299, 1), (301, 0)])
def test_a_statement_is_believed_for_five_minutes(age_s, is_believed):
    signed = sign_statement(Statement(action="remove", name="x", at_unix_s=1000.0), OPERATOR)
    if is_believed:
        got = read_statement(signed, OPERATOR.public, now_unix_s=1000.0 + age_s)
        assert (got.action, got.name) == ("remove", "x")
    else:
        with pytest.raises(EnrolmentError, match="are both clocks right"):
            read_statement(signed, OPERATOR.public, now_unix_s=1000.0 + age_s)
