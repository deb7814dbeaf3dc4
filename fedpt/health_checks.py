"""What both doctors look at on a machine: disk, clock, memory, a model file, a service, a folder.

Each thing is a pure judgement (`judge_…`) and a look that hands it what there is.
"""

import contextlib
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from fedpt.doctor import Finding, fault, ok, warning
from fedpt.gguf_file import read_gguf
from fedpt.kernel_memory import memory_bytes

_MB: Final = 1_000_000
_LEAST_FREE_BYTES: Final = 200 * _MB
_COMFORTABLE_FREE_BYTES: Final = 1_000 * _MB
_TOLERATED_SKEW_S: Final = 300.0
_LEAST_MEMORY_BYTES: Final = 100 * _MB
_LARGE_SHARE: Final = 0.7
"""A model beyond this share of the memory leaves too little for contexts and all other programs."""

_COMMAND_TIMEOUT_S: Final = 10.0


def judge_disk(free_bytes: int, folder: Path) -> Finding:
    """Whether there is room for adapters, updates and the next release."""
    what = f"disk: {free_bytes // _MB} MB free for {folder}"
    advice = f"free some space: sudo du -xh --max-depth=2 {folder} | sort -h | tail"
    if free_bytes < _LEAST_FREE_BYTES:
        return fault(what, advice)
    return ok(what) if free_bytes >= _COMFORTABLE_FREE_BYTES else warning(what, advice)


def disk_space(folder: Path) -> Iterator[Finding]:
    """Free space where `folder` is, or will be."""
    with contextlib.suppress(StopIteration):
        existing = next(one for one in (folder, *folder.parents) if one.exists())
        yield judge_disk(shutil.disk_usage(existing).free, folder)


def judge_clock(skew_s: float, *, is_synchronised: bool | None) -> Finding:
    """Whether certificates and deadlines can be judged by this clock.

    Args:
        skew_s: How far the clock is behind a time that is known to be past.
        is_synchronised: Whether the network sets it; None: nobody can say.
    """
    advice = "sudo timedatectl set-ntp true"
    if skew_s > _TOLERATED_SKEW_S:
        return fault(f"clock: at least {skew_s / 3600:.1f} hours behind", advice)
    if is_synchronised is False:
        return warning("clock: not set by the network", advice)
    return ok("clock: set by the network" if is_synchronised else "clock: plausible")


def clock(witnesses: Iterable[Path]) -> Iterator[Finding]:
    """The clock, against when files here were last written."""
    times = [0.0]
    for path in witnesses:
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    answer = output_of(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    synchronised = {"yes": True, "no": False}.get(answer or "")
    yield judge_clock(max(times) - time.time(), is_synchronised=synchronised)


def judge_model_size(path: Path, size_bytes: int, memory_bytes: int) -> Finding:
    """Whether a model fits into the machine's memory."""
    what = f"model: {path}, {size_bytes // _MB} MB with {memory_bytes // _MB} MB of memory"
    advice = "take a smaller quantisation: fedpt convert model --help"
    if size_bytes > memory_bytes:
        return fault(what, advice)
    return warning(what, advice) if size_bytes > _LARGE_SHARE * memory_bytes else ok(what)


def model_file(path: Path) -> Iterator[Finding]:
    """The header, every tensor's bounds, and the size.

    Raises:
        ModelFileError: It is missing or damaged: what the doctor then tells.
    """
    read_gguf(path)
    memory = memory_bytes().get("MemTotal")
    if memory is None:
        yield ok(f"model: {path}")
    else:
        yield judge_model_size(path, path.stat().st_size, memory)


def judge_free_memory(available_bytes: int) -> Finding:
    """Whether a daemon can go on."""
    what = f"memory: {available_bytes // _MB} MB available"
    if available_bytes < _LEAST_MEMORY_BYTES:
        return fault(what, "see what takes it: ps aux --sort=-rss | head")
    return ok(what)


def free_memory() -> Iterator[Finding]:
    """What the kernel says is available."""
    available = memory_bytes().get("MemAvailable")
    if available is not None:
        yield judge_free_memory(available)


def judge_folder(folder: Path, mode: int, strangers: Sequence[Path]) -> Finding:
    """Whether only its owner writes there, and all that is in it is that owner's.

    Args:
        folder: The state folder.
        mode: Its mode.
        strangers: Files in it that are somebody else's.
    """
    if strangers:
        names = ", ".join(path.name for path in strangers[:3])
        advice = f"sudo chown -R --reference={folder} {folder}"
        return fault(f"state folder: {folder} holds files of another user: {names}", advice)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return fault(f"state folder: others may write to {folder}", f"sudo chmod go-w {folder}")
    return ok(f"state folder: {folder}")


def state_folder(folder: Path) -> Iterator[Finding]:
    """Whether it is there, writable, and nobody else's."""
    if not folder.exists():
        parent = next(one for one in folder.parents if one.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield ok(f"state folder: {folder} will be made at the first start")
        else:
            advice = f"sudo install -d -o $(id -un) {folder}"
            yield fault(f"state folder: {folder} is not there and cannot be made", advice)
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        owner = folder.stat().st_uid
        advice = f"run as its owner: sudo -u '#{owner}' fedpt …, or chown it"
        yield fault(f"state folder: {folder} cannot be written by user {os.geteuid()}", advice)
        return
    information = folder.stat()
    strangers = [one for one in folder.iterdir() if one.lstat().st_uid != information.st_uid]
    yield judge_folder(folder, information.st_mode, strangers)


def judge_service(unit: str, states: Sequence[str]) -> Finding:
    """Whether systemd keeps a unit running.

    Args:
        unit: Its name, or a pattern for several.
        states: What `systemctl is-active` says, one for each; none: none was ever started.
    """
    if states and all(state == "active" for state in states):
        return ok(f"service: {unit} is active")
    what = f"service: {unit} is {', '.join(sorted(set(states))) or 'inactive'}"
    name = unit.replace("*", "NAME")
    if "failed" in states:
        return fault(what, f"journalctl -u {name} -n 50, then sudo systemctl restart {name}")
    return warning(what, f"sudo systemctl enable --now {name}")


def service(unit: str) -> Iterator[Finding]:
    """The unit's state, where systemd runs and the unit is installed."""
    if Path("/run/systemd/system").is_dir():
        installed = output_of(["systemctl", "list-unit-files", "--no-legend", unit])
        if installed:
            states = output_of(["systemctl", "is-active", unit])
            if states is not None:
                yield judge_service(unit, states.split())


def output_of(command: Sequence[str]) -> str | None:
    """What a program prints, whatever its exit code; None if it cannot be run."""
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
