"""Distributions against transformers' own processors, and the dice."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from fedpt.decoding.sampling import Chooser, Dice, Sampling, draw, unique_ids
from fedpt.proxy_tuning import Logits
from tests.fakes.scripted_models import Only

SIZE = 3000
"""More than are sorted at first when a nucleus is looked for."""


def dense(logits: Logits, sampling: Sampling, seen: list[int] | None = None) -> np.ndarray:
    chosen = Chooser(sampling, unique_ids(seen or []), None).distribution(logits)
    row = np.zeros(len(logits))
    row[chosen.ids] = chosen.probabilities
    return row


def of_transformers(logits: Logits, sampling: Sampling, seen: list[int]) -> np.ndarray:
    ids, scores = torch.tensor([seen]), torch.tensor(logits, dtype=torch.float64)[None]
    if sampling.repetition_penalty != 1:
        scores = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(ids, scores)
    scores = TemperatureLogitsWarper(sampling.temperature)(ids, scores)
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(ids, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(ids, scores)
    if sampling.min_p:
        scores = MinPLogitsWarper(sampling.min_p)(ids, scores)
    return scores.softmax(-1)[0].numpy()


@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.3, 2.0, 6.0]),
    sampling=st.builds(
        Sampling,
        temperature=st.sampled_from([0.3, 0.7, 1.0, 2.0]),
        top_k=st.sampled_from([0, 1, 5, 40, 2000]),
        top_p=st.sampled_from([0.1, 0.5, 0.9, 0.99, 1.0]),
        min_p=st.sampled_from([0.0, 0.05, 0.5]),
        repetition_penalty=st.sampled_from([1.0, 1.3]),
    ),
)
def test_distributions_are_those_of_transformers(
    seed: int, spread: float, sampling: Sampling
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=spread, size=SIZE).astype(np.float32)
    seen = rng.integers(0, SIZE, 30).tolist()
    theirs = of_transformers(logits, sampling, seen)
    np.testing.assert_allclose(dense(logits, sampling, seen), theirs, atol=1e-6)


def test_temperature_zero_takes_the_first_of_the_largest() -> None:
    assert dense(np.array([1, 3, 3, 0], np.float32), Sampling()).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0)])
def test_forbidden_tokens_have_no_probability(sampling: Sampling) -> None:
    logits = np.array([5, 1, 2], np.float32)
    chooser = Chooser(sampling, unique_ids([]), Only(np.array([False, True, True])))
    chosen = chooser.distribution(logits)
    assert chosen.at(0) == 0
    assert chosen.at(2) > chosen.at(1) >= 0


def test_a_penalty_on_some_ids_is_the_one_on_the_whole_row() -> None:
    logits = np.random.default_rng(0).normal(size=50).astype(np.float32)
    chooser = Chooser(Sampling(repetition_penalty=1.5), unique_ids([3, 7, 9, 49]), None)
    ids = np.array([2, 3, 9, 30, 49])
    whole = chooser.penalised(np.arange(50), logits)
    assert chooser.penalised(ids, logits[ids]).tolist() == whole[ids].tolist()
    assert whole[3] != logits[3]
    assert whole[4] == logits[4]


def test_the_dice_depend_on_seed_and_position_only() -> None:
    assert Dice(1).at(5) == Dice(1).at(5)
    assert len({Dice(seed).at(position) for seed in (1, 2) for position in (5, 6)}) == 4


@given(u=st.floats(0, 1, exclude_max=True))
def test_a_draw_is_at_its_place_of_the_cumulated_weights(u: float) -> None:
    ids, weights = np.array([2, 5, 9]), np.array([1.0, 0.0, 3.0])
    assert draw(ids, weights, u) == (2 if u < 0.25 else 9)
