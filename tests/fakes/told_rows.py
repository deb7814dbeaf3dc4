"""Whether what a black box told of a row is true."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coordinator.settings import BackEndSettings
from fedpt.decoding.large_row import LargeRow
from fedpt.drivers.llama import LlamaContext, LlamaModel
from fedpt.drivers.llama_runs import Run
from fedpt.proxy_tuning import Logits
from tests.fakes.tiny_federation import LOGIT_TOLERANCE


def assert_true(row: LargeRow, logits: Logits) -> None:
    """Told log-probabilities are right, and nothing that was not told breaks the bounds."""
    truth = logits - np.logaddexp.reduce(logits.astype(np.float64))
    np.testing.assert_array_less(
        np.abs(row.logits - truth[row.ids]), LOGIT_TOLERANCE + row.error + 1e-9
    )
    others = np.delete(truth, row.ids)
    if len(others):
        assert others.max() <= row.floor + LOGIT_TOLERANCE
        assert np.logaddexp.reduce(others) <= row.rest + LOGIT_TOLERANCE


def assert_rows_true(rows: Sequence[LargeRow], logits: Logits) -> None:
    """Likewise for each."""
    assert len(rows) == len(logits)
    for row, one in zip(rows, logits, strict=True):
        assert_true(row, one)


def llama_rows(model: Path, tokens: list[int], wanted: int) -> Logits:
    """The truth: `(wanted, V)` by llama.cpp in this process."""
    with LlamaModel(model) as one, LlamaContext(one, tokens=256, threads=1) as context:
        return context.evaluate([Run(0, 0, tokens, wanted)])[0]


def back_end(kind: str, url: str, **more: object) -> BackEndSettings:
    """Settings for a server."""
    return BackEndSettings.model_validate({"kind": kind, "url": url, **more})
