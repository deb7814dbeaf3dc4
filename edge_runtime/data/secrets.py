"""What in a text looks like a secret that no model should learn: keys, cards, accounts. Pure.

A table of kinds: how each is written, and what else must hold, so that dates, telephone numbers,
hashes and UUIDs are not taken for one. It looks for what was left in by accident; it is no guard
against somebody who hides a secret.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_LEAST_RANDOM: Final = 8
"""Characters: shorter ones are words, or years."""
_LEAST_BITS: Final = 3.0
"""Shannon entropy a character: eight different ones have 3, German and English words 2 to 3."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A part of a text, `text[start:end]`, that looks like a secret."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a kind of secret is recognised."""

    name: str
    pattern: re.Pattern[str]
    """The secret is its group `secret`, or all of it."""
    holds: Callable[[str], bool] = lambda _: True

    def find(self, text: str) -> Iterator[Secret]:
        """All of this kind, those that overlap another kind's too."""
        part = "secret" if self.pattern.groups else 0
        for match in self.pattern.finditer(text):
            if self.holds(match[part]):
                yield Secret(self.name, *match.span(part))


def find_secrets(text: str) -> tuple[Secret, ...]:
    """All that look like one, in order; those that overlap as one of the longer one's kind."""
    found = [one for kind in _KINDS for one in kind.find(text)]
    kept: list[Secret] = []
    for one in sorted(found, key=lambda one: one.start):
        if kept and one.start < kept[-1].end:
            kept[-1] = _joined(kept[-1], one)
        else:
            kept.append(one)
    return tuple(kept)


def secret_kinds(texts: Iterable[str]) -> tuple[str, ...]:
    """The kinds of secrets in some texts, each once, sorted."""
    return tuple(sorted({one.kind for text in texts for one in find_secrets(text)}))


def without_secrets(text: str) -> str:
    """The text with each secret's kind in its place, such as `[IBAN]`."""
    parts: list[str] = []
    end = 0
    for one in find_secrets(text):
        parts += [text[end : one.start], f"[{one.kind}]"]
        end = one.end
    return "".join([*parts, text[end:]])


def is_card_number(text: str) -> bool:
    """Whether digits are a payment card's: an issuer's prefix and length, and Luhn's checksum."""
    digits = re.sub("[ -]", "", text)
    return bool(_CARD_ISSUERS.fullmatch(digits)) and _luhn(digits) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether an IBAN's checksum holds: ISO 7064, mod 97."""
    plain = text.replace(" ", "").upper()
    return int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1


def is_random(text: str) -> bool:
    """Whether a text is more like a generated password than like a word or a number."""
    has_both = re.search("[A-Za-z]", text) and re.search("[0-9]", text)
    return len(text) >= _LEAST_RANDOM and bool(has_both) and _bits(text) >= _LEAST_BITS


def _joined(first: Secret, second: Secret) -> Secret:
    longer = max(first, second, key=lambda one: one.end - one.start)
    return Secret(longer.kind, first.start, max(first.end, second.end))


def _bits(text: str) -> float:
    """Shannon entropy, bits a character."""
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares)


def _luhn(digits: str) -> int:
    """Luhn's sum, ISO/IEC 7812: every second digit from the right counts as its double's digits."""
    doubled = [sum(divmod(2 * int(one), 10)) for one in digits[-2::-2]]
    return sum(doubled) + sum(map(int, digits[-1::-2]))


_CARD_ISSUERS: Final = re.compile(
    "4[0-9]{15}(?:[0-9]{3})?"  # Visa
    # Mastercard, its newer half from 2221 to 2720
    "|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"
    "|3[47][0-9]{13}"  # American Express
    "|3(?:0[0-5]|[68][0-9])[0-9]{11}"  # Diners Club
    "|(?:6011|65[0-9]{2}|64[4-9][0-9]|35[0-9]{2}|62[0-9]{2})[0-9]{12}"  # Discover, JCB, UnionPay
)

