"""Which trained adapters are kept."""

import numpy as np
import pytest

from edge_runtime.training.acceptance import product_norm, require_acceptable
from fedpt.errors import TrainingError
from tests.fakes.tiny_federation import TinyFederation


def judge(tiny: TinyFederation, *, held_out: list[float], norm: float = 100.0) -> None:
    require_acceptable(tiny.adapter.tensors, tiny.adapter.manifest, held_out, lambda _: norm)


def test_a_better_adapter_or_one_that_nobody_can_judge_is_kept(tiny: TinyFederation) -> None:
    judge(tiny, held_out=[2.0, 1.5, 1.0])
    judge(tiny, held_out=[2.0, 2.0])
    judge(tiny, held_out=[])


@pytest.mark.parametrize("after", [2.1, np.nan, np.inf])
def test_one_that_is_worse_on_held_out_examples_is_not(tiny: TinyFederation, after: float) -> None:
    with pytest.raises(TrainingError, match=r"went from 2\.0000 to .*: the adapter that training"):
        judge(tiny, held_out=[2.0, after, after])


def test_the_best_epoch_counts(tiny: TinyFederation) -> None:
    judge(tiny, held_out=[2.0, 1.0, 2.1])


def test_one_that_is_not_finite_is_not(tiny: TinyFederation) -> None:
    tensors = {name: one.copy() for name, one in tiny.adapter.tensors.items()}
    next(iter(tensors.values()))[0, 0] = np.inf
    with pytest.raises(TrainingError, match="is not finite; the old one is kept"):
        require_acceptable(tensors, tiny.adapter.manifest, [], lambda _: 100.0)


def test_one_that_outweighs_the_model_is_not(tiny: TinyFederation) -> None:
    with pytest.raises(TrainingError, match=r"by .* of its norm, more than 1; the old one is kept"):
        judge(tiny, held_out=[], norm=0.01)


def test_the_norm_of_a_product_needs_no_product() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(3, 7)), rng.normal(size=(5, 3))
    assert product_norm(first, second) == pytest.approx(np.linalg.norm(second @ first))
