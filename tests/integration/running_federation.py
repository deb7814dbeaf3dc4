"""A federation of real processes on loopback, with tiny models, that tests can kill and restart."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from converters.model_to_gguf import convert_model
from coordinator.drivers.journal import read_journal
from coordinator.state import FederationState
from coordinator.transitions import fold
from edge_runtime.drivers.local_api import daemon_status
from edge_runtime.settings import socket_in
from fedpt.drivers.child_process import end_with_parent
from fedpt.errors import DeviceDownError
from tests.fakes.tiny_models import make_tiny_llama

WAIT_S = 100.0


@dataclass
class RunningFederation:
    """A coordinator and devices in a folder; each can be started, killed and started again."""

    folder: Path
    devices: tuple[str, ...] = ("kitchen", "garage", "attic")
    examples: int = 8
    coordinator_lines: str = ""
    port: int = field(init=False)
    processes: dict[str, subprocess.Popen] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        for name, seed, layers in (("small", 0, 2), ("large", 1, 3)):
            make_tiny_llama(self.folder / name, seed=seed, layers=layers)
            convert_model(self.folder / name, self.folder / f"{name}.gguf", kind="F32")
        self._write_data("evaluation", 4)
        self._write_data("public", 4)
        (self.folder / "coordinator.toml").write_text(
            f'small = "small.gguf"\nlarge = "large.gguf"\nstate_dir = "coordinator"\n'
            f'evaluation = "evaluation.jsonl"\npublic = "public.jsonl"\n'
            f"min_devices = {len(self.devices)}\nthreads = 1\n{self.coordinator_lines}\n"
            f"[broker]\nport = {self.port}\n[evaluating]\nanswer_tokens = 8\n"
            f"[worker]\nsessions = 2\ncontext_tokens = 512\n"
        )
        for device in self.devices:
            self._write_data(device, self.examples)
            self.config(device).write_text(
                f'name = "{device}"\nsmall = "small.gguf"\ndata = "{device}.jsonl"\n'
                f'state_dir = "state-{device}"\ntraining_threads = 1\ntraining_niceness = 0\n'
                f"[broker]\nport = {self.port}\n[assistant]\nthreads = 1\nanswer_tokens = 12\n"
            )

    def __enter__(self) -> "RunningFederation":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def config(self, name: str) -> Path:
        return self.folder / f"{name}.toml"

    def start(self, *names: str) -> None:
        for name in names:
            kind = "coordinator" if name == "coordinator" else "device"
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "fedpt.cli", kind, "run", "--config", self.config(name)],
                    stdout=log,
                    stderr=log,
                    preexec_fn=end_with_parent,  # noqa: PLW1509  # no threads here
                )

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
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def wait_until(self, claim: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + WAIT_S
        while not claim():
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended: {self.log(name)[-2000:]}"
            assert time.monotonic() < end, (
                f"not within {WAIT_S} s: {what}\n{self.log('coordinator')[-3000:]}"
            )
            time.sleep(0.1)  # between two looks, not to synchronise

    def _write_data(self, name: str, count: int) -> None:
        lines = [
            json.dumps({"instruction": f"turn on {name} {n}", "response": f"on {n}"})
            for n in range(count)
        ]
        (self.folder / f"{name}.jsonl").write_text("\n".join(lines))
