"""`fedpt device …` and `fedpt ask`: parse, build, call, print. Nothing else."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from edge_runtime.assistant import AnswerSummary, Question

device = typer.Typer(no_args_is_help=True, help="Run a device of a federation.")

Config = Annotated[Path, typer.Option(help="Settings, TOML.")]


@device.command(epilog="Example: fedpt device run --config device.toml")
def run(
    config: Config,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Train when selected, and answer questions, until Ctrl-C.

    Every setting can also come from the environment: FEDPT_DEVICE_BROKER__HOST=10.0.0.2.
    """
    from edge_runtime.daemon import DeviceDaemon
    from edge_runtime.drivers.enrolment import ensure_identity
    from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
    from fedpt.drivers.service_manager import ServiceManager
    from fedpt.folder_lock import sole_use_of
    from fedpt.log_setup import configure
    from fedpt.settings import load

    settings = load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX)
    configure(verbose=verbose)
    service = ServiceManager.from_environment()
    with sole_use_of(settings.state_dir, user="device"):
        ensure_identity(settings)
        daemon = DeviceDaemon(settings, service)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: daemon.stop())
        daemon.run()
    raise typer.Exit(daemon.exit_code)


@device.command(epilog="Example: fedpt device status --config device.toml")
def status(config: Config) -> None:
    """Print how the running device is, as JSON."""
    from edge_runtime.drivers.local_api import daemon_status
    from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
    from fedpt.settings import load

    settings = load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX)
    print(json.dumps(daemon_status(settings.socket), indent=2))


@device.command(epilog="Example: fedpt device doctor --config /etc/fedpt/device.toml")
def doctor(
    config: Config,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at all that a device needs, and say what is wrong and how to mend it.

    Ends with exit code 1 if anything is at fault.
    """
    from edge_runtime.doctor import device_checks
    from fedpt.doctor import report

    is_healthy = report(
        device_checks(config),
        lambda text: print(text, flush=True),
        is_json=as_json,
        encoding=sys.stdout.encoding,
    )
    raise typer.Exit(0 if is_healthy else 1)


@device.command(epilog="Example: fedpt device releases --config /etc/fedpt/device.toml")
def releases(
    config: Config,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List what is installed: releases in use, those before, on trial and refused ones."""
    import msgspec

    from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
    from edge_runtime.updates.by_hand import require_releases
    from edge_runtime.updates.release_store import ReleaseStore
    from fedpt.settings import load

    settings = load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX)
    shelves = ReleaseStore(require_releases(settings).folder).shelves()
    if as_json:
        print(json.dumps({kind: msgspec.to_builtins(one) for kind, one in shelves.items()}))
        return
    for kind, shelf in shelves.items():
        note = f", on trial, {shelf.tries_left} starts left" if shelf.candidate else ""
        print(f"{kind:8} {shelf.current or 'none'}{note}; before: {shelf.previous or 'none'}")
        for release, why in shelf.refused.items():
            print(f"{'':8} refused {release}: {why}")


@device.command(epilog="Example: fedpt device install /media/stick/model/7-ab12 --config d.toml")
def install(
    source: Annotated[str, typer.Argument(help="A release's folder, or its URL.")],
    config: Config,
) -> None:
    """Install a signed release by hand: the same checks and trials as over the network.

    Run it as the device's own user (sudo -u fedpt), who must be able to replace it later.
    """
    from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
    from edge_runtime.updates.by_hand import install_by_hand
    from fedpt.progress_bar import progress_bar
    from fedpt.settings import load

    settings = load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX)
    with progress_bar("installing") as on_progress:
        kind, release = install_by_hand(settings, source, on_progress=on_progress)
    print(f"{kind} release {release} is in use, on trial; restart the device: a running one keeps")
    print("what it began with (systemctl restart fedpt-device)")


def ask(
    question: Annotated[
        str, typer.Argument(help="What to ask; - reads it from standard input.")
    ] = "-",
    mode: Annotated[
        Literal["local", "steered"] | None,
        typer.Option(
            help="local: the expert alone, nothing leaves the board. steered: with the large"
            " model's logits; the question's tokens go to the coordinator.",
            show_default="steered, if there is a large model",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A device's settings: ask its running assistant.")
    ] = None,
    small: Annotated[
        Path | None, typer.Option(help="Without a device: the small model, GGUF.")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Without a device: the expert's adapter, GGUF.")
    ] = None,
    large: Annotated[
        Path | None, typer.Option(help="Without a device: the large model, GGUF.")
    ] = None,
    system: Annotated[str, typer.Option(help="Without a device: set before the question.")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, tokens.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with all facts of the answer.")
    ] = False,
) -> None:
    """Ask the assistant a question.

    Examples:
      fedpt ask "Turn on the lamp" --config device.toml
      fedpt ask "Turn on the lamp" --small small.gguf --adapter adapter.gguf --large large.gguf
    """
    from edge_runtime.assistant import Question
    from fedpt.errors import UsageError

    if (config is None) == (small is None):
        raise UsageError("give either --config (a device's assistant) or --small (models by hand)")
    text = sys.stdin.read() if question == "-" else question
    with ExitStack() as stack:
        if small is not None:
            chosen = mode or ("steered" if large else "local")
            answer = _ask_models(
                stack, (small, adapter, large), system, Question(text, chosen, max_tokens)
            )
        else:
            assert config is not None  # one of the two is given
            answer = _ask_device(stack, config, Question(text, mode or "steered", max_tokens))
        _print_answer(answer, as_json=as_json)


def _ask_models(
    stack: ExitStack,
    paths: "tuple[Path, Path | None, Path | None]",
    system: str,
    question: "Question",
) -> "Iterator[str | AnswerSummary]":
    """Everything in this process, no daemon, no broker."""
    from edge_runtime.trying_out import open_assistant

    small, adapter, large = paths
    return open_assistant(stack, small, adapter, large, system=system).answer(question)


def _ask_device(
    stack: ExitStack, config: Path, question: "Question"
) -> "Iterator[str | AnswerSummary]":
    """The running daemon; without one, this process answers, from the device's files alone."""
    from edge_runtime.drivers.local_api import ask_daemon, is_served
    from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
    from edge_runtime.trying_out import open_device_assistant
    from fedpt.settings import load

    settings = load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX)
    if is_served(settings.socket):
        return ask_daemon(settings.socket, question)
    print("the device daemon does not run: answering without it", file=sys.stderr)
    return open_device_assistant(stack, settings).answer(question)


def _print_answer(answer: "Iterator[str | AnswerSummary]", *, as_json: bool) -> None:
    import msgspec

    for item in answer:
        if isinstance(item, str):
            if not as_json:
                print(item, end="", flush=True)
        elif as_json:
            print(json.dumps(msgspec.to_builtins(item), ensure_ascii=False, indent=2))
        else:
            print()
            if item.fallback and item.mode == "steered":
                alone = item.tokens - item.steered_tokens
                note = f"[{alone} of {item.tokens} tokens without the large model: {item.fallback}]"
                print(note, file=sys.stderr)
