"""A reply's rows: of whole rows what was asked for, of a black box what it tells."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from coordinator.worker.batching import Told
from fedpt.decoding.large_row import LargeRow
from fedpt.errors import LargeModelError
from fedpt.proxy_tuning import TokenIds
from fedpt.wire.logit_format import rows_to_bytes, told_rows_to_bytes
from fedpt.wire.messages import LogitRequest

FEW_TOLD: Final = 64
"""A request for so few logits a row is a first one: where a server tells fewer still, they have to
do. A request for more follows a doubt, which nothing but more can lift."""


def told_to_bytes(told: Told, request: LogitRequest, candidates: Sequence[TokenIds]) -> bytes:
    """The rows that a request wants, for the wire.

    A black box cannot be asked for the candidates; as many more of the largest make up for them.

    Args:
        told: What came of it.
        request: What was wanted.
        candidates: The request's, of each row.

    Raises:
        LargeModelError: The model gave values that are not finite: nothing of it is sent.
    """
    if not isinstance(told, np.ndarray):
        return _few_to_bytes(told, request, request.largest + len(candidates[0]))
    if not np.isfinite(told).all():
        raise LargeModelError("the large model gave logits that are not finite")
    return rows_to_bytes(
        told, k=request.largest, candidates=candidates, precision=request.precision
    )


def _few_to_bytes(told: Sequence[LargeRow], request: LogitRequest, k: int) -> bytes:
    if len(told) != request.rows:
        raise LargeModelError(f"the large model told {len(told)} rows, not {request.rows}")
    return told_rows_to_bytes(told, k=k, precision=request.precision)
