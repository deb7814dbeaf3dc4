"""`fedpt device train`'s work, whole, on a tiny model; and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_runtime.training.fine_tuning import Request, new_adapter
from edge_runtime.training.memory_plan import MEGABYTE
from edge_runtime.training.train_once import Once, Outcome, adapter_in, train_once
from edge_runtime.training_job import CHECKPOINT_NAME
from fedpt.adapter_file import require_adapter_fits
from fedpt.adapters import read_peft_folder
from fedpt.errors import DataFileError, FedptError, TrainingError, WrongBaseError
from fedpt.examples import Example, write_examples
from fedpt.gguf_file import read_gguf, weights_sha256
from fedpt.wire.messages import TrainingPlan
from tests.fakes.tiny_federation import TinyFederation

pytestmark = pytest.mark.llama

PLAN = TrainingPlan(epochs=2, learning_rate=5e-3, batch_examples=4, context_tokens=96)


@pytest.fixture
def once(tiny: TinyFederation, tmp_path: Path) -> Once:
    data = tmp_path / "data.jsonl"
    write_examples(data, [Example(f"Turn on lamp {n}", f"Lamp {n} is on.") for n in range(30)])
    request = Request(
        base=tiny.small,
        data=data,
        plan=PLAN,
        seed=1,
        start=new_adapter(4, 1),
        checkpoint=data,
        precision="float32",
    )
    return Once(request, tmp_path / "out")


def run(once: Once, **changes: object) -> Outcome:
    changed = replace(once.request, **changes)  # type: ignore[arg-type]  # any of its fields
    return train_once(replace(once, request=changed), on_step=lambda _: None)


def lines(once: Once, *texts: bytes) -> None:
    once.request.data.write_bytes(b"\n".join(texts))


def test_it_leaves_an_adapter_in_both_forms_and_a_report(once: Once) -> None:
    outcome = run(replace(once, with_plot=True))
    report = json.loads((once.out / "report.json").read_text())
    assert report == json.loads(json.dumps(outcome.report))
    assert report["nll_after"] < report["nll_before"]
    assert report["loss"] < report["first_loss"]
    assert report["example_count"] + report["held_out_count"] == 30
    assert 0 < report["own_peak_bytes"] < report["peak_bytes"]
    assert report["mode"].startswith("expanded float32")
    base = read_gguf(once.request.base)
    require_adapter_fits(once.out / "adapter.gguf", base)
    adapter = read_peft_folder(once.out / "adapter", base_weights=weights_sha256(base))
    assert adapter.manifest.rank == 4
    assert (once.out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not (once.out / CHECKPOINT_NAME).exists()


def test_it_can_go_on_from_an_earlier_adapter(once: Once) -> None:
    first = run(once)
    second = run(once, start=adapter_in(once.out / "adapter"), data=once.request.data)
    assert second.result.nll_before == pytest.approx(first.result.nll_after, rel=1e-5)


def test_cut_to_a_lower_rank_it_is_judged_by_where_it_then_starts(once: Once) -> None:
    whole = run(once).result.nll_after
    outcome = run(once, start=adapter_in(once.out / "adapter", rank=1))
    before, after = outcome.result.nll_before, outcome.result.nll_after
    assert whole is not None
    assert before is not None
    assert after is not None
    assert before > whole  # what rank 1 cannot hold is lost
    assert after < before
    assert outcome.report["rank"] == 1


def test_a_new_adapter_may_change_some_kinds_of_layers_only(once: Once) -> None:
    run(once, start=new_adapter(2, 1, ["v_proj", "q_proj"]))
    weights = weights_sha256(read_gguf(once.request.base))
    adapter = read_peft_folder(once.out / "adapter", base_weights=weights)
    assert adapter.manifest.target_modules == ("q_proj", "v_proj")


def test_every_mode_ends_with_the_same_losses(once: Once) -> None:
    losses = [run(once, mode=mode).report["losses"] for mode in ("plain", "expanded", "mapped")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)  # nine steps of rounding
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-3)


def require_refused(once: Once, error: type[FedptError], message: str, **changes: object) -> None:
    """In one line, and what an earlier run left is as it was."""
    once.out.mkdir(exist_ok=True)
    (once.out / "report.json").write_text("as it was")
    with pytest.raises(error, match=message) as raised:
        run(once, **changes)
    assert "\n" not in str(raised.value)
    assert (once.out / "report.json").read_text() == "as it was"
    assert not (once.out / "adapter").exists()


def test_too_small_a_budget_says_which_would_do(once: Once) -> None:
    message = "the smallest memory budget that would do is [0-9]+ MB"
    require_refused(once, TrainingError, message, budget_bytes=50 * MEGABYTE)


def test_data_that_is_not_utf8_is_refused(once: Once) -> None:
    lines(once, b'{"instruction": "a", "response": "b"}', b'{"instruction": "\xff"}')
    require_refused(once, DataFileError, "line 2: not UTF-8 at byte")


def test_an_empty_answer_is_refused_with_its_line(once: Once) -> None:
    lines(once, b'{"instruction": "a", "response": "b"}', b'{"instruction": "c", "response": " "}')
    require_refused(once, DataFileError, "line 2: the answer is missing or empty")


def test_an_adapter_for_another_base_is_refused(once: Once, tiny: TinyFederation) -> None:
    manifest = msgspec.structs.replace(tiny.adapter.manifest, base_weights="0" * 64)
    other = replace(tiny.adapter, manifest=manifest)
    require_refused(
        once, WrongBaseError, "was trained on the base model 0000", start=lambda _: other
    )


def test_an_update_that_learnt_the_wrong_thing_is_not_kept(once: Once) -> None:
    harmful = msgspec.structs.replace(PLAN, learning_rate=1.0)
    message = "the adapter that training started from is kept|more than 1; the old one is kept"
    require_refused(once, TrainingError, message, plan=harmful)


def test_a_data_set_of_one_example_is_trained_on(once: Once) -> None:
    lines(once, b'{"instruction": "a", "response": "b"}')
    result = run(once).result
    assert (result.example_count, result.held_out_count, result.nll_after) == (1, 0, None)


def test_examples_that_are_cut_are_counted(once: Once) -> None:
    short = msgspec.structs.replace(PLAN, context_tokens=24, epochs=1)
    assert run(once, plan=short).result.truncated_count == 30
