"""The demonstration's federation: settings files, and a coordinator and devices as processes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from deploy.demo.smart_home import SYSTEM_PROMPT, SmartHomeData
from edge_runtime.data.store import DataStore
from fedpt.drivers.child_process import end_with_parent
from fedpt.errors import FedptError, UsageError
from fedpt.examples import Example, write_examples
from fedpt.files import write_bytes

_GRACE_S: Final = 15.0

_COORDINATOR_CONFIG: Final = "coordinator.toml"

ANSWER_TOKENS: Final = 32


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What the demonstration's federation consists of."""

    folder: Path
    small: Path
    large: Path
    data: SmartHomeData
    rounds: int

    @property
    def devices(self) -> list[str]:
        """Their names."""
        return list(self.data.private)

    @property
    def coordinator_state(self) -> Path:
        """The coordinator's folder."""
        return self.folder / "coordinator"

    def device_config(self, device: str) -> Path:
        """A device's settings file."""
        return self.folder / f"{device}.toml"


@dataclass(slots=True)
class Federation:
    """A coordinator and its devices as real processes, from entering to leaving the block."""

    plan: DemoPlan
    _processes: dict[str, subprocess.Popen[bytes]] = field(init=False, default_factory=dict)

    def __enter__(self) -> Self:
        """Write data and settings anew and start all processes.

        Raises:
            FedptError: The folder cannot be written.
        """
        write_files(self.plan, port=_free_port())
        coordinator = self.plan.folder / _COORDINATOR_CONFIG
        self._start("coordinator", ["coordinator", "run", "--config", str(coordinator)])
        for device in self.plan.devices:
            config = str(self.plan.device_config(device))
            self._start(device, ["device", "run", "--config", config])
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        """Stop all processes: politely, then by force."""
        processes = list(self._processes.values())[::-1]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def require_running(self) -> None:
        """Refuse to wait for a process that has ended.

        Raises:
            FedptError: Names it and quotes the end of its log.
        """
        for name, process in self._processes.items():
            if process.poll() is not None:
                lines = self._log(name).read_text(errors="replace").strip().splitlines()
                raise FedptError(
                    f"{name} ended with exit code {process.returncode}:"
                    f" {lines[-1] if lines else 'it said nothing'} (all of it: {self._log(name)})"
                )

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        log = self._log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "fedpt.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us; we stop them in order
                preexec_fn=end_with_parent,  # noqa: PLW1509  # no threads here yet
            )

    def _log(self, name: str) -> Path:
        return self.plan.folder / "logs" / f"{name}.log"


def write_files(plan: DemoPlan, *, port: int) -> None:
    """Lay out the federation's folder: data, settings, nothing of an earlier run.

    Raises:
        StorageError: The folder cannot be written.
        UsageError: It holds something that no demonstration wrote.
    """
    if plan.folder.exists() and not (plan.folder / _COORDINATOR_CONFIG).is_file():
        raise UsageError(f"{plan.folder} holds something else; choose another --out")
    shutil.rmtree(plan.folder, ignore_errors=True)
    for device, examples in plan.data.private.items():
        DataStore(plan.folder / f"{device}.db").add(examples)
    write_examples(plan.folder / "evaluation.jsonl", plan.data.evaluation)
    prompts = [Example(prompt, "", SYSTEM_PROMPT) for prompt in plan.data.public_prompts]
    write_examples(plan.folder / "public.jsonl", prompts)
    settings = _toml(_coordinator_settings(plan, port))
    write_bytes(plan.folder / _COORDINATOR_CONFIG, settings.encode())
    for device in plan.devices:
        settings = _toml(_device_settings(plan, device, port))
        write_bytes(plan.device_config(device), settings.encode())


def _coordinator_settings(plan: DemoPlan, port: int) -> dict[str, Any]:
    return {
        "federation": "demo",
        "state_dir": str(plan.coordinator_state),
        "small": str(plan.small),
        "large": str(plan.large),
        "evaluation": "evaluation.jsonl",
        "public": "public.jsonl",
        "rounds": plan.rounds,
        "min_devices": len(plan.devices),
        "broker": {"port": port},
        "training": {"epochs": 2},
        "distillation": {"prompts_per_round": 32},
        "evaluating": {"answer_tokens": ANSWER_TOKENS},
    }


def _device_settings(plan: DemoPlan, device: str, port: int) -> dict[str, Any]:
    cores = os.cpu_count() or 1
    return {
        "name": device,
        "federation": "demo",
        "small": str(plan.small),
        "data": f"{device}.db",
        "state_dir": f"device-{device}",
        "training_threads": max(1, cores // len(plan.devices)),  # they all share this machine
        "broker": {"port": port},
        "assistant": {
            "system_prompt": SYSTEM_PROMPT,
            "context_tokens": 256,
            "answer_tokens": ANSWER_TOKENS,
        },
    }


def _toml(settings: Mapping[str, Any]) -> str:
    """Plain values, then tables; JSON's strings and numbers are TOML's."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in settings.items()
             if not isinstance(value, dict)]  # fmt: skip
    tables = [
        f"\n[{name}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
        for name, table in settings.items()
        if isinstance(table, dict)
    ]
    return "\n".join([*plain, *tables]) + "\n"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
