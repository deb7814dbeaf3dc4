"""Adapters as blobs and as PEFT folders; nothing that comes over the wire is trusted."""

import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from fedpt.adapters import (
    CONFIG_NAME,
    TENSORS_NAME,
    Adapter,
    AdapterManifest,
    adapter_from_bytes,
    adapter_to_bytes,
    initial_adapter,
    module_kinds,
    read_peft_folder,
    require_averageable,
    write_peft_folder,
)
from fedpt.errors import AdapterError, WrongBaseError
from fedpt.files import sha256_bytes
from fedpt.ids import Sha256
from tests.fakes.tiny_federation import TinyFederation

BASE = Sha256("b" * 64)
MANIFEST = AdapterManifest(base_weights=BASE, rank=2, alpha=4.0, target_modules=("q_proj",))
A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")
HALF = 2.0**-11
"""Relative rounding error of float16."""


def random_adapter() -> Adapter:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 6)), rng.normal(size=(4, 2))
    return Adapter(MANIFEST, {A: first.astype(np.float32), B: second.astype(np.float32)})


ADAPTER = random_adapter()
CONTENT = adapter_to_bytes(ADAPTER)


def blob(tensors: dict[str, np.ndarray] | None = None, manifest: object = MANIFEST) -> bytes:
    """A blob with something other than usual in it."""
    text = manifest if isinstance(manifest, str) else msgspec.json.encode(manifest).decode()
    return save(ADAPTER.tensors if tensors is None else tensors, {"fedpt": text})


def header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


def test_a_blob_keeps_an_adapter_within_half_precision() -> None:
    back = adapter_from_bytes(CONTENT)
    assert back.manifest == MANIFEST
    for name, tensor in ADAPTER.tensors.items():
        np.testing.assert_allclose(back.tensors[name], tensor, rtol=HALF)
        assert back.tensors[name].dtype == np.float32


def test_a_blob_depends_on_content_alone() -> None:
    turned = Adapter(MANIFEST, dict(reversed(ADAPTER.tensors.items())))
    assert sha256_bytes(adapter_to_bytes(turned)) == sha256_bytes(CONTENT)


def test_a_second_journey_changes_no_byte() -> None:
    assert adapter_to_bytes(adapter_from_bytes(CONTENT)) == CONTENT


def test_its_numbers_are_counted() -> None:
    assert ADAPTER.parameter_count == 2 * 6 + 4 * 2


def changed(**changes: object) -> bytes:
    return blob(manifest=msgspec.to_builtins(MANIFEST) | changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged adapter"),
        (CONTENT[:-1], "damaged adapter"),
        (CONTENT + b"x", "damaged adapter"),
        (b"\xff" * 8 + CONTENT[8:], "damaged adapter"),
        (header(b"[" * 200_000), "damaged adapter"),
        (header(b'{"__metadata__": ' + b"1" * 5000 + b"}"), "damaged adapter"),
        (header(b"[]"), "damaged adapter"),
        (header(b'{"__metadata__": {"fedpt": 5}}'), "damaged adapter"),
        (header(b"{}"), "damaged adapter: KeyError"),
        (header(b'{"__metadata__": null}'), "damaged adapter: KeyError"),
        (header(b'{"__metadata__": {"fedpt": "\\ud800"}}'), "damaged adapter"),
        (save(ADAPTER.tensors), "damaged adapter: KeyError"),
        (blob(manifest="{"), "damaged adapter"),
        (blob(manifest="[" * 200_000), "damaged adapter"),
        (changed(rank="2"), "damaged adapter"),
        (changed(alpha=None), "damaged adapter"),
        (blob(manifest='{"base_weights": "\\ud800"}'), "damaged adapter"),
        (changed(rank=0), "manifest makes no sense"),
        (changed(rank=3), "does not fit rank 3"),
        (changed(base_weights="../etc"), "manifest makes no sense"),
        (blob({}), "has no tensors"),
        (blob({A: ADAPTER.tensors[A]}), "is no half of a LoRA pair"),
        (blob({**ADAPTER.tensors, "head.weight": np.ones(3, np.float32)}), "no half of a LoRA"),
        (blob({**ADAPTER.tensors, A: np.ones((2, 6, 1), np.float32)}), "does not fit rank 2"),
        (blob({**ADAPTER.tensors, A: np.array(5, np.float32)}), "does not fit rank 2"),
        (blob({**ADAPTER.tensors, B: np.full((4, 2), np.nan, np.float32)}), "not finite"),
        (blob({**ADAPTER.tensors, B: np.full((4, 2), np.inf, np.float32)}), "not finite"),
        (blob({**ADAPTER.tensors, B: np.ones((4, 2))}), "is float64; save it as F32 or F16"),
        (blob({**ADAPTER.tensors, B: np.ones((4, 2), np.complex64)}), "is complex64"),
        (blob({**ADAPTER.tensors, B: np.ones((4, 2), bool)}), "is bool"),
    ],
)
def test_every_kind_of_damage_is_an_adapter_error(content: bytes, message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        adapter_from_bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        blob({"x" * 10**6: np.ones(1, np.float32)}),
        blob({"x" * 10**6: np.ones(1, np.float64)}),
        changed(rank=0, target_modules=["x" * 10**6]),
    ],
)
def test_what_is_said_of_a_bad_adapter_fits_into_a_message(content: bytes) -> None:
    with pytest.raises(AdapterError) as caught:
        adapter_from_bytes(content)
    assert len(str(caught.value)) < 1000


