"""Averaging, against a plain loop over the numbers and numpy's SVD of whole matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.aggregation import federated_average
from fedpt.adapters import (
    Adapter,
    AdapterManifest,
    adapter_from_bytes,
    adapter_to_bytes,
    require_averageable,
)
from fedpt.errors import AdapterError

A, B = "base_model.model.q_proj.lora_A.weight", "base_model.model.q_proj.lora_B.weight"
SCALE = 2.0


def adapter(seed: int, rank: int = 2) -> Adapter:
    rng = np.random.default_rng(seed)
    manifest = AdapterManifest(
        base_weights="b" * 64, rank=rank, alpha=SCALE * rank, target_modules=("q_proj",)
    )
    shapes = {A: (rank, 9), B: (8, rank)}
    return Adapter(
        manifest, {name: rng.normal(size=one).astype(np.float32) for name, one in shapes.items()}
    )


START = adapter(0)


def product(one: Adapter) -> np.ndarray:
    return one.manifest.scale * (one.tensors[B].astype(np.float64) @ one.tensors[A])


def mean_product(updates: list[tuple[Adapter, int]]) -> np.ndarray:
    total = sum(count for _, count in updates)
    return sum(product(one) * count for one, count in updates) / total


def best_of_rank(matrix: np.ndarray, rank: int) -> np.ndarray:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def test_every_number_is_the_mean_weighted_by_examples() -> None:
    updates = [(adapter(seed), count) for seed, count in ((1, 1), (2, 10), (3, 29))]
    mean = federated_average(updates, START)
    for name, tensor in mean.tensors.items():
        for place in np.ndindex(tensor.shape):
            expected = sum(one.tensors[name][place] * count / 40 for one, count in updates)
            assert tensor[place] == pytest.approx(expected, abs=1e-6)  # float32
    assert mean.manifest == START.manifest


@pytest.mark.parametrize("ranks", [(2, 2, 2), (1, 2, 1)])
def test_the_order_of_the_updates_does_not_matter(ranks: tuple[int, ...]) -> None:
    updates = [(adapter(seed, rank), seed) for seed, rank in enumerate(ranks, start=1)]
    first, second = federated_average(updates, START), federated_average(updates[::-1], START)
    np.testing.assert_allclose(first.tensors[A], second.tensors[A], atol=1e-5)  # float32


def test_one_update_is_its_own_mean() -> None:
    np.testing.assert_array_equal(federated_average([(adapter(1), 7)], START).tensors[B],
                                  adapter(1).tensors[B])  # fmt: skip


def test_the_mean_of_the_factors_is_not_the_mean_of_the_products() -> None:
    updates = [(adapter(1), 1), (adapter(2), 1)]
    of_factors, of_products = product(federated_average(updates, START)), mean_product(updates)
    assert np.abs(of_factors - of_products).max() > 0.1
    assert np.linalg.matrix_rank(of_factors) == 2
    assert np.linalg.matrix_rank(of_products) == 4


MIXED = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 50)), min_size=1, max_size=5)
"""Ranks and example counts."""


@given(MIXED, st.integers(0, 10**6))
def test_updates_of_several_ranks_give_the_best_of_their_products_mean(
    devices: list[tuple[int, int]], seed: int
) -> None:
    start = adapter(seed, rank=8)
    updates = [(adapter(seed + n, rank), count) for n, (rank, count) in enumerate(devices, 1)]
    mean = federated_average(updates, start)
    whole = mean_product(updates)
    tolerance = 1e-5 * np.linalg.norm(whole)  # float32
    least = np.linalg.norm(whole - best_of_rank(whole, 8))
    assert np.linalg.norm(whole - product(mean)) <= least + tolerance
    require_averageable(mean, start)
    assert mean.manifest == start.manifest


@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(0, 10**6))
def test_nothing_is_lost_where_the_ranks_add_up_to_no_more(ranks: list[int], seed: int) -> None:
    start = adapter(seed, rank=9)
    updates = [(adapter(seed + n, rank), n) for n, rank in enumerate(ranks, 1)]
    np.testing.assert_allclose(
        product(federated_average(updates, start)), mean_product(updates), atol=1e-4
    )


def test_directions_that_no_update_fills_can_still_be_trained() -> None:
    start = adapter(0, rank=6)
    mean = federated_average([(adapter(1, rank=1), 1), (adapter(2, rank=1), 3)], start)
    assert np.linalg.matrix_rank(product(mean), tol=1e-5) == 2
    assert np.linalg.matrix_rank(mean.tensors[A]) == 6


def test_the_same_updates_give_the_same_bytes() -> None:
    updates = [(adapter(1, rank=1), 2), (adapter(2), 5)]
    one, again = (adapter_to_bytes(federated_average(updates, START)) for _ in range(2))
    assert one == again


@pytest.mark.parametrize("rank", [1, 2])
def test_a_mean_of_the_largest_values_can_travel(rank: int) -> None:
    largest = {name: np.full_like(t, 100) for name, t in adapter(1, rank).tensors.items()}
    big = Adapter(adapter(1, rank).manifest, largest)
    mean = federated_average([(big, 2**62), (big, 1), (big, 3)], START)
    assert np.abs(adapter_from_bytes(adapter_to_bytes(mean)).tensors[B]).max() == 100


@pytest.mark.parametrize("counts", [[], [0], [3, -1]])
def test_there_must_be_something_to_average(counts: list[int]) -> None:
    with pytest.raises(AdapterError, match="nothing to average"):
        federated_average([(adapter(1), count) for count in counts], START)
