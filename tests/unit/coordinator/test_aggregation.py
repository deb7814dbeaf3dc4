"""Averaging, against a plain loop over the numbers."""

import numpy as np
import pytest

from coordinator.aggregation import federated_average
from fedpt.adapters import Adapter, AdapterManifest, adapter_from_bytes, adapter_to_bytes
from fedpt.errors import AdapterError

A, B = "base_model.model.q_proj.lora_A.weight", "base_model.model.q_proj.lora_B.weight"
MANIFEST = AdapterManifest(base_weights="b" * 64, rank=2, alpha=4.0, target_modules=("q_proj",))


def adapter(seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    shapes = {A: (2, 5), B: (4, 2)}
    return Adapter(
        MANIFEST, {name: rng.normal(size=one).astype(np.float32) for name, one in shapes.items()}
    )


def product(one: Adapter) -> np.ndarray:
    return one.tensors[B] @ one.tensors[A]


def test_every_number_is_the_mean_weighted_by_examples() -> None:
    updates = [(adapter(seed), count) for seed, count in ((1, 1), (2, 10), (3, 29))]
    mean = federated_average(updates)
    for name, tensor in mean.tensors.items():
        for place in np.ndindex(tensor.shape):
            expected = sum(one.tensors[name][place] * count / 40 for one, count in updates)
            assert tensor[place] == pytest.approx(expected, abs=1e-6)  # float32
    assert mean.manifest == MANIFEST


def test_the_order_of_the_updates_does_not_matter() -> None:
    updates = [(adapter(seed), seed) for seed in (1, 2, 3)]
    first, second = federated_average(updates), federated_average(updates[::-1])
    np.testing.assert_allclose(first.tensors[A], second.tensors[A], atol=1e-6)  # float32


def test_one_update_is_its_own_mean() -> None:
    np.testing.assert_array_equal(federated_average([(adapter(1), 7)]).tensors[B],
                                  adapter(1).tensors[B])  # fmt: skip


def test_the_mean_of_the_factors_is_not_the_mean_of_the_products() -> None:
    one, two = adapter(1), adapter(2)
    of_factors = product(federated_average([(one, 1), (two, 1)]))
    of_products = (product(one) + product(two)) / 2
    assert np.abs(of_factors - of_products).max() > 0.1
    assert np.linalg.matrix_rank(of_factors) == 2
    assert np.linalg.matrix_rank(of_products) == 4


def test_a_mean_of_the_largest_values_can_travel() -> None:
    big = Adapter(MANIFEST, {name: np.full_like(t, 100) for name, t in adapter(1).tensors.items()})
    mean = federated_average([(big, 2**62), (big, 1), (big, 3)])
    np.testing.assert_array_equal(adapter_from_bytes(adapter_to_bytes(mean)).tensors[A], 100)


@pytest.mark.parametrize("counts", [[], [0], [3, -1]])
def test_there_must_be_something_to_average(counts: list[int]) -> None:
    with pytest.raises(AdapterError, match="nothing to average"):
        federated_average([(adapter(1), count) for count in counts])
