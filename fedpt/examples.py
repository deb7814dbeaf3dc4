"""Training and evaluation examples: what one is, and reading them from JSONL.

Knows three shapes of a line and nothing of tokenizers or chat templates.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpt.errors import DataFileError
from fedpt.files import write_bytes


@dataclass(frozen=True, slots=True)
class Example:
    """One question and the answer that should follow it; `system` sets the scene, if not empty."""

    prompt: str
    answer: str
    system: str = ""


def read_examples(path: Path) -> list[Example]:
    """Read a JSONL file: Dolly, Alpaca or chat-messages form, blank lines skipped.

    Raises:
        DataFileError: The file is missing, empty, not UTF-8, or has a bad line (its number is
            told). The command line prints it; a device reports it in its status.
    """
    return parse_examples(_content_of(path), name=str(path))


def parse_examples(content: bytes, *, name: str) -> list[Example]:
    """The same, of a file's content; `name` says whose, for messages.

    Raises:
        DataFileError: As `read_examples`.
    """
    examples = [
        _parse_example(line, where=f"{name}, line {number}")
        for number, line in enumerate(_lines(content, name), start=1)
        if line.strip()
    ]
    if not examples:
        raise DataFileError(f"{name} holds no examples; write one JSON object a line")
    return examples


def read_prompts(path: Path) -> list[Example]:
    """Read a JSONL file of public prompts: as `read_examples`, and the answer may be missing.

    Raises:
        DataFileError: As `read_examples`.
    """
    prompts = [
        _parse_prompt(line, where=f"{path}, line {number}")
        for number, line in enumerate(_lines(_content_of(path), str(path)), start=1)
        if line.strip()
    ]
    if not prompts:
        raise DataFileError(f"{path} holds no prompts; write one JSON object a line")
    return prompts


def write_examples(path: Path, examples: Iterable[Example], *, mode: int = 0o644) -> None:
    """Write examples as JSONL that `read_examples` reads back; `mode` says who may.

    Raises:
        StorageError: The file could not be written.
    """
    lines = [json.dumps(_to_json(example), ensure_ascii=False) for example in examples]
    write_bytes(path, ("\n".join(lines) + "\n").encode(), mode=mode)


def _to_json(example: Example) -> dict[str, str]:
    line = {"instruction": example.prompt, "response": example.answer}
    return {"system": example.system, **line} if example.system else line


def _lines(content: bytes, name: str) -> list[str]:
    try:
        return content.decode().split("\n")  # not splitlines: U+2028 may be text
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataFileError(
            f"{name}, line {line}: not UTF-8 at byte {error.start} of the file; save it as UTF-8"
        ) from error


def _content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataFileError(f"no such data file: {path}") from None
    except OSError as error:
        raise DataFileError(f"cannot read {path}: {error.strerror}") from error


def _parse_example(line: str, *, where: str) -> Example:
    example = _parse_prompt(line, where=where)
    if not example.answer.strip():
        raise DataFileError(f"{where}: the answer is missing or empty")
    return example


def _parse_prompt(line: str, *, where: str) -> Example:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"{where}: not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise DataFileError(f"{where}: a JSON object was expected, got {type(fields).__name__}")
    example = (
        _from_messages(fields["messages"], where)
        if "messages" in fields
        else _from_instruction(fields, where)
    )
    _require_characters(example, where)
    return example


def _require_characters(example: Example, where: str) -> None:
    try:
        f"{example.system}{example.prompt}{example.answer}".encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise DataFileError(f"{where}: {half} is half a character (a lone surrogate)") from error


def _from_instruction(fields: dict[str, Any], where: str) -> Example:
    """Dolly (instruction, context, response) and Alpaca (instruction, input, output)."""
    texts = {
        name: fields.get(name, "")
        for name in ("instruction", "context", "input", "response", "output", "system")
    }
    for name, text in texts.items():
        if not isinstance(text, str):
            raise DataFileError(f"{where}: {name!r} is {text!r}, a string was expected")
    if not texts["instruction"].strip():
        raise DataFileError(f"{where}: no 'instruction' and no 'messages'")
    context = texts["context"] or texts["input"]
    prompt = f"{texts['instruction']}\n\n{context}" if context else texts["instruction"]
    return Example(prompt, texts["response"] or texts["output"], texts["system"])


def _from_messages(messages: object, where: str) -> Example:
    """Chat messages: an optional system, one user, and (for examples) one assistant turn."""
    if not isinstance(messages, list) or not messages:
        raise DataFileError(f"{where}: 'messages' must be a list of role and content")
    turns: dict[str, str] = {}
    for message in messages:
        role, content = (
            (message.get("role"), message.get("content")) if isinstance(message, dict) else (0, 0)
        )
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            raise DataFileError(f"{where}: {message!r} is no message with a role and a content")
        if role in turns:
            raise DataFileError(f"{where}: two {role!r} turns; one question an example, please")
        turns[str(role)] = content
    if not turns.get("user", "").strip():
        raise DataFileError(f"{where}: 'messages' has no user turn")
    return Example(turns["user"], turns.get("assistant", ""), turns.get("system", ""))
