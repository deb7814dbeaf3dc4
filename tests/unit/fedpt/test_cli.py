"""`fedpt`: light to start, and every expected failure is one line and an exit code."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ("ask", "convert", "coordinator", "demo", "device", "eval")
HEAVY = {"torch", "transformers", "peft", "llama_cpp", "paho", "numpy", "gguf", "sqlalchemy"}

FAKE_COMMANDS = """
from fedpt.errors import BrokerError, SettingsError

def fails():
    raise BrokerError("cannot reach the MQTT broker at nowhere:1883")

def misconfigured():
    raise SettingsError("port = 0: too small")

def interrupted():
    raise KeyboardInterrupt

def piped():
    raise BrokenPipeError

def buggy():
    raise ZeroDivisionError

def works(name: str = "it"):
    print(name, "works")
"""


def run(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        check=False,
    )


def fedpt(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("from fedpt.cli import main; main()", *arguments)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A package with commands of its own, found as any package's are: by its entry points."""
    (tmp_path / "fake_commands.py").write_text(FAKE_COMMANDS)
    for module in ("needs_paho", "needs_other"):
        imported = {"needs_paho": "paho_missing", "needs_other": "other_missing"}[module]
        (tmp_path / f"{module}.py").write_text(f"import {imported}")
    (tmp_path / "fake-1.dist-info").mkdir()
    (tmp_path / "fake-1.dist-info" / "METADATA").write_text("Name: fake\nVersion: 1\n")
    names = ("fails", "misconfigured", "interrupted", "piped", "buggy", "works")
    lines = [f"{name} = fake_commands:{name}" for name in names]
    lines += ["incomplete = needs_paho:app", "broken = needs_other:app"]
    entries = "[fedpt.commands]\n" + "\n".join(lines)
    (tmp_path / "fake-1.dist-info" / "entry_points.txt").write_text(entries)
    return tmp_path


def run_installed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`fedpt` with that package beside it; `paho_missing` stands for paho, which is not there."""
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); from fedpt import cli;"
        "cli._EXTRA_OF_MODULE['paho_missing'] = 'assistant'; cli.main()"
    )
    return run(code, *arguments)


def test_help_lists_all_commands_and_loads_nothing_heavy() -> None:
    code = (
        "import atexit, sys; from fedpt.cli import main;"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); main(['--help'])"
    )
    result = run(code)
    assert result.returncode == 0
    assert [name for name in COMMANDS if f" {name} " not in result.stdout] == []
    assert not HEAVY & set(result.stderr.split())


@pytest.mark.parametrize(("command", "code"), [("fails", 1), ("misconfigured", 2)])
def test_an_expected_failure_is_one_line_and_its_exit_code(
    installed: Path, command: str, code: int
) -> None:
    result = run_installed(installed, command)
    assert result.returncode == code
    assert result.stderr.startswith("fedpt: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(("command", "code"), [("interrupted", 130), ("piped", 141)])
def test_an_interrupted_command_is_silent(installed: Path, command: str, code: int) -> None:
    result = run_installed(installed, command)
    assert result.returncode == code
    assert "Traceback" not in result.stderr


def test_a_bug_shows_its_traceback(installed: Path) -> None:
    result = run_installed(installed, "buggy")
    assert result.returncode == 1
    assert result.stderr.endswith("ZeroDivisionError\n")


def test_a_command_without_its_extra_says_what_to_install(installed: Path) -> None:
    result = run_installed(installed, "incomplete")
    assert result.returncode == 1
    command = "pip install -c constraints.txt '.[assistant]'"
    expected = f"fedpt: this command needs paho_missing; in fedpt's folder: {command}\n"
    assert result.stderr == expected


def test_a_module_that_no_extra_brings_is_a_bug(installed: Path) -> None:
    result = run_installed(installed, "broken")
    assert result.stderr.endswith("ModuleNotFoundError: No module named 'other_missing'\n")


def test_other_packages_commands_are_found(installed: Path) -> None:
    assert run_installed(installed, "works", "--name", "all").stdout == "all works\n"


def test_a_broken_package_does_not_spoil_the_help(installed: Path) -> None:
    result = run_installed(installed, "--help")
    assert result.returncode == 0
    assert " broken " in result.stdout


@pytest.mark.parametrize("arguments", [("nonsense",), ("--nonsense",), ("convert", "nonsense")])
def test_a_wrong_call_exits_with_2_and_no_traceback(arguments: tuple[str, ...]) -> None:
    result = fedpt(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "nonsense" in result.stderr
    assert result.stdout == ""


def test_real_errors_come_through_real_commands(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    result = fedpt("coordinator", "run", "--config", str(missing))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"fedpt: no such settings file: {missing}\n"


def test_the_version_is_printed() -> None:
    result = fedpt("--version")
    assert result.returncode == 0
    assert result.stdout[0].isdigit()
