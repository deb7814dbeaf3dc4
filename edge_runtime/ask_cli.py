"""`fedpt ask`: one question, one answer; made for pipes as well as for people."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_runtime.ask_options import (
    Adapter,
    Config,
    Large,
    MaxTokens,
    MinP,
    RepetitionPenalty,
    Seed,
    Small,
    Stop,
    System,
    Temperature,
    TopK,
    TopP,
    WantedMode,
    decoded,
    grammar_of,
    require_characters,
    stops_of,
)

if TYPE_CHECKING:
    from edge_runtime.asking import Answer, Source
    from edge_runtime.question import AnswerSummary, Mode


def ask(
    question: Annotated[
        str, typer.Argument(help="What to ask; - reads it from standard input.")
    ] = "-",
    mode: WantedMode = None,
    config: Config = None,
    small: Small = None,
    adapter: Adapter = None,
    large: Large = None,
    system: System = "",
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = 0,
    stop: Stop = None,
    schema: Annotated[
        str | None,
        typer.Option(help="The answer is JSON of this JSON schema: a file, or the schema itself."),
    ] = None,
    grammar: Annotated[
        Path | None, typer.Option(help="The answer keeps to this grammar: a file of GBNF.")
    ] = None,
    why: Annotated[
        bool, typer.Option("--why", help="Then say, on stderr, what the answer came from.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with all facts of the answer.")
    ] = False,
) -> None:
    """Ask the assistant a question.

    Examples:
      fedpt ask "Turn on the lamp" --config device.toml
      echo "Lamp on" | fedpt ask - --config device.toml --schema intent.json
      fedpt ask "Turn on the lamp" --small small.gguf --adapter adapter.gguf --large large.gguf
    """
    from edge_runtime.answer_options import sampling_of
    from edge_runtime.asking import Models, ended, open_source
    from edge_runtime.question import Question
    from edge_runtime.why import why_text
    from fedpt.chat import ChatMessage
    from fedpt.decoding.sampling import Sampling

    sampling = sampling_of(
        Sampling(
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
        )
    )
    gbnf = grammar_of(schema, grammar)
    text = _piped() if question == "-" else require_characters(question)
    scene = [ChatMessage(role="system", content=require_characters(system))] if system else []
    with ExitStack() as stack:
        source = open_source(stack, config, Models(small, adapter, large) if small else None)
        if source.note:
            print(source.note, file=sys.stderr)
        asked = Question(
            (*scene, ChatMessage(role="user", content=text)),
            mode=_mode(source, mode),
            max_tokens=max_tokens,
            sampling=sampling,
            stop=stops_of(stop),
            grammar=gbnf,
        )
        with ended(source.answer(asked)) as answer:
            summary = _print_answer(answer, as_json=as_json)
        if why:
            print(why_text(summary), file=sys.stderr)
        if schema is not None and summary.ended != "complete":
            print(
                f"fedpt: the answer ends after {summary.tokens} tokens and is no whole JSON;"
                " --max-tokens lets it be longer",
                file=sys.stderr,
            )
            raise typer.Exit(1)


def _piped() -> str:
    """Standard input, without the end of its last line: no question ends so."""
    return decoded(sys.stdin.buffer.read()).rstrip("\r\n")


def _mode(source: "Source", wanted: "Mode | None") -> "Mode":
    """How to answer; asks the person, where the device's settings want that."""
    from edge_runtime.consent import choose_mode, must_ask

    if must_ask(source.policy, wanted, has_large=source.has_large):
        if sys.stdin.isatty() and sys.stdout.isatty():
            wanted = "steered" if _is_consent_given() else "local"
        else:
            print(
                "answered on the board alone: --mode steered sends this question's tokens to the"
                " coordinator, and the large model helps",
                file=sys.stderr,
            )
    mode, note = choose_mode(source.policy, wanted, has_large=source.has_large)
    if note:
        print(f"answered on the board alone: {note}", file=sys.stderr)
    return mode


def _is_consent_given() -> bool:
    print(
        "The large model can help; this question's tokens would go to the coordinator."
        " Send them? [y/N] ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _print_answer(answer: "Answer", *, as_json: bool) -> "AnswerSummary":
    """Text as it comes; with `as_json` all facts at the end."""
    import msgspec

    from edge_runtime.printable import printable
    from edge_runtime.question import AnswerSummary, Piece
    from edge_runtime.why import fallback_note
    from fedpt.errors import DeviceDownError

    shown = printable if sys.stdout.isatty() else str
    for item in answer:
        if isinstance(item, Piece) and not as_json:
            print(shown(item.text), end="", flush=True)
        if isinstance(item, AnswerSummary):
            if as_json:
                print(json.dumps(msgspec.to_builtins(item), ensure_ascii=False, indent=2))
            else:
                print()
                if note := fallback_note(item):
                    print(note, file=sys.stderr)
            return item
    raise DeviceDownError("the device daemon ended in mid-answer")
