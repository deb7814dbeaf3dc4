"""What a model says, read for calls of functions. Pure.

Two spellings are understood: `<tool_call>{"name": …, "arguments": …}</tool_call>` anywhere, as
models of Hermes' and Qwen's kind write it, and the bare object where an answer begins with it.
Whatever is no call of an offered function is text, and is let through unchanged.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

OPENING: Final = "<tool_call>"
CLOSING: Final = "</tool_call>"


@dataclass(frozen=True, slots=True)
class Call:
    """A function that the model wants called."""

    name: str
    arguments: str
    """A JSON object, as text."""


class ToolCallReader:
    """Reads an answer that comes in pieces; text is held back only while it may be a call."""

    def __init__(self, names: Collection[str]) -> None:
        """Begin an answer.

        Args:
            names: The functions that are offered; none: all is text at once.
        """
        self._names = names
        self._held = ""
        self._space = ""
        """White space that is shown only when text follows: calls stand on lines of their own."""
        self._has_text = False
        self.has_calls = False

    def feed(self, piece: str) -> list[str | Call]:
        """What is certain now."""
        if not self._names:
            return [piece] if piece else []
        self._held += piece
        return list(self._parts(is_over=False))

    def rest(self) -> list[str | Call]:
        """What was held back, once no more comes."""
        parts = list(self._parts(is_over=True))
        if self._space and not self.has_calls:
            parts.append(self._space)
        self._space = ""
        return parts

    def _parts(self, *, is_over: bool) -> Iterator[str | Call]:
        while self._held:
            before = self._held
            if not self._has_text and self._held.lstrip().startswith("{"):
                part = self._bare(is_over=is_over)
            elif self._held.startswith(OPENING):
                part = self._tagged(is_over=is_over)
            else:
                part = self._text(is_over=is_over)
            if part:
                yield part
            if self._held == before:
                return

    def _bare(self, *, is_over: bool) -> str | Call | None:
        text = self._held.lstrip()
        size = _object_size(text)
        if size is None and not is_over and text[1:].lstrip()[:1] in ("", '"'):
            return None  # it may become an object
        if size is not None and (call := read_call(text[:size], self._names)):
            return self._called(call, text[size:])
        return self._take(len(self._held) - len(text) + (size or 1))

    def _tagged(self, *, is_over: bool) -> str | Call | None:
        inner, closing, after = self._held[len(OPENING) :].partition(CLOSING)
        if not closing and not is_over:
            return None
        if call := read_call(inner, self._names):
            return self._called(call, after)
        return self._take(len(self._held) - len(after))

    def _text(self, *, is_over: bool) -> str | None:
        place = self._held.find(OPENING)
        if place < 0:
            place = len(self._held) - (0 if is_over else _begun(self._held, OPENING))
        # an object may follow the space before it
        if not is_over and not self._has_text and not self._held[:place].strip():
            opens = self._held[place:].startswith(OPENING)
            return self._take(place) if opens else None
        return self._take(place)

    def _called(self, call: Call, after: str) -> Call:
        self._held, self._space, self.has_calls = after, "", True
        return call

    def _take(self, size: int) -> str | None:
        """Let so much through as text; the space at its end waits for what follows."""
        text = self._space + self._held[:size]
        shown = text.rstrip()
        self._space, self._held = text[len(shown) :], self._held[size:]
        self._has_text = self._has_text or bool(shown)
        return shown or None


def read_call(text: str, names: Collection[str]) -> Call | None:
    """The call that a JSON text is; None: it is none of these functions'."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or value.get("name") not in [*names]:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        return _with_text(value["name"], arguments)
    if not isinstance(arguments, dict):
        return None
    return Call(value["name"], json.dumps(arguments, ensure_ascii=False))


def _with_text(name: str, arguments: str) -> Call | None:
    """Some models write the arguments as a text that holds JSON."""
    try:
        is_object = isinstance(json.loads(arguments, parse_constant=_refuse), dict)
    except (ValueError, RecursionError):
        return None
    return Call(name, arguments) if is_object else None


def _object_size(text: str) -> int | None:
    """Characters of the JSON object that a text begins with; None: it is not whole."""
    if "}" not in text:
        return None
    try:
        return json.JSONDecoder(parse_constant=_refuse).raw_decode(text)[1]
    except (ValueError, RecursionError):
        return None


def _begun(text: str, tag: str) -> int:
    """Characters at the end of a text that the tag may begin with."""
    sizes = range(min(len(tag) - 1, len(text)), 0, -1)
    return next((size for size in sizes if tag.startswith(text[-size:])), 0)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
