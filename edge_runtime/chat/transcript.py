"""A conversation as a file: for people, or for programs. Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec

from fedpt.chat import ChatMessage

_WHO: Final = {"system": "System", "user": "You", "assistant": "Assistant"}


def to_json(messages: Sequence[ChatMessage]) -> bytes:
    """As OpenAI's API takes a conversation."""
    content = msgspec.json.encode({"messages": list(messages)})
    return msgspec.json.format(content, indent=2) + b"\n"


def to_text(messages: Sequence[ChatMessage]) -> bytes:
    """To be read."""
    turns = [f"{_WHO.get(one.role, one.role)}: {one.content}\n" for one in messages]
    return "\n".join(turns).encode()
