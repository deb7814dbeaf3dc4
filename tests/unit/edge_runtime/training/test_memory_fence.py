"""A process that takes far more memory than it planned is refused it, and says so in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import torch
from edge_runtime.training.memory import resident_bytes
from edge_runtime.training.memory_fence import fence_memory, told_when_out_of_memory
from fedpt.errors import FedptError

model = SimpleNamespace(path=Path(sys.argv[1]))
fence_memory(resident_bytes() + 100_000_000, model)
planned = torch.ones(25_000_000)  # 100 MB, as planned
try:
    with told_when_out_of_memory():
        {deed}
except FedptError as error:
    sys.exit(str(error))
"""


def run(deed: str, folder: Path) -> tuple[int, str]:
    model = folder / "model.gguf"
    model.write_bytes(b"GGUF")
    command = [sys.executable, "-c", CHILD.format(deed=deed), str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.strip()


@pytest.mark.parametrize(
    "deed",
    [
        "torch.ones(250_000_000)",
        "np.ones(125_000_000)",
        "[torch.ones(1_000_000) for _ in range(1000)]",
    ],
    ids=["torch", "numpy", "bit by bit"],
)
def test_too_much_is_refused_in_one_line(deed: str, tmp_path: Path) -> None:
    code, said = run(deed, tmp_path)
    assert code == 1
    assert said.startswith("training needed more memory than it may take; raise training_memory_mb")
    assert "\n" not in said


def test_a_little_more_than_planned_is_let_through(tmp_path: Path) -> None:
    assert run("torch.ones(10_000_000)", tmp_path) == (0, "")


def test_other_faults_stay_what_they_are(tmp_path: Path) -> None:
    code, said = run("torch.ones(2) @ torch.ones(3)", tmp_path)
    assert code == 1
    assert "RuntimeError" in said
