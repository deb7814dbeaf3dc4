"""What waits does not spin, unless somebody wants it to."""

import os

import pytest

from fedpt.shared_cores import let_others_run


def test_threads_wait_quietly_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    let_others_run()
    assert os.environ["GOMP_SPINCOUNT"] == "0"
    assert os.environ["OMP_WAIT_POLICY"] == "active"
    monkeypatch.delenv("GOMP_SPINCOUNT")
