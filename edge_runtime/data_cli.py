"""`fedpt device data …`: a device's private examples, by hand. Parse, call, print.

Whether the daemon runs does not matter: both use the store at once, and training learns from what
is new the next time that it begins.
"""

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from edge_runtime.data.store import DataStore, Entry, Kept
    from fedpt.examples import Example

data = typer.Typer(
    no_args_is_help=True,
    help="What a device learns from: its store of private examples.",
    epilog="Start with: fedpt device data add private.jsonl --config device.toml",
)

_LARGEST_ID: Final = 2**63 - 1
_SHOWN: Final = 48
"""Characters of a text in a list."""
_TOLD: Final = 10
"""Flagged examples that are told one by one when a file is added."""

Config = Annotated[Path, typer.Option(help="The device's settings, TOML.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Ids = Annotated[
    list[int], typer.Argument(min=1, max=_LARGEST_ID, metavar="ID", help="As `list` tells them.")
]


@data.command(
    epilog="Examples: fedpt device data add private.jsonl more.jsonl --config device.toml;"
    " cat private.jsonl | fedpt device data add - --config device.toml"
)
def add(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="JSONL: Dolly, Alpaca or chat messages; -: standard input."
        ),
    ],
    config: Config,
    allow_flagged: Annotated[
        bool,
        typer.Option("--allow-flagged", help="Also learn from what seems to hold secrets."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a file.")] = False,
) -> None:
    """Add examples; each is kept once. A file with a bad line adds nothing.

    What seems to hold a secret (key, token, password, card number, IBAN) is kept but flagged:
    the device learns from it only when you say so.
    """
    store = _store_of(config)
    for file in files:
        kept = store.add(_read(file), allow_flagged=allow_flagged)
        print(json.dumps(_facts(file, kept)) if as_json else _added_note(file, kept))


@data.command("list", epilog="Example: fedpt device data list --flagged --config device.toml")
def show(
    config: Config,
    flagged: Annotated[
        bool, typer.Option("--flagged", help="Only those that wait for your word.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the examples, a line each; in place of a secret its kind is shown."""
    store = _store_of(config)
    entries = [one for one in store.entries() if not (flagged and one.is_usable)]
    counts = store.counts()
    if as_json:
        shown = {"examples": list(map(_entry_facts, entries))}
        print(json.dumps({**shown, "usable": counts.usable, "flagged": counts.flagged}, indent=2))
        return
    for one in entries:
        print(_entry_line(one))
    note = f"{counts.usable} examples to learn from, {counts.flagged} flagged"
    print(f"{note}; flagged ones wait for: allow ID…" if counts.flagged else note, file=sys.stderr)


@data.command(epilog="Example: fedpt device data allow 12 17 --config device.toml")
def allow(ids: Ids, config: Config) -> None:
    """Learn from flagged examples after all: what they hold is no secret, or may be learnt."""
    _store_of(config).allow(ids)
    print(f"allowed: {_numbered(ids)}; the next training learns from them")


@data.command(epilog="Example: fedpt device data remove 12 17 --config device.toml")
def remove(ids: Ids, config: Config) -> None:
    """Remove examples for good. A training that runs goes on with what it began with."""
    _store_of(config).remove(ids)
    print(f"removed: {_numbered(ids)}")


@data.command(epilog="Example: fedpt device data export backup.jsonl --config device.toml")
def export(
    out: Annotated[Path, typer.Argument(help="A JSONL file; one that is there is replaced.")],
    config: Config,
) -> None:
    """Write all examples, flagged ones too, as JSONL that `add` reads; only you can read the file.

    Which flagged ones were allowed is not in it.
    """
    from fedpt.errors import UsageError
    from fedpt.examples import write_examples

    store = _store_of(config)
    entries = store.entries()
    if not entries:
        raise UsageError(f"{store.path} holds no examples: there is nothing to write")
    if out.resolve() == store.path.resolve():
        raise UsageError(f"{out} is the store itself: choose another name")
    write_examples(out, [one.example for one in entries], mode=0o600)
    flagged = sum(not one.is_usable for one in entries)
    note = f"; {flagged} of them seem to hold secrets" if flagged else ""
    print(f"wrote {len(entries)} examples to {out}{note}")


def _store_of(config: Path) -> "DataStore":
    from edge_runtime.data.store import DataStore
    from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
    from fedpt.errors import UsageError
    from fedpt.settings import load

    path = load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX).data
    if path is None:
        raise UsageError(f'this device only answers: set data = "private.db" in {config}')
    return DataStore(path)


def _read(file: str) -> "list[Example]":
    from fedpt.examples import parse_examples, read_examples

    if file == "-":
        return parse_examples(sys.stdin.buffer.read(), name="standard input")
    return read_examples(Path(file))


def _facts(file: str, kept: "Sequence[Kept]") -> dict[str, Any]:  # Any: JSON
    new = sum(one.is_new for one in kept)
    return {
        "file": file,
        "new": new,
        "known": len(kept) - new,
        "flagged": {one.id: list(one.secrets) for one in kept if not one.is_usable},
    }


def _added_note(file: str, kept: "Sequence[Kept]") -> str:
    facts = _facts(file, kept)
    flagged: dict[int, list[str]] = facts["flagged"]
    lines = [f"{file}: {facts['new']} new, {facts['known']} known already, {len(flagged)} flagged"]
    lines += [
        f"  example {number} seems to hold a secret ({', '.join(kinds)}): not learnt from"
        for number, kinds in list(flagged.items())[:_TOLD]
    ]
    if len(flagged) > _TOLD:
        lines.append(f"  … and {len(flagged) - _TOLD} more")
    if flagged:
        lines.append("  look: fedpt device data list --flagged; then: … data allow ID, or remove")
    return "\n".join(lines)


def _entry_facts(entry: "Entry") -> dict[str, Any]:  # Any: JSON
    from edge_runtime.data.secrets import without_secrets

    example = entry.example
    return {
        "id": entry.id,
        "added": _moment(entry).isoformat(timespec="seconds"),
        "secrets": list(entry.secrets),
        "usable": entry.is_usable,
        "system": without_secrets(example.system),
        "question": without_secrets(example.prompt),
        "answer": without_secrets(example.answer),
    }


def _entry_line(entry: "Entry") -> str:
    kinds = ", ".join(entry.secrets)
    word = "allowed" if entry.is_usable else "flagged"
    mark = f"{word} ({kinds})  " if kinds else ""
    texts = f"{_shortened(entry.example.prompt)} -> {_shortened(entry.example.answer)}"
    return f"{entry.id:>6}  {_moment(entry):%Y-%m-%d}  {mark}{texts}"


def _shortened(text: str) -> str:
    """On one line of a terminal, without its secrets."""
    from edge_runtime.data.secrets import without_secrets
    from edge_runtime.printable import printable

    line = printable(" ".join(without_secrets(text).split()))
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


def _moment(entry: "Entry") -> datetime:
    return datetime.fromtimestamp(entry.added_unix_s).astimezone()


def _numbered(ids: Sequence[int]) -> str:
    distinct = list(dict.fromkeys(ids))
    return f"example{'s' if len(distinct) > 1 else ''} {', '.join(map(str, distinct))}"
