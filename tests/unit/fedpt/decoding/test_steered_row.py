"""What few logits tell for certain, judged by whole rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedpt.decoding.large_row import LargeRow, full_row
from fedpt.decoding.sampling import GREEDY, Chooser, Distribution, Sampling, unique_ids
from fedpt.decoding.steered_row import Steered, steer_row
from fedpt.decoding.top_tokens import top_tokens
from fedpt.proxy_tuning import Logits
from fedpt.wire.logit_format import Precision, rows_from_bytes, rows_to_bytes
from tests.fakes.scripted_models import Only

V = 300

rows = st.builds(
    lambda seed, spread: (
        np.random.default_rng(seed).normal(scale=spread, size=(2, V)).astype(np.float32)
    ),
    st.integers(0, 100_000),
    st.sampled_from([0.5, 2.0, 5.0]),
)
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.4, 1.0, 1.7]),
    top_k=st.sampled_from([0, 3, 20]),
    top_p=st.sampled_from([0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.1]),
    repetition_penalty=st.sampled_from([1.0, 1.4]),
)
betas = st.sampled_from([0.2, 0.7, 1.0, 1.5])


def told(large: Logits, own: Logits, k: int, precision: Precision = "f16") -> LargeRow:
    """A row as it comes over the wire."""
    candidates = [top_tokens(own, k)]
    content = rows_to_bytes(large[None], k=k, candidates=candidates, precision=precision)
    return rows_from_bytes(content, candidates=candidates, vocabulary_size=V)[0]


def variation(one: Distribution, other: Distribution) -> float:
    """Total variation distance."""
    row = np.zeros(V)
    row[one.ids] += one.probabilities
    row[other.ids] -= other.probabilities
    return float(np.abs(row).sum() / 2)


def both(  # noqa: PLR0917  # what both are made of
    pair: Logits, k: int, beta: float, chooser: Chooser, precision: Precision = "f16"
) -> tuple[Steered, Steered]:
    """By few logits, and by the whole row."""
    large, own = pair
    few = steer_row(told(large, own, k, precision), own, beta, chooser)
    return few, steer_row(full_row(large), own, beta, chooser)


@given(rows, st.sampled_from([1, 2, 8, 16]), betas, st.sampled_from(["f16", "q8"]))
def test_a_certified_greedy_choice_is_the_whole_rows(
    pair: Logits, k: int, beta: float, precision: Precision
) -> None:
    few, whole = both(pair, k, beta, Chooser(GREEDY, unique_ids([]), None), precision)
    assert few.doubt in (0.0, 1.0)
    if few.doubt == 0:
        assert few.distribution.ids.tolist() == whole.distribution.ids.tolist()


@given(rows, st.sampled_from([4, 16, 64]), betas, samplings)
def test_the_doubt_bounds_how_far_sampling_is_off(
    pair: Logits, k: int, beta: float, sampling: Sampling
) -> None:
    few, whole = both(pair, k, beta, Chooser(sampling, unique_ids([1, 5, 9]), None))
    assert variation(few.distribution, whole.distribution) <= few.doubt + 1e-6


@given(rows, betas, samplings, st.integers(0, 99))
def test_forbidden_tokens_are_neither_chosen_nor_rivals(
    pair: Logits, beta: float, sampling: Sampling, seed: int
) -> None:
    allowed = np.random.default_rng(seed).random(V) < 0.1
    allowed[0] = True
    for one in (GREEDY, sampling):
        few, whole = both(pair, 16, beta, Chooser(one, unique_ids([]), Only(allowed)))
        assert allowed[whole.distribution.ids].all()
        assert allowed[few.distribution.ids].all()
        assert variation(few.distribution, whole.distribution) <= few.doubt + 1e-6


def test_a_clear_winner_is_certain_and_a_tie_is_not() -> None:
    large, own = np.zeros(V, np.float32), np.zeros(V, np.float32)
    chooser = Chooser(GREEDY, unique_ids([]), None)
    large[7] = 5
    assert steer_row(told(large, own, 4), own, 1.0, chooser).doubt == 0
    large[8] = 5
    assert steer_row(told(large, own, 4), own, 1.0, chooser).doubt == 1


def test_where_nothing_told_is_allowed_nothing_is_certain() -> None:
    large = np.arange(V, dtype=np.float32)
    own = np.zeros(V, np.float32)
    own[-8:] = 1
    allowed = np.zeros(V, np.bool_)
    allowed[3] = True
    steered = steer_row(
        told(large, own, 4), own, 1.0, Chooser(GREEDY, unique_ids([]), Only(allowed))
    )
    assert steered.doubt == 1
    assert steered.distribution.ids.tolist() == [3]


def test_narrow_sampling_is_certain_up_to_rounding() -> None:
    large = np.linspace(0, -30, V, dtype=np.float32)
    own = np.zeros(V, np.float32)
    sampling = Sampling(temperature=0.5, top_k=5)
    steered = steer_row(told(large, own, 16), own, 1.0, Chooser(sampling, unique_ids([]), None))
    assert steered.distribution.ids.tolist() == [0, 1, 2, 3, 4]
    assert steered.doubt < 1e-3
