"""The options that `fedpt ask` and `fedpt chat` share, and reading what they name."""

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from edge_runtime.question import Mode
from fedpt.errors import UsageError

Config = Annotated[
    Path | None, typer.Option(help="A device's settings: ask its running assistant.")
]
Small = Annotated[Path | None, typer.Option(help="Without a device: the small model, GGUF.")]
Adapter = Annotated[Path | None, typer.Option(help="Without a device: the expert's adapter, GGUF.")]
Large = Annotated[Path | None, typer.Option(help="Without a device: the large model, GGUF.")]
WantedMode = Annotated[
    Mode | None,
    typer.Option(
        help="local: the expert alone, nothing leaves the board. steered: with the large"
        " model; the question's tokens go to the coordinator.",
        show_default="as the device's share_questions says",
    ),
]
System = Annotated[str, typer.Option(help="Set before the question, instead of the device's own.")]
MaxTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Longest answer, tokens.", show_default="the device's own limit"),
]
Temperature = Annotated[
    float,
    typer.Option(min=0, max=100, help="0: always the likeliest token; 1: as likely as it is."),
]
TopP = Annotated[
    float, typer.Option(min=0, max=1, help="Only the likeliest tokens with this share together.")
]
TopK = Annotated[int, typer.Option(min=0, help="Only so many of the likeliest tokens; 0: all.")]
MinP = Annotated[
    float, typer.Option(min=0, max=1, help="Only tokens so likely, as a share of the likeliest.")
]
RepetitionPenalty = Annotated[
    float, typer.Option(min=1, max=10, help="Above 1, tokens that were there are less likely.")
]
Seed = Annotated[
    int, typer.Option(min=0, help="The same seed draws the same answer; 0: another every time.")
]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="The answer ends before this text. Can be repeated.", show_default="none"),
]

_STOPS_AT_MOST: Final = 16


def stops_of(stop: list[str] | None) -> tuple[str, ...]:
    """The stop strings.

    Raises:
        UsageError: There are too many.
    """
    stops = tuple(stop or ())
    if len(stops) > _STOPS_AT_MOST:
        raise UsageError(f"{len(stops)} --stop are too many: {_STOPS_AT_MOST} at most")
    return stops


def grammar_of(schema: str | None, grammar: Path | None) -> str:
    """The GBNF that an answer must keep to; empty: none.

    Args:
        schema: A JSON schema, or the name of a file that holds one.
        grammar: A file of GBNF.

    Raises:
        UsageError: Both are given, or one cannot be read or used.
    """
    if schema is not None and grammar is not None:
        raise UsageError("give --schema or --grammar, not both")
    if grammar is not None:
        return _text_of(grammar)
    if schema is None:
        return ""
    from fedpt.drivers.llama_grammar import schema_to_gbnf

    is_json = schema.lstrip().startswith("{")
    text = schema if is_json else _text_of(Path(schema))
    where = "the schema" if is_json else schema
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise UsageError(f"{where} is {type(fields).__name__}; a JSON schema is an object")
    return schema_to_gbnf(fields)


def require_characters(text: str) -> str:
    """The same text, if all of it is characters.

    Raises:
        UsageError: It was not UTF-8: some of it is half a character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the text is not UTF-8 at character {error.start + 1}") from error
    return text


def decoded(content: bytes) -> str:
    """Text that came through a pipe.

    Raises:
        UsageError: It is not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the input is not UTF-8 at byte {error.start}") from error


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 at byte {error.start}") from error
