"""The command: one result line on stdout, expected errors left to the top-level command."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from converters.cli import app
from fedpt.adapter_file import require_adapter_fits
from fedpt.errors import ModelFileError
from fedpt.gguf_file import read_gguf, weights_sha256


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception:
        raise result.exception
    return result.stdout


def test_a_model_is_converted_and_told_in_one_line(model_folder: Path, tmp_path: Path) -> None:
    line = run("model", model_folder, tmp_path / "m.gguf", "--type", "q8_0")
    identity = weights_sha256(read_gguf(tmp_path / "m.gguf"))
    assert line == f"{tmp_path}/m.gguf  0.1 MB  Q8_0  weights {identity[:12]}\n"


def test_an_adapter_is_converted(adapter_folder: Path, gguf: Path, tmp_path: Path) -> None:
    line = run("adapter", adapter_folder, tmp_path / "a.gguf", "--base", gguf)
    require_adapter_fits(tmp_path / "a.gguf", read_gguf(gguf))
    assert line.startswith(f"{tmp_path}/a.gguf  ")


def test_expected_errors_are_left_to_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such model"):
        run("model", tmp_path / "none", tmp_path / "m.gguf")


@pytest.mark.parametrize("command", ["model", "adapter"])
def test_help_shows_an_example(command: str) -> None:
    assert f"fedpt convert {command}" in run(command, "--help")


def test_the_command_loads_nothing_heavy() -> None:
    heavy = {"numpy", "torch", "gguf", "llama_cpp", "transformers", "rich.progress"}
    script = "import converters.cli, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not heavy & set(loaded.stdout.split())
