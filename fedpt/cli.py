"""The `fedpt` command: finds the other packages' commands and loads only the one that is called.

A board without torch still has `fedpt ask`: a command whose extra is missing says so in one line.
"""

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Final

import typer

from fedpt.errors import FedptError

_GROUP: Final = "fedpt.commands"

_SUMMARIES: Final = {
    "ask": "Ask the assistant a question.",
    "chat": "Talk with the assistant.",
    "convert": "Models and adapters to GGUF; small models from large ones.",
    "coordinator": "Run a federation: coordinator, logit workers, enrolment.",
    "demo": "Watch a federation work: three devices, three rounds, real models.",
    "device": "Run a device of a federation.",
    "flash": "Put a board's bundle onto an image or a card.",
    "fleet": "Certificates, bundles and releases for a fleet of boards.",
    "eval": "Score large, antiexpert, expert and steered on a data set.",
    "teach": "Add an example to a device's private data.",
}
"""Shown by `fedpt --help` without loading a command; one of another package shows its own name."""

_EXTRA_OF_MODULE: Final = {
    "llama_cpp": "assistant", "paho": "assistant", "httpx": "assistant", "starlette": "assistant",
    "uvicorn": "assistant", "gguf": "convert", "tokenizers": "convert", "torch": "train",
    "transformers": "train", "peft": "train", "iotcore": "coordinator", "sqlalchemy": "coordinator",
    "rouge_score": "coordinator", "hassil": "demo", "home_assistant_intents": "demo",
    "matplotlib": "demo", "yaml": "fleet", "tomli_w": "fleet", "zstandard": "fleet",
    "prometheus_client": "coordinator",
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every expected failure is one line on stderr and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        _build(arguments)(args=arguments, prog_name="fedpt")
    except FedptError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF_MODULE.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        _fail(
            f"this command needs {error.name}; in fedpt's folder:"
            f" pip install -c constraints.txt '.[{extra}]'",
            1,
        )


def _build(arguments: list[str]) -> typer.Typer:
    """A typer app in which only the command that is called is loaded."""
    app = typer.Typer(
        help="Federated proxy-tuning of language models for edge boards.",
        epilog="Start with: fedpt demo",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    called = next((word for word in arguments if not word.startswith("-")), None)
    for entry in sorted(entry_points(group=_GROUP), key=lambda entry: entry.name):
        if entry.name == called:
            _add_loaded(app, entry)
        else:
            app.command(entry.name, help=_SUMMARIES.get(entry.name, entry.name))(_not_called)
    app.callback()(_version_option)
    return app


def _add_loaded(app: typer.Typer, entry: EntryPoint) -> None:
    target = entry.load()
    if isinstance(target, typer.Typer):
        app.add_typer(target, name=entry.name, help=_SUMMARIES.get(entry.name))
    else:
        app.command(entry.name)(target)


def _not_called() -> None:
    """Stands in the list of `--help` for a command that was not asked for."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("fedpt"))
        raise typer.Exit


def _version_option(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    pass


def _fail(message: str, code: int) -> None:
    print(f"fedpt: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
