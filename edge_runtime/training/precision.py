"""What this machine computes fastest in, found out by trying.

Processors differ a hundredfold in how they multiply bfloat16, and none says so.
"""

import os
import time
from typing import Final

import torch

from edge_runtime.training.how import Precision

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_ROWS: Final = 256
_COLUMNS: Final = 1024
_TRIES: Final = 5
_CLEARLY: Final = 1.3
"""Half precision must be that much faster: it costs accuracy, and a measurement is noisy."""


def use_threads(count: int | None) -> None:
    """Compute with so many threads; None: one a core."""
    torch.set_num_threads(count or os.cpu_count() or 1)


def faster_precision() -> Precision:
    """bfloat16 if it is clearly faster here, else float32."""
    full, half = _seconds(torch.float32), _seconds(torch.bfloat16)
    return "bfloat16" if half * _CLEARLY < full else "float32"


def _seconds(dtype: torch.dtype) -> float:
    """The shortest time of a product."""
    left = torch.ones(_ROWS, _COLUMNS, dtype=dtype)
    right = torch.ones(_COLUMNS, _COLUMNS, dtype=dtype)
    times = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        left @ right.t()
        times.append(time.perf_counter() - start)
    return min(times)
