"""Lower ranks from factors, against numpy's SVD of whole matrices."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpt.adapters import Adapter, AdapterManifest, read_peft_folder
from fedpt.gguf_file import read_gguf, weights_sha256
from fedpt.low_rank import best_of_rank, factor_pairs, with_rank
from tests.fakes.tiny_federation import TinyFederation
from tests.fakes.tiny_models import make_tiny_adapter

A, B = "base_model.model.q_proj.lora_A.weight", "base_model.model.q_proj.lora_B.weight"
SIZES = st.integers(1, 12)


def factors(rows: int, columns: int, stacked: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Some of very different sizes, some directions not used at all."""
    rng = np.random.default_rng(seed)
    weights = 10.0 ** rng.integers(-4, 2, stacked) * (rng.random(stacked) < 0.8)
    first = rng.normal(size=(stacked, columns))
    second = rng.normal(size=(rows, stacked)) * weights
    return first.astype(np.float32), second.astype(np.float32)


def best_whole(matrix: np.ndarray, rank: int) -> np.ndarray:
    """The reference: the whole matrix, decomposed and cut."""
    left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return second.astype(np.float64) @ first.astype(np.float64)


def adapter(rank: int = 4, *, alpha: float = 6.0, is_new: bool = False) -> Adapter:
    rng = np.random.default_rng(rank)
    first = rng.normal(size=(rank, 7)).astype(np.float32)
    second = rng.normal(size=(5, rank)).astype(np.float32) * (not is_new)
    manifest = AdapterManifest(
        base_weights="b" * 64, rank=rank, alpha=alpha, target_modules=("q_proj",)
    )
    return Adapter(manifest, {A: first, B: second})


def change(one: Adapter) -> np.ndarray:
    """What the adapter adds to the weights."""
    return one.manifest.scale * product(one.tensors[A], one.tensors[B])


@given(st.tuples(SIZES, SIZES, st.integers(1, 20), st.integers(0, 10**6)), st.integers(1, 20))
def test_no_matrix_of_the_rank_is_closer(drawn: tuple[int, int, int, int], most: int) -> None:
    first, second = factors(*drawn)
    rank = min(most, len(first))
    whole = product(first, second)
    ours = product(*best_of_rank(first, second, rank))
    least = np.linalg.norm(whole - best_whole(whole, rank))
    assert np.linalg.norm(whole - ours) <= least + 1e-5 * np.linalg.norm(whole)  # float32


@given(SIZES, SIZES, st.integers(1, 20), st.integers(0, 10**6))
def test_new_rows_are_orthogonal_of_one_length_and_turned_one_way(
    rows: int, columns: int, stacked: int, seed: int
) -> None:
    first, second = factors(rows, columns, stacked, seed)
    new, _ = best_of_rank(first, second, stacked)
    lengths = np.linalg.norm(new, axis=1)
    expected = np.sqrt(np.mean(np.linalg.norm(first, axis=1) ** 2))
    used = min(stacked, columns)
    np.testing.assert_allclose(lengths[:used], expected, rtol=1e-5)
    assert not lengths[used:].any()
    np.testing.assert_allclose(new @ new.T, np.diag(lengths**2), atol=1e-5 * expected**2)
    assert all(row[np.abs(row).argmax()] > 0 for row in new[:used])


def test_types_and_results_are_the_same_every_time() -> None:
    first, second = factors(6, 9, 5, seed=1)
    one, again = best_of_rank(first, second, 3), best_of_rank(first.copy(), second.copy(), 3)
    for ours, theirs in zip(one, again, strict=True):
        assert ours.dtype == np.float32
        assert ours.tobytes() == theirs.tobytes()


def test_an_adapter_of_a_lower_rank_is_the_best_one_and_scales_as_before() -> None:
    wide = adapter(4, alpha=6.0)
    narrow = with_rank(wide, 3)
    assert (narrow.manifest.rank, narrow.manifest.alpha) == (3, 4.5)
    assert {name: one.shape for name, one in narrow.tensors.items()} == {A: (3, 7), B: (5, 3)}
    np.testing.assert_allclose(change(narrow), best_whole(change(wide), 3), atol=1e-5)  # float32


def test_an_adapter_of_no_more_rank_stays_as_it_is() -> None:
    wide = adapter(4)
    assert with_rank(wide, 4) is with_rank(wide, 9) is wide


def test_a_new_adapter_of_a_lower_rank_changes_nothing_and_can_be_trained() -> None:
    narrow = with_rank(adapter(4, is_new=True), 2)
    assert not narrow.tensors[B].any()
    assert np.linalg.matrix_rank(narrow.tensors[A]) == 2


@pytest.mark.llama
@pytest.mark.parametrize("rslora", [False, True])
def test_what_peft_saved_keeps_its_scale(
    tiny: TinyFederation, tmp_path: Path, rslora: bool
) -> None:
    folder = make_tiny_adapter(tmp_path / "a", tiny.small_folder, rank=4, rslora=rslora)
    wide = read_peft_folder(folder, base_weights=weights_sha256(read_gguf(tiny.small)))
    narrow = with_rank(wide, 2)
    scale = 8 / 4**0.5 if rslora else 8 / 4
    for first, second in factor_pairs(wide.tensors):
        whole = scale * product(wide.tensors[first], wide.tensors[second])
        ours = product(narrow.tensors[first], narrow.tensors[second])
        np.testing.assert_allclose(
            narrow.manifest.scale * ours, best_whole(whole, 2), atol=1e-5 * np.linalg.norm(whole)
        )


def test_embeddings_have_pairs_too() -> None:
    names = {"e.lora_embedding_A", "e.lora_embedding_B", "q.lora_B.weight", "q.lora_A.weight"}
    assert list(factor_pairs(dict.fromkeys(names, np.zeros(1)))) == [
        ("e.lora_embedding_A", "e.lora_embedding_B"),
        ("q.lora_A.weight", "q.lora_B.weight"),
    ]