@given(st.binary(max_size=200))
def test_garbage_is_an_adapter_error(content: bytes) -> None:
    with pytest.raises(AdapterError):
        adapter_from_bytes(content)


@given(
    st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), min_size=1),
    st.integers(0, len(CONTENT)),
)
def test_changed_bytes_raise_nothing_but_adapter_errors(
    changes: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(CONTENT)
    for place, value in changes:
        content[place] = value
    for damaged in (bytes(content), bytes(content[:length])):
        with suppress(AdapterError):
            adapter_from_bytes(damaged)


# -- PEFT folders ----------------------------------------------------------------------------------


def change_config(folder: Path, **changes: object) -> Path:
    path = folder / CONFIG_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_peft_folder(ADAPTER, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_folder_comes_back_exactly(folder: Path) -> None:
    back = read_peft_folder(folder, base_weights=BASE)
    assert back.manifest == MANIFEST
    for name, tensor in ADAPTER.tensors.items():
        np.testing.assert_array_equal(back.tensors[name], tensor)


@pytest.mark.slow
def test_peft_loads_our_folder(tiny: TinyFederation) -> None:
    from peft import get_peft_model_state_dict

    from tests.fakes.tiny_models import load_tuned

    tuned = load_tuned(tiny.small_folder, tiny.adapter_folder)
    loaded = get_peft_model_state_dict(tuned)
    assert set(loaded) == set(tiny.adapter.tensors)
    for name, tensor in tiny.adapter.tensors.items():
        np.testing.assert_array_equal(loaded[name].numpy(), tensor)
    layer = tuned.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == tiny.adapter.manifest.alpha / tiny.adapter.manifest.rank


@pytest.mark.slow
def test_an_initial_adapter_is_as_peft_would_draw_it(tiny: TinyFederation) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny.small_folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft's own
        tuned = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj"]))
    layer = tuned.base_model.model.model.layers[0].self_attn.q_proj
    theirs = layer.lora_A["default"].weight.detach().numpy()
    rows, columns = layer.weight.shape
    manifest = msgspec.structs.replace(MANIFEST, rank=8)
    ours = initial_adapter(
        {"model.layers.0.self_attn.q_proj": (rows, columns)}, manifest, np.random.default_rng(0)
    )
    assert ours.tensors[A].shape == theirs.shape
    assert not ours.tensors[B].any()
    for drawn in (ours.tensors[A], theirs):  # 512 draws: the largest is within 5 % of the bound
        assert np.abs(drawn).max() == pytest.approx(columns**-0.5, rel=0.05)
        assert drawn.std() == pytest.approx(columns**-0.5 / 3**0.5, rel=0.1)


def test_rslora_scales_by_the_root_of_the_rank(folder: Path) -> None:
    got = read_peft_folder(change_config(folder, use_rslora=True), base_weights=BASE)
    manifest = got.manifest
    assert manifest.alpha / manifest.rank == pytest.approx(4.0 / 2**0.5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "use_dora = True: DoRA changes more"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"modules_to_save": ["lm_head"]}, "whole modules beside the adapter"),
        ({"lora_bias": True}, "biases are not part"),
        ({"trainable_token_indices": [3]}, "single tokens' embeddings"),
        ({"layer_replication": [[0, 2]]}, "more layers than it has"),
        ({"init_lora_weights": "pissa_niter_4"}, "the base's weights were changed too"),
        ({"rank_pattern": {"q_proj": 4}}, "one rank for all modules"),
        ({"alpha_pattern": {"q_proj": 4}}, "one alpha for all modules"),
        ({"r": None}, "is no PEFT LoRA configuration"),
        ({"r": "many"}, "is no PEFT LoRA configuration"),
        ({"r": 0}, "r = 0"),
        ({"r": 3}, "does not fit rank 3"),
        ({"r": float("inf")}, "is no PEFT LoRA configuration: OverflowError"),
        ({"lora_alpha": float("nan")}, "lora_alpha = nan"),
        ({"lora_alpha": 10**400}, "is no PEFT LoRA configuration: OverflowError"),
    ],
)
def test_what_we_cannot_serve_is_refused_with_the_reason(
    folder: Path, config: dict[str, object], message: str
) -> None:
    with pytest.raises(AdapterError, match=message):
        read_peft_folder(change_config(folder, **config), base_weights=BASE)


@pytest.mark.parametrize("text", ["", "[]", "{", "5", "[" * 200_000, '{"r": ' + "9" * 5000 + "}"])
def test_a_damaged_configuration_is_an_adapter_error(folder: Path, text: str) -> None:
    (folder / CONFIG_NAME).write_text(text)
    with pytest.raises(AdapterError, match="is no PEFT LoRA configuration"):
        read_peft_folder(folder, base_weights=BASE)


