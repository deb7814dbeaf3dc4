"""Whether libllama lives through every mutated file that our check lets pass.

Files are checked here and loaded in child processes, several in each; a child that dies names the
mutation that killed it, and another goes on after it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fedpt.adapter_file import require_adapter_fits
from fedpt.errors import FedptError
from fedpt.gguf_file import GgufFile, read_gguf
from fedpt.progress import OnProgress, Progress, ignore_progress
from tests.fakes.gguf_mutations import Mutation, mutated, mutation

_BATCH: Final = 250
_TIMEOUT_S: Final = 120.0  # of a batch that takes seconds
_ROOT: Final = Path(__file__).parent.parent.parent


@dataclass
class Fuzzing:
    """What became of the mutations."""

    tried: int = 0
    refused_by_us: int = 0
    refused_by_libllama: int = 0
    used: int = 0
    """Loaded, tokenized with and decoded with."""
    crashes: list[str] = field(default_factory=list)
    """Each the mutation, and how the child ended."""


def fuzz(
    folder: Path,
    seeds: Sequence[int],
    *,
    model: Path,
    adapter: Path | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Fuzzing:
    """Mutate the adapter if there is one, else the model, once for every seed.

    Args:
        folder: For copies of the files.
        seeds: Which mutations.
        model: A valid model; small, for it is loaded thousands of times.
        adapter: A valid adapter of it.
        on_progress: Told of every batch.
    """
    result = Fuzzing(tried=len(seeds))
    files = [shutil.copy(path, folder / path.name) for path in (model, adapter) if path]
    for begin in range(0, len(seeds), _BATCH):
        on_progress(Progress(begin, len(seeds)))
        batch = seeds[begin : begin + _BATCH]
        passed = _let_through(files, batch)
        result.refused_by_us += len(batch) - len(passed)
        _load_all(files, passed, result)
    return result


def _let_through(files: Sequence[Path], seeds: Sequence[int]) -> list[Mutation]:
    """Those that our check does not refuse."""
    victim = files[-1]
    content = victim.read_bytes()
    base = read_gguf(files[0])
    tensors = read_gguf(victim).tensors.values()
    header_bytes = min(tensor.offset for tensor in tensors)
    passed = []
    for seed in seeds:
        one = mutation(seed, header_bytes=header_bytes, file_bytes=len(content))
        with mutated(victim, content, one):
            if _is_let_through(victim, None if victim == files[0] else base):
                passed.append(one)
    return passed


def _is_let_through(victim: Path, base: GgufFile | None) -> bool:
    try:
        if base:
            require_adapter_fits(victim, base)
        else:
            read_gguf(victim)
    except FedptError:
        return False
    return True


def _load_all(files: Sequence[Path], mutations: Sequence[Mutation], result: Fuzzing) -> None:
    rest = list(mutations)
    while rest:
        said, ending = _run_child(files, [one.seed for one in rest])
        result.used += said.count("used")
        result.refused_by_libllama += said.count("refused")
        tried = sum(line.startswith("try ") for line in said)
        if said and said[-1] == "done":
            return
        result.crashes.append(f"{rest[max(0, tried - 1)]}: {ending}")
        rest = rest[max(1, tried) :]


def _run_child(files: Sequence[Path], seeds: Sequence[int]) -> tuple[list[str], str]:
    """What the child said, line by line, and how it ended."""
    command = [sys.executable, "-m", "tests.fakes.loads_gguf", *map(str, files)]
    copies = [path.read_bytes() for path in files]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=_ROOT,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},  # a debugger takes seconds, and says little
    )
    try:
        said, errors = child.communicate("".join(f"{s}\n" for s in seeds).encode(), _TIMEOUT_S)
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        ending = f"ended with {child.returncode} {' '.join(last)}"
    except subprocess.TimeoutExpired:
        child.kill()
        said, _ = child.communicate()
        ending = f"not done after {_TIMEOUT_S:.0f} s"
    for path, copy in zip(files, copies, strict=True):
        path.write_bytes(copy)  # a child that died left its mutation behind
    return said.decode().splitlines(), ending