_CARD_FORMS: Final = "|".join(
    sep.join(f"[0-9]{{{size}}}" for size in sizes)
    for sizes in ((4, 4, 4, 4, 3), (4, 4, 4, 4), (4, 6, 5), (4, 6, 4))
    for sep in ("", " ", "-")
)
"""As printed on cards: Visa's and others' fours, American Express's and Diners Club's."""

_IBAN_LENGTHS: Final = {
    "AD": 24, "AE": 23, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27,
    "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30,
    "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24,
    "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28,
    "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
"""All in all, by country: the registry of SWIFT."""

_IBANS: Final = "|".join(
    f"{country}[0-9]{{2}}(?: ?[A-Z0-9]){{{length - 4}}}"
    for country, length in _IBAN_LENGTHS.items()
)

_KINDS: Final = (
    _Kind(
        "private key",
        re.compile(
            "-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:.*?-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----|.*\Z)",
            re.DOTALL,
        ),
    ),
    _Kind("AWS key", re.compile(r"(?<![\w-])(?:AKIA|ASIA)[A-Z2-7]{16}(?![\w-])")),
    _Kind(
        "GitHub token",
        re.compile(r"(?<!\w)(?:gh[opusr]_[A-Za-z0-9]{36,255}|github_pat_\w{40,255})(?!\w)"),
    ),
    _Kind("GitLab token", re.compile(r"(?<![\w-])glpat-[\w-]{20,}")),
    _Kind("Slack token", re.compile(r"(?<![\w-])xox[abeoprs]-[A-Za-z0-9-]{20,}"), is_random),
    _Kind("Slack webhook", re.compile(r"hooks\.slack\.com/services/[A-Za-z0-9/]{20,}")),
    _Kind("Google key", re.compile(r"(?<![\w-])AIza[\w-]{35}(?![\w-])")),
    _Kind("Stripe key", re.compile(r"(?<!\w)[rs]k_live_[A-Za-z0-9]{16,}")),
    _Kind("Hugging Face token", re.compile(r"(?<!\w)hf_[A-Za-z0-9]{30,}(?!\w)"), is_random),
    _Kind("PyPI token", re.compile(r"(?<![\w-])pypi-AgEIcHlwaS5vcmc[\w-]{40,}")),
    _Kind("npm token", re.compile(r"(?<!\w)npm_[A-Za-z0-9]{36}(?!\w)")),
    _Kind("API key", re.compile(r"(?<![\w-])sk-[\w-]{20,}"), is_random),
    _Kind(
        "JSON web token",
        re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}"),
    ),
    _Kind(
        "bearer token",
        re.compile(r"\bbearer[ \t]+(?P<secret>[\w.~+/-]{16,}=*)", re.IGNORECASE),
        is_random,
    ),
    _Kind(
        "password",
        re.compile(
            r"(?:password|passwd|passwort|passphrase|pwd|secret|token|(?:api|access|secret|private)"
            r"""[_-]?key)["']?[ \t]*(?::=|=>|[:=])[ \t]*["']?"""
            r"""(?!https?:|\$)(?P<secret>[^\s"'`<>(){}\[\],;]{8,})""",
            re.IGNORECASE,
        ),
        is_random,
    ),
    _Kind("password", re.compile(r"://[^\s:/@]{1,99}:(?P<secret>[^\s:/@]{8,99})@"), is_random),
    _Kind(
        "card number",
        re.compile(f"(?<![\\w+.,-])(?P<secret>{_CARD_FORMS})(?![\\w-]|[.,][0-9])"),
        is_card_number,
    ),
    _Kind(
        "IBAN",
        # looks ahead first: few places of a text are worth trying all countries
        re.compile(
            f"(?<![A-Z0-9])(?=[A-Z]{{2}}[0-9]{{2}})(?P<secret>{_IBANS})(?![A-Z0-9])",
            re.IGNORECASE | re.ASCII,  # else a Turkish İ counts as an I
        ),
        is_iban,
    ),
)
