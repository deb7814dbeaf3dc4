"""What a line of a chat is: something said, or one of these commands. Pure."""

import difflib
from dataclasses import dataclass
from typing import Final

from fedpt.errors import UsageError

COMMANDS: Final = {
    "help": ("", "this list"),
    "mode": ("[local|steered]", "the board alone, or helped by the large model; bare: which now"),
    "why": ("", "what the last answer came from, and what left the board for it"),
    "teach": ("[ANSWER]", "what should have been answered: the board learns it"),
    "reset": ("", "begin anew: forget the conversation"),
    "system": ("[TEXT]", 'set before the conversation; bare: shows it; "" takes it away'),
    "set": ("[NAME VALUE]", "as in /set temperature 0.7; bare: all values"),
    "save": ("FILE", "write the conversation; as JSON, if the name ends so"),
    "quit": ("", "end; so does Ctrl-D"),
}
"""Name, arguments, and what it does."""

_OTHER_NAMES: Final = {"?": "help", "h": "help", "exit": "quit", "bye": "quit", "q": "quit"}


@dataclass(frozen=True, slots=True)
class Said:
    """Words for the assistant."""

    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """Something for the chat itself."""

    name: str
    """A key of `COMMANDS`."""
    rest: str = ""


def parse(line: str) -> Said | Command | None:
    """What a line is; None: an empty one.

    Raises:
        UsageError: It looks like a command, and there is none of that name.
    """
    text = line.strip()
    if not text:
        return None
    if text.startswith("//"):
        return Said(text[1:])
    if not text.startswith("/"):
        return Said(text)
    word, _, rest = text[1:].partition(" ")
    name = _OTHER_NAMES.get(word.lower(), word.lower())
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean /{near[0]}?" if near else "/help lists them;"
        raise UsageError(f"no command /{word}: {hint} // says it to the assistant")
    return Command(name, rest.strip())
