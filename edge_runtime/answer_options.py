"""How an answer is to be made: what people set with options and with `/set`. Pure."""

from dataclasses import dataclass, replace
from typing import Final

import msgspec

from fedpt.decoding.sampling import GREEDY, Sampling
from fedpt.errors import UsageError

_MAX_TOKENS: Final = "max-tokens"


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What holds for every answer of a conversation."""

    system: str = ""
    """Set before the conversation; empty: the device's own."""
    sampling: Sampling = GREEDY
    max_tokens: int | None = None
    """None: the device's own limit."""
    stop: tuple[str, ...] = ()


PLAIN_OPTIONS: Final = AnswerOptions()


def sampling_of(options: Sampling) -> Sampling:
    """How to choose tokens, as a command line's options say.

    Raises:
        UsageError: One is out of bounds, or does nothing without another.
    """
    idle = [
        f"--{_shown(name)}"
        for name in ("top_p", "top_k", "min_p", "seed")
        if getattr(options, name) != getattr(GREEDY, name)
    ]
    if options.is_greedy and idle:
        raise UsageError(f"{' and '.join(idle)}: without --temperature nothing is left to chance")
    return _checked(msgspec.to_builtins(options))


def with_option(options: AnswerOptions, text: str) -> AnswerOptions:
    """The options with one changed, as in `temperature 0.7` or `top-k=40`.

    Raises:
        UsageError: There is no such option, or its value cannot be.
    """
    name, _, value = text.replace("=", " ", 1).strip().partition(" ")
    name, value = name.replace("-", "_"), value.strip()
    if _shown(name) == _MAX_TOKENS:
        return replace(options, max_tokens=_max_tokens(value))
    fields = msgspec.to_builtins(options.sampling)
    if name not in fields:
        known = ", ".join(sorted([*map(_shown, fields), _MAX_TOKENS]))
        raise UsageError(f"no option {_shown(name)!r}; there are {known}")
    if not value:
        raise UsageError(f"give a value: /set {_shown(name)} {fields[name]:g}")
    return replace(options, sampling=_checked({**fields, name: _number(name, value)}))


def option_rows(options: AnswerOptions) -> list[tuple[str, str]]:
    """Names and values, as `/set` lists them."""
    limit = options.max_tokens
    return [
        *((_shown(name), f"{value:g}") for name, value in _fields(options.sampling)),
        (_MAX_TOKENS, "the device's limit" if limit is None else str(limit)),
    ]


def _fields(sampling: Sampling) -> list[tuple[str, float]]:
    return list(msgspec.to_builtins(sampling).items())


def _shown(name: str) -> str:
    return name.replace("_", "-")


def _number(name: str, text: str) -> float | int:
    try:
        return int(text) if name in ("top_k", "seed") else float(text)
    except ValueError:
        raise UsageError(f"{_shown(name)} is a number, got {text!r}") from None


def _max_tokens(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{_MAX_TOKENS} is a whole number of 1 or more, got {text!r}")
    return int(text)


def _checked(fields: object) -> Sampling:
    try:
        return msgspec.convert(fields, Sampling)
    except msgspec.ValidationError as error:
        raise UsageError(f"this cannot be: {error}") from error
