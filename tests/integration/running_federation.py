"""A federation of real processes on loopback, with tiny models, that tests can kill and restart."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from converters.model_to_gguf import convert_model
from coordinator.drivers.journal import read_journal
from coordinator.state import FederationState
from coordinator.transitions import fold
from edge_runtime.data.store import DataStore
from edge_runtime.drivers.local_client import daemon_status
from edge_runtime.settings import socket_in
from fedpt.errors import DeviceDownError
from fedpt.examples import read_examples
from tests.fakes.tiny_models import make_tiny_llama, write_examples
from tests.integration.running_processes import RunningProcesses


@dataclass
class RunningFederation:
    """A coordinator and devices in a folder; each can be started, killed and started again."""

    folder: Path
    devices: tuple[str, ...] = ("kitchen", "garage", "attic")
    examples: int = 8
    coordinator_lines: str = ""
    device_lines: dict[str, str] = field(default_factory=dict)
    """More settings of a device, by its name."""
    port: int = field(init=False)
    running: RunningProcesses = field(init=False)

    def __post_init__(self) -> None:
        self.running = RunningProcesses(self.folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        for name, seed, layers in (("small", 0, 2), ("large", 1, 3)):
            make_tiny_llama(self.folder / name, seed=seed, layers=layers)
            convert_model(self.folder / name, self.folder / f"{name}.gguf", kind="F32")
        write_examples(self.folder, "evaluation", 4)
        write_examples(self.folder, "public", 4)
        (self.folder / "coordinator.toml").write_text(
            f'small = "small.gguf"\nlarge = "large.gguf"\nstate_dir = "coordinator"\n'
            f'evaluation = "evaluation.jsonl"\npublic = "public.jsonl"\n'
            f"min_devices = {len(self.devices)}\nthreads = 1\n{self.coordinator_lines}\n"
            f"[broker]\nport = {self.port}\n[evaluating]\nanswer_tokens = 8\n"
            f"[worker]\nsessions = 2\ncontext_tokens = 512\n"
        )
        for device in self.devices:
            examples = read_examples(write_examples(self.folder, device, self.examples))
            DataStore(self.folder / f"{device}.db").add(examples)
            self.config(device).write_text(
                f'name = "{device}"\nsmall = "small.gguf"\ndata = "{device}.db"\n'
                f'state_dir = "state-{device}"\ntraining_threads = 1\ntraining_niceness = 0\n'
                f"{self.device_lines.get(device, '')}\n"
                f"[broker]\nport = {self.port}\n[assistant]\nthreads = 1\nanswer_tokens = 12\n"
            )

    def __enter__(self) -> "RunningFederation":
        return self

    def __exit__(self, *_: object) -> None:
        self.running.end()

    @property
    def processes(self) -> dict[str, subprocess.Popen]:
        return self.running.by_name

    def config(self, name: str) -> Path:
        return self.folder / f"{name}.toml"

    def start(self, *names: str) -> None:
        for name in names:
            kind = "coordinator" if name == "coordinator" else "device"
            words = ["-m", "fedpt.cli", kind, "run", "--config", self.config(name)]
            self.running.start(name, [sys.executable, *words])

    def start_all(self) -> None:
        self.start("coordinator", *self.devices)

    def kill(self, name: str) -> None:
        os.kill(self.processes[name].pid, signal.SIGKILL)
        self.processes[name].wait()

    def state(self) -> FederationState:
        return fold(read_journal(self.folder / "coordinator" / "journal.sqlite"))

    def status(self, device: str) -> dict[str, object]:
        try:
            return daemon_status(socket_in(self.folder / f"state-{device}"))
        except DeviceDownError:
            return {}

    def log(self, name: str) -> str:
        return self.running.log(name)

    def wait_until(self, claim: Callable[[], bool], what: str) -> None:
        self.running.wait_until(claim, what, told_by="coordinator")
