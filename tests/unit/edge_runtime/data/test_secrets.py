import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.data.secrets import (
    find_secrets,
    is_card_number,
    is_iban,
    is_random,
    secret_kinds,
    without_secrets,
)

# put together here, so that no scanner takes this file for one that holds secrets
KEY = "-----BEGIN {0}PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nq83\n-----END {0}PRIVATE KEY-----"
RANDOM_36 = "16C7e42F292c6912E7710c838347Ae178B4a"

SECRETS = [
    ("private key", KEY.format("")),
    ("private key", KEY.format("RSA ")),
    ("private key", KEY.format("OPENSSH ")),
    ("private key", KEY.format("EC ").partition("\n-----END")[0]),
    ("private key", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOY"),
    ("AWS key", "AKIA" + "IOSFODNN7EXAMPLE"),
    ("GitHub token", "ghp_" + RANDOM_36),
    ("GitHub token", "github_pat_" + "11ABCDEFG0" + RANDOM_36),
    ("GitLab token", "glpat-" + RANDOM_36[:20]),
    ("Slack token", "xoxb-" + "123456789012-" + RANDOM_36[:24]),
    ("Slack webhook", "hooks.slack.com/services/" + "T00000000/B00000000/" + RANDOM_36[:24]),
    ("Google key", "AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY"),
    ("Stripe key", "sk_live_" + RANDOM_36[:24]),
    ("Hugging Face token", "hf_" + RANDOM_36),
    ("PyPI token", "pypi-AgEIcHlwaS5vcmc" + RANDOM_36 * 2),
    ("npm token", "npm_" + RANDOM_36),
    ("API key", "sk-" + "proj-" + RANDOM_36),
    ("JSON web token", "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + RANDOM_36),
    ("card number", "4111 1111 1111 1111"),
    ("card number", "5555555555554444"),
    ("card number", "2223-0031-2200-3222"),
    ("card number", "3782 822463 10005"),
    ("card number", "3056 930902 5904"),
    ("card number", "6011000990139424"),
    ("card number", "3530111333300000"),
    ("IBAN", "DE89 3704 0044 0532 0130 00"),
    ("IBAN", "GB82WEST12345698765432"),
    ("IBAN", "fr14 2004 1010 0505 0001 3m02 606"),
    ("IBAN", "NO93 8601 1117 947"),
]

IN_CONTEXT = [
    ("password", "the Wi-Fi's password=Xk29dlPq8z, the name is Home", "Xk29dlPq8z"),
    ("password", 'DB_PASSWORD: "aB3$xY9zQ"', None),
    ("password", "api_key => 9f8e7d6c5b4a39281706", "9f8e7d6c5b4a39281706"),
    ("password", "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1", None),
    ("password", "postgres://house:tr0ub4dor-3x@10.0.0.2/db", "tr0ub4dor-3x"),
    ("bearer token", f"Authorization: Bearer {RANDOM_36}", RANDOM_36),
]

NO_SECRETS = [
    "on 2026-11-25 at 20:15, or 25.11.2026, or 20261125101530, or 1764101730123 ms",
    "call +49 170 1234567, +1 (555) 123-4567, 0041 44 668 18 00, +4111 1111 1111 1111",
    "d41d8cd98f00b204e9800998ecf8427e and e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca4",
    "commit 9664974, sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "550e8400-e29b-41d4-a716-446655440000, 41111111-1111-4111-8111-111111111111",
    "4111 1111 1111 1112",  # Luhn's checksum is wrong
    "1234 5678 9012 3452",  # the checksum is right, but nobody issues such cards
    "4111 11111111 1111",  # no card is printed so
    "order 44111111111111111, meter 4111111111111111.50, 9,4111111111111111",
    "DE89 3704 0044 0532 0130 01",  # the checksum is wrong
    "DE89 3704 0044 0532 0130",  # too short
    "XX89 3704 0044 0532 0130 00",  # no such country
    "ISBN 978-3-16-148410-0, IMEI 490154203237518, 192.168.178.23, AA:BB:CC:DD:EE:FF",
    "password: required, token: 1024, secret = password, pwd: /home/user, api_key: ${API_KEY}",
    "password=<your-password>, password=********, password = os.environ['P4ssw0rdX']",
    "the token: see https://example.org/reset?id=12, tokens=12a4b6c8d0",
    "the bearer of this letter, sk-learn, AKIA, ghp_short, eyJ.eyJ.x, hf_transfer",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0B\n-----END PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----\nMIIBIjANBgkqhkiG9w0B\n-----END CERTIFICATE-----",
    "http://kitchen.local:8090/v1 and user@example.org",
    "Turn on the light in room 12 at 7:30, 21 °C, 5000 K, code 4711",
]


@pytest.mark.parametrize(("kind", "secret"), SECRETS)
def test_a_secret_is_found_and_all_of_it_hidden(kind: str, secret: str) -> None:
    text = f"Here it is: {secret}\nKeep it."
    (found,) = find_secrets(text)
    assert found.kind == kind
    assert secret in text[found.start : found.end] or "PRIVATE KEY" in secret
    assert without_secrets(text).startswith(f"Here it is: [{kind}]")


@pytest.mark.parametrize(("kind", "text", "secret"), IN_CONTEXT)
def test_what_a_text_calls_a_secret_is_one(kind: str, text: str, secret: str | None) -> None:
    (found,) = find_secrets(text)
    assert found.kind == kind
    assert secret is None or text[found.start : found.end] == secret


@pytest.mark.parametrize("text", NO_SECRETS)
def test_what_only_looks_alike_is_none(text: str) -> None:
    assert find_secrets(text) == ()
    assert without_secrets(text) == text


def test_each_kind_is_named_once() -> None:
    texts = ["4111111111111111 and 5555555555554444", "", "DE89370400440532013000"]
    assert secret_kinds(texts) == ("IBAN", "card number")


def test_two_that_overlap_are_told_as_the_longer_one() -> None:
    text = f"token={KEY.format('')}"
    assert [one.kind for one in find_secrets(text)] == ["private key"]
    assert without_secrets(text) == "token=[private key]"


@given(st.from_regex(r"4[0-9]{14}", fullmatch=True))
def test_one_of_ten_last_digits_makes_a_card_number(digits: str) -> None:
    assert sum(is_card_number(f"{digits}{last}") for last in range(10)) == 1


@given(st.from_regex(r"[0-9]{18}", fullmatch=True))
def test_the_check_digits_of_an_iban_are_found_by_their_rule(account: str) -> None:
    check = 98 - int(f"{account}131400") % 97  # D is 13, E is 14
    assert is_iban(f"DE{check:02}{account}")
    assert not is_iban(f"DE{(check + 1) % 97:02}{account}")


@pytest.mark.parametrize("word", ["required", "12345678", "aaaaaaa1", "Sommer1", "passw0rd"])
def test_words_and_numbers_are_not_random(word: str) -> None:
    assert not is_random(word)


@given(st.text(max_size=200))
def test_any_text_can_be_looked_at(text: str) -> None:
    shown = without_secrets(text)
    assert find_secrets(text) or shown == text


@pytest.mark.parametrize(
    "text",
    ["A1" * 200_000, "a." * 100_000, "-eyJ" * 50_000, "4111 " * 40_000, "password=" * 20_000,
     "-----BEGIN PRIVATE KEY-----" * 5_000, "DE89 " * 40_000, "://a:" * 40_000, "x" * 200_000],
)  # fmt: skip
def test_long_texts_are_looked_at_in_time_that_grows_with_them(text: str) -> None:
    assert len(find_secrets(text)) <= 1  # in time that grows with its square it would be minutes


def test_letters_of_other_alphabets_are_no_account_number() -> None:
    """A dotted capital I is one of our letters where case is ignored, and no digit of any base."""
    assert secret_kinds(["TR06 \u0130" + "a" * 21 + ".", "GB82 \u212a" + "a" * 17]) == ()
