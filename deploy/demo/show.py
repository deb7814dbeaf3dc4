"""The demonstration from start to end, told to someone who watches a terminal."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from coordinator.drivers.journal import read_journal
from coordinator.state import FederationState, Phase
from coordinator.transitions import fold
from deploy.demo.models import large_model, small_model
from deploy.demo.plot import plot_rounds
from deploy.demo.processes import DemoPlan, Federation
from deploy.demo.report import device_lines, round_report, score_lines
from deploy.demo.smart_home import make_smart_home_data
from edge_runtime.drivers.local_client import ask_daemon, daemon_status
from edge_runtime.question import AnswerSummary, Mode, Question, user_question
from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
from fedpt.errors import DeviceDownError, FedptError
from fedpt.files import write_json
from fedpt.gguf_file import read_gguf
from fedpt.progress_bar import progress_bar
from fedpt.settings import load

_POLL_S: Final = 1.0
_QUESTIONS: Final = 3
_SWITCH_TIMEOUT_S: Final = 60.0

_PHASES: Final = {
    Phase.WAITING: "devices are joining",
    Phase.TRAINING: "devices train on their private examples",
    Phase.EVALUATING: "the coordinator steers the large model and measures it",
    Phase.DISTILLING: "the steered large model teaches the small one",
    Phase.FINISHED: "finished",
}


def run_demo(out: Path, *, rounds: int, devices: int, small: str | None, large: str | None) -> None:
    """Run it and leave `report.json` and `rounds.png` in `out`.

    Raises:
        FedptError: Anything expected: a model that does not load, a process that ends.
    """
    console = Console()
    started = time.monotonic()
    console.rule("[bold]fedpt: federated proxy-tuning")
    large_path = large_model(large)
    small_path = _small(small, large_path)
    console.print(f"large model  {_describe(large_path)}", soft_wrap=True)
    console.print(f"small model  {_describe(small_path)}", soft_wrap=True)
    data = make_smart_home_data(devices=devices, examples_per_device=128, evaluation=36)
    for device, examples in data.private.items():
        some = examples[0]
        console.print(f"device [bold]{device}[/]  {len(examples)} private examples, such as")
        console.print(f"    {some.prompt!r} → {some.answer}", highlight=False, soft_wrap=True)
    out = out.absolute()
    plan = DemoPlan(out / "federation", small_path, large_path, data, rounds)
    report: dict[str, Any] = {
        "large": str(large_path),
        "small": str(small_path),
        "devices": plan.devices,
        "rounds": [],
    }
    with Federation(plan) as federation:
        for record in _watch_rounds(console, federation):
            report["rounds"].append(round_report(record, data.evaluation))
            _show_round(console, report["rounds"][-1])
        _wait_for_assistants(federation)
        report["answers"] = _ask_assistants(console, plan)
    report["seconds"] = time.monotonic() - started
    write_json(out / "report.json", report)
    plot_rounds(report["rounds"], out / "rounds.png")
    console.print(
        f"everything is stopped after {report['seconds']:.0f} s;"
        f" see {out / 'rounds.png'} and {out / 'report.json'}",
        soft_wrap=True,
    )


def _small(given: str | None, large: Path) -> Path:
    """The small model; making it takes minutes the first time, so there is a bar."""
    with progress_bar("small model") as on_progress:
        return small_model(given, large, on_progress=on_progress)


def _watch_rounds(console: Console, federation: Federation) -> Iterator[Any]:
    """The rounds, each when it has ended, with live bars until then."""
    plan, seen = federation.plan, 0
    with _LiveBars(console, plan) as bars:
        while True:
            federation.require_running()
            state = _read_state(plan)
            bars.show(state)
            ended = [record for record in state.rounds if record.ended is not None]
            for record in ended[seen:]:
                bars.hide()
                yield record
            seen = len(ended)
            if state.phase is Phase.FINISHED:
                return
            time.sleep(_POLL_S)


def _read_state(plan: DemoPlan) -> FederationState:
    return fold(read_journal(plan.coordinator_state / "journal.sqlite"))


class _LiveBars:
    """What the federation does at the moment: a line for it, and one for each device."""

    def __init__(self, console: Console, plan: DemoPlan) -> None:
        self._console = console
        self._plan = plan
        self._settings = {device: _device_settings(plan, device) for device in plan.devices}
        self._said = ""
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True, refresh_per_second=2)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "_LiveBars":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, state: FederationState) -> None:
        """Tell a new phase once; move the devices' bars while they train."""
        number = max(1, len(state.rounds))
        line = f"round {number}: {_PHASES[state.phase]}"
        if line != self._said and state.phase is not Phase.FINISHED:
            self._said = line
            self.hide()
            self._console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {line}")
        if state.phase is Phase.TRAINING:
            for device, settings in self._settings.items():
                self._show_device(device, settings)

    def hide(self) -> None:
        """Take the bars away."""
        for task in self._tasks.values():
            self._bar.remove_task(task)
        self._tasks = {}

    def _show_device(self, device: str, settings: DeviceSettings) -> None:
        with contextlib.suppress(DeviceDownError):
            status = daemon_status(settings.socket)
            done = float(str(status["training_done"]))
            if device not in self._tasks:
                self._tasks[device] = self._bar.add_task(device, total=1.0)
            self._bar.update(
                self._tasks[device],
                completed=done,
                description=f"{device} {status['waiting'] or status['activity']}",
            )


