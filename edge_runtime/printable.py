"""A model's text on a terminal: shown, never obeyed. Pure."""

from typing import Final

_SHOWN_INSTEAD: Final = {
    code: "\N{REPLACEMENT CHARACTER}"
    for code in (*range(0x20), *range(0x7F, 0xA0))
    if chr(code) not in "\t\n"
}
"""Control characters; an escape could retitle a terminal, or overwrite what stands there."""


def printable(text: str) -> str:
    """The text without what a terminal would take for a command."""
    return text.translate(_SHOWN_INSTEAD)
