"""A limit that the kernel keeps: a training that runs away ends itself, and nobody else. Linux.

The limit is of private memory (`RLIMIT_DATA`), which is what grows: activations, weights that are
expanded. More is reserved than is ever resident, so the fence stands well outside of the plan.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from edge_runtime.training.memory import private_bytes, resident_bytes
from edge_runtime.training_job import MEMORY_ADVICE
from fedpt.errors import TrainingError
from fedpt.gguf_file import GgufFile

_ROOM: Final = 1.5
"""What may be reserved, by what the plan wants resident."""
_THREADS_BYTES: Final = 64 * 2**20
"""Stacks and heaps of threads that start later; their most part is never touched."""
_TORCH_SAYS: Final = "can't allocate memory"
"""It has no class for that."""


def fence_memory(planned_bytes: int, file: GgufFile) -> None:
    """From now on, refuse this process memory far beyond its plan.

    Args:
        planned_bytes: What it should have resident at most, all in all.
        file: The model, whose mapping counts as private though it is not.
    """
    private = private_bytes()
    if not private:
        return  # no Linux
    growth = max(0, planned_bytes - resident_bytes())
    limit = private + int(_ROOM * growth) + file.path.stat().st_size + _THREADS_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


@contextmanager
def told_when_out_of_memory() -> Iterator[None]:
    """Turn every way of being refused memory into one line.

    Raises:
        TrainingError: There was not enough.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_refused = isinstance(error, MemoryError) or _TORCH_SAYS in str(error)
        if not is_refused and not _is_at_fence():
            raise
        what = "training needed more memory than it may take"
        raise TrainingError(f"{what}; {MEMORY_ADVICE}") from error


def _is_at_fence() -> bool:
    """Whether hardly anything more is to be had; oneDNN only says that something did not work."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return limit != resource.RLIM_INFINITY and private_bytes() > limit - _THREADS_BYTES