def test_an_adapter_in_bfloat16_is_read_exactly(folder: Path) -> None:
    halves = {name: torch.from_numpy(one).bfloat16() for name, one in ADAPTER.tensors.items()}
    (folder / TENSORS_NAME).write_bytes(safetensors.torch.save(halves))
    back = read_peft_folder(folder, base_weights=BASE)
    for name, tensor in halves.items():
        np.testing.assert_array_equal(back.tensors[name], tensor.float().numpy())


def test_an_adapter_that_is_pickled_is_never_read(folder: Path) -> None:
    (folder / TENSORS_NAME).rename(folder / "adapter_model.bin")
    with pytest.raises(AdapterError, match=r"as pickle .* never read; save it as safetensors"):
        read_peft_folder(folder, base_weights=BASE)


def test_the_factors_of_an_embedding_have_names_of_their_own(tmp_path: Path) -> None:
    names = [A.replace(".lora_A.weight", f".lora_embedding_{one}") for one in "AB"]
    tensors = dict(zip(names, ADAPTER.tensors.values(), strict=True))
    adapter = Adapter(MANIFEST, tensors)
    write_peft_folder(adapter, tmp_path / "a")
    assert set(read_peft_folder(tmp_path / "a", base_weights=BASE).tensors) == set(names)
    assert set(adapter_from_bytes(adapter_to_bytes(adapter)).tensors) == set(names)


def break_file(folder: Path) -> None:
    (folder / TENSORS_NAME).write_bytes(b"x")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / CONFIG_NAME).unlink(), "a PEFT adapter's folder was expected"),
        (lambda folder: (folder / TENSORS_NAME).unlink(), "cannot read .*safetensors: .*No such"),
        (break_file, "cannot read .*adapter_model.safetensors: "),
    ],
)
def test_an_incomplete_folder_is_an_adapter_error(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(AdapterError, match=message):
        read_peft_folder(folder, base_weights=BASE)


def test_a_folder_for_another_base_is_refused(folder: Path) -> None:
    with pytest.raises(WrongBaseError, match=r"bbbbbbbbbbbb….*cccccccccccc….*use the model"):
        read_peft_folder(folder, base_weights=Sha256("c" * 64))


def test_a_folder_from_elsewhere_is_taken_to_be_for_our_base(folder: Path) -> None:
    (folder / TENSORS_NAME).write_bytes(save(ADAPTER.tensors))
    other = Sha256("c" * 64)
    assert read_peft_folder(folder, base_weights=other).manifest.base_weights == other


# -- forms -----------------------------------------------------------------------------------------


def of_rank(rank: int, **change: Any) -> Adapter:
    """Of the scale of ADAPTER, whose rank is 2."""
    manifest = msgspec.structs.replace(MANIFEST, rank=rank, alpha=2.0 * rank)
    tensors = {A: np.ones((rank, 6), np.float32), B: np.ones((4, rank), np.float32)}
    return Adapter(msgspec.structs.replace(manifest, **change), tensors)


def test_an_update_of_the_federations_rank_or_a_lower_one_can_be_averaged() -> None:
    require_averageable(adapter_from_bytes(CONTENT), ADAPTER)
    require_averageable(of_rank(1), ADAPTER)


def test_a_higher_rank_is_refused_in_one_line() -> None:
    message = r"^the adapter's rank is 3; this federation takes 2 and lower$"
    with pytest.raises(AdapterError, match=message):
        require_averageable(of_rank(3), ADAPTER)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("change", [{"alpha": 5.0}, {"target_modules": ("k_proj",)}])
def test_another_scale_or_target_is_refused(rank: int, change: dict[str, Any]) -> None:
    with pytest.raises(AdapterError, match=r"not AdapterManifest.*the adapter is AdapterManifest"):
        require_averageable(of_rank(rank, **change), ADAPTER)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("name", [A, A + "x"])
def test_other_tensors_are_refused(rank: int, name: str) -> None:
    other = of_rank(rank)
    other.tensors[name] = np.ones((rank, 7), np.float32)
    with pytest.raises(AdapterError, match=r"differ from those expected, first at .*q_proj"):
        require_averageable(other, ADAPTER)


def test_another_base_is_refused_by_its_own_error() -> None:
    with pytest.raises(WrongBaseError):
        require_averageable(of_rank(2, base_weights="c" * 64), ADAPTER)


def test_layers_that_the_model_does_not_have_are_refused_with_those_it_has() -> None:
    shapes = {"h.0.attn.c_attn": (6, 2), "h.0.attn.c_proj": (2, 2), "h.0.mlp.c_proj": (2, 4)}
    assert module_kinds(shapes) == ("c_attn", "c_proj")
    with pytest.raises(AdapterError, match=r"no layers 'q_proj'; it has c_attn, c_proj$"):
        initial_adapter(shapes, MANIFEST, np.random.default_rng(0))
