"""How a model is told of functions, and how it is made to call one. Pure.

Chat templates that know tools get them as they are. For the others they are described in the system
message, and earlier calls and their results are written out as the text that they were.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edge_runtime.api.openai_messages import Function
from edge_runtime.api.tool_calls import CLOSING, OPENING
from fedpt.chat import ChatMessage

_ANY_OBJECT: Final[Mapping[str, object]] = {"type": "object", "properties": {}}
_HOW: Final = (
    "To call one, answer with nothing but"
    f' {OPENING}{{"name": "...", "arguments": {{...}}}}{CLOSING}. Otherwise answer in words.'
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation as the model's template takes it."""

    messages: tuple[ChatMessage, ...]
    tools: tuple[Mapping[str, object], ...] = ()


def prompt_with_tools(
    template: str,
    messages: Sequence[ChatMessage],
    functions: Sequence[Function],
    *,
    system: str,
) -> Prompt:
    """A conversation with the functions that may be called in it.

    Args:
        template: The model's chat template.
        messages: The conversation.
        functions: What may be called; maybe nothing.
        system: The device's own system message, for conversations without one.
    """
    if knows_tools(template):
        return Prompt(tuple(messages), tuple(_as_tool(one) for one in functions))
    written = [_written_out(message) for message in messages]
    if not functions:
        return Prompt(tuple(written))
    if written[0].role == "system":
        system = written.pop(0).content
    text = "\n\n".join(filter(None, (system, description(functions))))
    return Prompt((ChatMessage(role="system", content=text), *written))


def knows_tools(template: str) -> bool:
    """Whether a chat template does anything with tools."""
    return re.search(r"\btools\b", template) is not None


def description(functions: Sequence[Function]) -> str:
    """The functions in few words, for models whose template has no place for them."""
    lines = [
        f"- {one.name}: {one.description or 'no description'}"
        f" Arguments: {json.dumps(one.parameters or _ANY_OBJECT, ensure_ascii=False)}"
        for one in functions
    ]
    return "\n".join(["You may call these functions:", *lines, _HOW])


def calls_schema(
    functions: Sequence[Function], otherwise: Mapping[str, object] | None = None
) -> dict[str, object]:
    """The JSON schema of a call of any of these functions.

    Args:
        functions: At least one.
        otherwise: A schema that may be met instead.
    """
    parts = {f"arguments{i}": one.parameters or _ANY_OBJECT for i, one in enumerate(functions)}
    choices: list[object] = [
        _object(name={"const": one.name}, arguments={"$ref": f"#/$defs/arguments{i}"})
        for i, one in enumerate(functions)
    ]
    if otherwise is not None:
        parts["otherwise"] = otherwise
        choices.insert(0, {"$ref": "#/$defs/otherwise"})
    return {
        "$defs": {name: _moved(part, f"#/$defs/{name}") for name, part in parts.items()},
        "anyOf": choices,
    }


def _as_tool(function: Function) -> Mapping[str, object]:
    return {
        "type": "function",
        "function": {
            "name": function.name,
            "description": function.description or "",
            "parameters": function.parameters or _ANY_OBJECT,
        },
    }


def _written_out(message: ChatMessage) -> ChatMessage:
    """Without what such templates would leave out or refuse: calls, and the role of results."""
    if message.role == "tool":
        text = f"<tool_response>\n{message.content}\n</tool_response>"
        return ChatMessage(role="user", content=text)
    if not message.tool_calls:
        return message
    calls = [
        f"{OPENING}{json.dumps(one['function'], ensure_ascii=False)}{CLOSING}"
        for one in message.tool_calls
    ]
    return ChatMessage(
        role=message.role, content="\n".join(filter(None, [message.content, *calls]))
    )


def _object(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _moved(schema: object, to: str) -> object:
    """A schema that is now a part of another: what it refers to has moved with it."""
    if isinstance(schema, Mapping):
        return {
            key: to + value[1:]
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else _moved(value, to)
            for key, value in schema.items()
        }
    return [_moved(one, to) for one in schema] if isinstance(schema, list) else schema
