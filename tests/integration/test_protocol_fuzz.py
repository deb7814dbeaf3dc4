"""A few thousand damaged messages against both ends; `benchmarks/fuzz_protocol.py` has more."""

import os
from pathlib import Path

import pytest

from tests.fakes.protocol_fuzz import FuzzedWorkers, fuzz_requests, quiet_log
from tests.fakes.served_here import Board, ServedHere
from tests.fakes.tiny_federation import TinyFederation

COUNT = int(os.environ.get("FEDPT_TEST_FUZZ", "3000"))
PROMPT = [1, 70, 80, 90]


@pytest.mark.llama
@pytest.mark.slow
def test_damaged_requests_do_no_harm_and_the_worker_answers_as_before(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    served = ServedHere(tiny, tmp_path)
    with served.running(), Board(served, "judge") as board:
        before = {where: board.answer(PROMPT, where) for where in ("tokens", "logits")}
    with quiet_log():
        codes = fuzz_requests(served, COUNT, seed=1)
    assert {"answered", "busy", "malformed", "usage", "session_lost"} <= set(codes)
    serving = served.serving
    assert not serving._admission._waiting
    assert not serving._batcher._jobs
    assert not any(one.users for one in serving._sessions._sessions.values())
    assert not serving._answers._postponed
    with served.running(), Board(served, "judge") as board:
        assert {where: board.answer(PROMPT, where) for where in ("tokens", "logits")} == before
    served.close()


@pytest.mark.slow
def test_damaged_replies_do_no_harm(tmp_path: Path) -> None:
    workers = FuzzedWorkers(tmp_path, seed=2)
    with quiet_log():
        outcomes = workers.answers(COUNT)
    assert outcomes["steered"] > COUNT / 4
    assert outcomes["fallbacks"]
    assert {one for one in outcomes if one.startswith("failed")} == set()