def _show_round(console: Console, report: dict[str, Any]) -> None:
    scores = Table(title=f"round {report['round']}", title_justify="left", title_style="bold")
    scores.add_column("")
    for name in ("nll/token", "exact match", "ROUGE-L", "intent right"):
        scores.add_column(name, justify="right")
    for row in score_lines(report):
        scores.add_row(*row)
    console.print(scores)
    devices = Table()
    devices.add_column("device")
    for name in ("examples", "training s", "loss", "kB up", "kB down"):
        devices.add_column(name, justify="right")
    for row in device_lines(report):
        devices.add_row(*row)
    console.print(devices)
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in report["seconds"].items())
    console.print(f"[dim]{seconds}[/]")


def _wait_for_assistants(federation: Federation) -> None:
    """Until every assistant answers with the last adapter, or a minute is over."""
    plan, end = federation.plan, time.monotonic() + _SWITCH_TIMEOUT_S
    wanted = _read_state(plan).adapter
    sockets = [_device_settings(plan, device).socket for device in plan.devices]
    while any(daemon_status(socket)["adapter"] != wanted for socket in sockets):
        federation.require_running()
        if time.monotonic() > end:
            return
        time.sleep(_POLL_S)


def _device_settings(plan: DemoPlan, device: str) -> DeviceSettings:
    return load(DeviceSettings, toml=plan.device_config(device), prefix=ENVIRONMENT_PREFIX)


def _ask_assistants(console: Console, plan: DemoPlan) -> list[dict[str, Any]]:
    """Three questions that no device has seen, to each device in turn, in both modes."""
    console.rule("the assistants answer")
    examples = plan.data.evaluation
    step = max(1, len(examples) // _QUESTIONS)
    answers = []
    for number, example in enumerate(examples[::step][:_QUESTIONS]):
        device = plan.devices[number % len(plan.devices)]
        console.print(f"[bold]{device}[/]  {example.prompt!r}", highlight=False)
        console.print(f"    {'wanted':<8} {example.answer}", highlight=False, soft_wrap=True)
        modes: tuple[Mode, Mode] = ("local", "steered")
        for mode in modes:
            summary = _ask(plan, device, user_question(example.prompt, mode))
            console.print(
                f"    {mode:<8} {summary.text}  [dim]{summary.seconds:.1f} s,"
                f" {summary.steered_tokens} of {summary.tokens} tokens steered[/]",
                highlight=False,
                soft_wrap=True,
            )
            answers.append({
                "device": device, "question": example.prompt, "wanted": example.answer,
                "mode": mode, "answer": summary.text, "seconds": summary.seconds,
                "tokens": summary.tokens, "steered_tokens": summary.steered_tokens,
            })  # fmt: skip
    return answers


def _ask(plan: DemoPlan, device: str, question: Question) -> AnswerSummary:
    for item in ask_daemon(_device_settings(plan, device).socket, question):
        if isinstance(item, AnswerSummary):
            return item
    raise FedptError(f"{device} broke off in the middle of its answer; see its log")


def _describe(path: Path) -> str:
    file = read_gguf(path)
    layers = file.metadata.get(f"{file.architecture}.block_count")
    return f"{file.name}: {layers} layers, {path.stat().st_size / 1e6:.0f} MB  [dim]{path}[/]"
