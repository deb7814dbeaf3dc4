"""The first adapter, the average, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from converters.adapter_factors import module_of
from converters.tensor_names import ARCHITECTURES, parts_of
from coordinator.adapter_store import AdapterStore
from coordinator.settings import AdapterSettings
from coordinator.state import UpdateAccepted
from fedpt.adapters import Adapter, adapter_to_bytes
from fedpt.blobs import BlobStore
from fedpt.errors import AdapterError, WrongBaseError
from fedpt.ids import Sha256
from fedpt.low_rank import with_rank

SHAPES = {"model.layers.0.self_attn.q_proj": (6, 4), "model.layers.0.mlp.up_proj": (8, 4)}
SETTINGS = AdapterSettings(rank=2, target_modules=("q_proj",))


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


def first(blobs: BlobStore, *, seed: int = 0, weights: str = "b" * 64) -> str:
    return AdapterStore(blobs).put_first(SETTINGS, SHAPES, Sha256(weights), seed=seed)


def accepted(update: str, example_count: int) -> UpdateAccepted:
    return UpdateAccepted(
        device="board", update=update, example_count=example_count, training_seconds=1, loss=1,
        bytes_up=1, bytes_down=1,
    )  # fmt: skip


def with_value(adapter: Adapter, value: float) -> Adapter:
    return Adapter(
        adapter.manifest,
        {name: np.full_like(tensor, value) for name, tensor in adapter.tensors.items()},
    )


def test_the_first_adapter_changes_nothing_and_only_its_targets(blobs: BlobStore) -> None:
    adapter = AdapterStore(blobs).get(first(blobs))
    assert {name.split(".")[-3] for name in adapter.tensors} == {"q_proj"}
    assert all(not t.any() for name, t in adapter.tensors.items() if "lora_B" in name)


def test_the_first_adapter_is_the_same_for_the_same_seed(blobs: BlobStore) -> None:
    assert first(blobs, seed=1) == first(blobs, seed=1) != first(blobs, seed=2)


@pytest.mark.parametrize("family", sorted(ARCHITECTURES))
def test_by_default_every_linear_layer_of_the_models_family_is_adapted(
    blobs: BlobStore, family: str
) -> None:
    parts = parts_of(ARCHITECTURES[family], layers=2)
    shapes = {module: (6, 4) for module, (_, part) in parts.items() if part.linear}
    store = AdapterStore(blobs)
    adapter = store.get(store.put_first(AdapterSettings(), shapes, Sha256("b" * 64), seed=0))
    adapted = {module_of(name) for name in adapter.tensors}
    assert adapted == shapes.keys()
    assert adapter.manifest.rank == 8


def test_a_target_that_the_model_lacks_is_refused(blobs: BlobStore) -> None:
    settings = AdapterSettings(target_modules=("q_proj", "qkv_proj"))
    with pytest.raises(AdapterError, match=r"no layers 'qkv_proj'; it has q_proj, up_proj$"):
        AdapterStore(blobs).put_first(settings, SHAPES, Sha256("b" * 64), seed=0)


def test_no_device_weighs_more_than_the_most(blobs: BlobStore) -> None:
    store = AdapterStore(blobs)
    base = store.get(first(blobs))
    low, high = (blobs.put(adapter_to_bytes(with_value(base, value))) for value in (0, 1))
    updates = [accepted(low.sha256, 10**9), accepted(high.sha256, 3)]
    mean = store.get(store.put_average(updates, start=first(blobs), most_examples=1))
    assert all((tensor == 0.5).all() for tensor in mean.tensors.values())


def test_an_average_of_lower_ranks_has_the_federations_form(blobs: BlobStore) -> None:
    store, start = AdapterStore(blobs), first(blobs)
    low = adapter_to_bytes(with_rank(with_value(store.get(start), 1), 1))
    store.require_update(low, base=start)
    update = accepted(blobs.put(low).sha256, 3)
    mean = store.get(store.put_average([update], start=start, most_examples=9))
    assert mean.manifest == store.get(start).manifest
    for name, one in mean.tensors.items():
        if "lora_A" in name:
            # 2 / 1 * (ones of rank 2) @ (ones), up to float16
            other = mean.tensors[name.replace("lora_A", "lora_B")]
            np.testing.assert_allclose(other @ one, 2, rtol=2e-3)


def test_a_run_does_not_go_on_with_another_small_model(blobs: BlobStore) -> None:
    adapter = first(blobs)
    AdapterStore(blobs).require_base(adapter, Sha256("b" * 64))
    with pytest.raises(WrongBaseError, match="this run's adapter"):
        AdapterStore(blobs).require_base(adapter, Sha256("c" * 64))


def test_an_update_of_another_model_or_form_is_refused(blobs: BlobStore, tmp_path: Path) -> None:
    store, base = AdapterStore(blobs), first(blobs)
    other = blobs.get(first(blobs, weights="c" * 64))
    with pytest.raises(WrongBaseError):
        store.require_update(other, base=base)
    with pytest.raises(AdapterError):
        store.require_update(b"not an adapter", base=base)
