"""`fedpt coordinator …` and `fedpt eval`: parse, build, call, print. Nothing else."""

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Run the coordinator of a federation.")


@app.callback()
def _group() -> None:
    """Run the coordinator of a federation."""


@app.command(
    epilog="Example: fedpt coordinator run --config coordinator.toml --rounds 5",
)
def run(
    config: Annotated[Path, typer.Option(help="Settings, TOML.")],
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds at most.")] = None,
    port: Annotated[int | None, typer.Option(min=1, help="TCP port of the broker.")] = None,
    exit_when_finished: Annotated[
        bool,
        typer.Option("--exit-when-finished", help="End with the last round; else keep answering."),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run rounds, and answer logit requests, until Ctrl-C.

    Every setting can also come from the environment: FEDPT_COORDINATOR_ROUNDS=5,
    FEDPT_COORDINATOR_BROKER__PORT=1884.
    """
    from contextlib import ExitStack

    from coordinator.daemon import CoordinatorDaemon
    from coordinator.drivers.embedded_broker import EmbeddedBroker
    from coordinator.metrics import served_metrics
    from coordinator.settings import ENVIRONMENT_PREFIX, CoordinatorSettings
    from coordinator.state import AnyEvent, Evaluated
    from fedpt.drivers.service_manager import ServiceManager
    from fedpt.folder_lock import sole_use_of
    from fedpt.log_setup import configure
    from fedpt.settings import load

    overrides = {"rounds": rounds, "broker": {"port": port} if port else None}
    settings = load(
        CoordinatorSettings, toml=config, prefix=ENVIRONMENT_PREFIX, overrides=overrides
    )
    configure(verbose=verbose)

    def print_scores(event: AnyEvent) -> None:
        if isinstance(event, Evaluated):
            from coordinator.score_table import score_table

            print(score_table(event.evaluation), flush=True)

    service = ServiceManager.from_environment()
    with ExitStack() as stack:
        stack.enter_context(sole_use_of(settings.state_dir, user="coordinator"))
        daemon = CoordinatorDaemon(
            settings,
            on_event=print_scores,
            exit_when_finished=exit_when_finished,
            service=service,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: daemon.stop())
        if settings.embedded_broker:
            stack.enter_context(EmbeddedBroker(settings.broker))
        stack.enter_context(served_metrics(settings.metrics, daemon.sample))
        daemon.run()


@app.command(
    epilog="Example: fedpt coordinator worker --config coordinator.toml --name worker-2",
)
def worker(
    config: Annotated[Path, typer.Option(help="The coordinator's settings, TOML.")],
    name: Annotated[
        str | None,
        typer.Option(
            help="Its MQTT client id: with TLS, its certificate's common name.",
            show_default="the certificate's, or by chance",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Answer devices' logit requests with the large model, until Ctrl-C.

    Start as many as you like, on any machine; with TLS each has a certificate of its own:
    FEDPT_COORDINATOR_WORKER__CERTIFICATE_FILE and FEDPT_COORDINATOR_WORKER__KEY_FILE.
    """
    from coordinator.settings import ENVIRONMENT_PREFIX, CoordinatorSettings
    from coordinator.worker.__main__ import run_until_signal
    from fedpt.drivers.service_manager import ServiceManager
    from fedpt.log_setup import configure
    from fedpt.settings import load

    overrides = {"worker": {"processes": 0, **({"name": name} if name else {})}}
    settings = load(
        CoordinatorSettings, toml=config, prefix=ENVIRONMENT_PREFIX, overrides=overrides
    )
    configure(verbose=verbose)
    run_until_signal(settings, ServiceManager.from_environment())


@app.command(
    epilog="Example: fedpt coordinator doctor --config /etc/fedpt/coordinator/coordinator.toml",
)
def doctor(
    config: Annotated[Path, typer.Option(help="Settings, TOML.")],
    enrolment: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Look at the enrolment service there, too."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at all that a coordinator needs, and say what is wrong and how to mend it.

    Ends with exit code 1 if anything is at fault.
    """
    from coordinator.doctor import coordinator_checks
    from fedpt.doctor import report

    is_healthy = report(
        coordinator_checks(config, enrolment=enrolment),
        lambda text: print(text, flush=True),
        is_json=as_json,
        encoding=sys.stdout.encoding,
    )
    raise typer.Exit(0 if is_healthy else 1)


@app.command(epilog="Example: fedpt coordinator enrolment --config enrolment.toml")
def enrolment(
    config: Annotated[Path, typer.Option(help="Settings, TOML; fedpt fleet init writes them.")],
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Give boards their certificates and keep the broker's access rules, until Ctrl-C.

    Every setting can also come from the environment: FEDPT_ENROLMENT_PORT=8884.
    """
    from coordinator.enrolment.http_api import serve
    from coordinator.enrolment.settings import ENVIRONMENT_PREFIX, EnrolmentSettings
    from fedpt.log_setup import configure
    from fedpt.settings import load

    settings = load(EnrolmentSettings, toml=config, prefix=ENVIRONMENT_PREFIX)
    configure(verbose=verbose)
    serve(settings)


def evaluate(
    small: Annotated[Path, typer.Option(help="The small model, GGUF.")],
    large: Annotated[Path, typer.Option(help="The large model, GGUF.")],
    data: Annotated[Path, typer.Option(help="Examples with reference answers, JSONL.")],
    adapter: Annotated[
        Path | None, typer.Option(help="The expert's adapter: a GGUF, or a PEFT folder.")
    ] = None,
    answer_tokens: Annotated[
        int, typer.Option(min=1, help="Longest generated answer, tokens.")
    ] = 64,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: all cores.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, answers included.")] = False,
) -> None:
    """Score large, antiexpert, expert and steered on a data set, side by side.

    Coefficients are calibrated on the same data: take a held-out split.

    Example: fedpt eval --small small.gguf --adapter adapter.gguf --large large.gguf --data d.jsonl
    """
    import tempfile

    import msgspec

    from coordinator.evaluation import encode_for, longest_text
    from coordinator.evaluation import evaluate as score
    from coordinator.score_table import score_table
    from coordinator.steered_batch import Trio
    from fedpt.drivers.llama import LlamaModel
    from fedpt.examples import read_examples
    from fedpt.progress_bar import progress_bar

    examples = read_examples(data)
    with LlamaModel(small, vocabulary_only=True) as model:
        longest = longest_text(encode_for(model, examples), answer_tokens=answer_tokens)
    with tempfile.TemporaryDirectory() as folder, progress_bar("scoring") as on_progress:
        expert = _adapter_as_gguf(adapter, small, Path(folder)) if adapter else None
        with Trio(small, expert, large, longest=longest, threads=threads) as trio:
            result = score(trio, examples, answer_tokens=answer_tokens, on_progress=on_progress)
    print(json.dumps(msgspec.to_builtins(result), indent=2) if as_json else score_table(result))


def _adapter_as_gguf(adapter: Path, small: Path, folder: Path) -> Path:
    """A PEFT folder is converted into `folder`; a GGUF is itself."""
    from converters.adapter_to_gguf import convert_adapter
    from fedpt.adapters import read_peft_folder
    from fedpt.gguf_file import read_gguf, weights_sha256

    if not adapter.is_dir():
        return adapter
    base = read_gguf(small)
    target = folder / "adapter.gguf"
    convert_adapter(read_peft_folder(adapter, base_weights=weights_sha256(base)), base, target)
    return target
