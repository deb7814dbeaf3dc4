"""The command: one result line on stdout, expected errors left to the top-level command."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from converters.cli import app
from fedpt.adapter_file import require_adapter_fits
from fedpt.errors import ModelFileError, UsageError
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


def test_an_adapter_goes_back_to_a_peft_folder(
    adapter_gguf: Path, model_folder: Path, tmp_path: Path
) -> None:
    run("adapter", adapter_gguf, tmp_path / "a", "--base", model_folder)
    assert (tmp_path / "a/adapter_model.safetensors").is_file()


def test_a_folder_that_holds_something_else_is_not_replaced(
    adapter_gguf: Path, gguf: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else"):
        run("adapter", adapter_gguf, tmp_path, "--base", gguf)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_adapter_that_is_not_here_is_told(gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no such model: .*missing"):
        run("merge", gguf, tmp_path / "missing", tmp_path / "m.gguf")


def test_a_model_goes_back_to_a_transformers_folder(gguf: Path, tmp_path: Path) -> None:
    line = run("model", gguf, tmp_path / "m", "--to", "transformers")
    identity = weights_sha256(read_gguf(gguf))
    assert line == f"{tmp_path}/m  0.4 MB  F32  weights {identity[:12]}\n"


@pytest.mark.parametrize(("form", "kind"), [("gguf", "F16"), ("transformers", "F32")])
def test_base_and_adapter_are_merged(
    gguf: Path, adapter_gguf: Path, tmp_path: Path, form: str, kind: str
) -> None:
    line = run("merge", gguf, adapter_gguf, tmp_path / "m", "--to", form)
    assert line.startswith(f"{tmp_path}/m  ")
    assert f"  {kind}  weights " in line


def test_expected_errors_are_left_to_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such model"):
        run("model", tmp_path / "none", tmp_path / "m.gguf")


@pytest.mark.parametrize("command", ["model", "adapter", "merge"])
def test_help_shows_an_example(command: str) -> None:
    assert f"fedpt convert {command}" in run(command, "--help")


def test_the_command_loads_nothing_heavy() -> None:
    heavy = {"numpy", "torch", "gguf", "llama_cpp", "transformers", "rich.progress"}
    script = "import converters.cli, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not heavy & set(loaded.stdout.split())
