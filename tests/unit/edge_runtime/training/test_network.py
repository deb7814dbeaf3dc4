"""Every mode gives the losses and gradients of transformers with PEFT."""

import math
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from converters.answer_positions import answer_tokens
from converters.gguf_to_torch import load_causal_lm
from converters.lora_in_torch import answer_logits, put_on
from converters.model_to_gguf import convert_model
from converters.tensor_names import linear_shapes
from edge_runtime.training.how import How
from edge_runtime.training.lean_network import LeanNetwork
from edge_runtime.training.network import Network, nll, open_network
from edge_runtime.training.placement import HOST
from fedpt.adapters import Adapter, AdapterManifest, initial_adapter
from fedpt.chat import EncodedExample
from fedpt.errors import TrainingError
from fedpt.gguf_file import GgufFile, read_gguf, weights_sha256
from tests.fakes.tiny_families import FAMILIES, make_tiny_family
from tests.fakes.tiny_federation import TinyFederation
from tests.fakes.tiny_models import make_tiny_llama

pytestmark = pytest.mark.llama

LEAN = [
    How(mode=mode, recompute=again) for mode in ("mapped", "expanded") for again in (True, False)
]


def loss_and_gradients(
    network: Network, examples: list[EncodedExample]
) -> tuple[float, dict[str, np.ndarray]]:
    loss = network.loss(examples)
    loss.backward()
    return loss.item(), {
        name: one.grad.numpy() for name, one in network.factors.items() if one.grad is not None
    }


def require_equal(
    ours: tuple[float, dict[str, np.ndarray]],
    theirs: tuple[float, dict[str, np.ndarray]],
    tolerance: float = 1e-4,  # float32, summed in another order
) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=tolerance)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        largest = np.abs(gradient).max()
        np.testing.assert_allclose(ours[1][name], gradient, atol=10 * tolerance * largest)


@pytest.mark.parametrize("how", LEAN, ids=lambda how: how.shown)
def test_a_lean_mode_computes_what_the_plain_one_does(
    open_tiny: Callable[[How], Network], encoded: list[EncodedExample], how: How
) -> None:
    plain = loss_and_gradients(open_tiny(How(mode="plain")), encoded)
    require_equal(loss_and_gradients(open_tiny(how), encoded), plain)


def adapter_for(file: GgufFile) -> Adapter:
    shapes = linear_shapes(file)
    kinds = tuple(sorted({module.rpartition(".")[2] for module in shapes}))
    manifest = AdapterManifest(
        base_weights=weights_sha256(file), rank=2, alpha=4.0, target_modules=kinds
    )
    rng = np.random.default_rng(3)
    adapter = initial_adapter(shapes, manifest, rng)
    for name, tensor in adapter.tensors.items():
        if ".lora_B." in name:
            tensor[:] = rng.normal(0, 0.1, tensor.shape)
    return adapter


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_trains_as_in_transformers(
    tmp_path: Path, encoded: list[EncodedExample], family: str
) -> None:
    convert_model(make_tiny_family(tmp_path / "m", family), tmp_path / "m.gguf", kind="F32")
    file = read_gguf(tmp_path / "m.gguf")
    adapter = adapter_for(file)
    plain, lean = (
        loss_and_gradients(open_network(file, adapter, How(mode=mode)), encoded[:2])
        for mode in ("plain", "mapped")
    )
    require_equal(lean, plain)


@pytest.mark.parametrize("family", ["phi3, long rope, tied", "gemma3", "llama 3 rope"])
def test_long_texts_turn_as_in_transformers(tmp_path: Path, family: str) -> None:
    convert_model(make_tiny_family(tmp_path / "m", family), tmp_path / "m.gguf", kind="F32")
    file = read_gguf(tmp_path / "m.gguf")
    text = np.random.default_rng(0).integers(3, 380, 400).tolist()
    long = [EncodedExample(tuple(text[:300]), tuple(text[300:]))]
    adapter = adapter_for(file)
    plain, lean = (
        loss_and_gradients(open_network(file, adapter, How(mode=mode)), long)
        for mode in ("plain", "mapped")
    )
    require_equal(lean, plain)


def test_a_lean_training_loads_neither_transformers_nor_a_compiler(tiny: TinyFederation) -> None:
    script = (
        "import sys; from pathlib import Path; import edge_runtime.training.__main__;"
        "from edge_runtime.training.adamw import AdamW;"
        "from edge_runtime.training.fine_tuning import new_adapter;"
        "from edge_runtime.training.how import How;"
        "from edge_runtime.training.network import open_network;"
        "from fedpt.chat import EncodedExample; from fedpt.gguf_file import read_gguf;"
        "file = read_gguf(Path(sys.argv[1]));"
        "network = open_network(file, new_adapter(2, 0)(file), How());"
        "network.loss([EncodedExample((1, 5), (6, 7))]).backward();"
        "AdamW(list(network.factors.values())).step(1e-3);"
        "print(sorted({'transformers', 'peft', 'torch._dynamo'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", script, str(tiny.small)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0"])
def test_a_quantised_base_is_the_one_that_is_served(
    tiny: TinyFederation, tmp_path: Path, encoded: list[EncodedExample], kind: str
) -> None:
    convert_model(tiny.small_folder, tmp_path / "q.gguf", kind=kind)
    file = read_gguf(tmp_path / "q.gguf")
    adapter = adapter_for(file)
    plain, lean = (
        loss_and_gradients(open_network(file, adapter, How(mode=mode)), encoded[:2])
        for mode in ("plain", "mapped")
    )
    require_equal(lean, plain)


def test_half_precision_is_near(
    open_tiny: Callable[[How], Network], encoded: list[EncodedExample]
) -> None:
    plain = nll(open_tiny(How(mode="plain")), encoded)
    half = nll(open_tiny(How(precision="bfloat16")), encoded)
    assert half == pytest.approx(plain, rel=0.02)  # bfloat16 has eight bits


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # quanto's own
def test_quanto_trains_as_a_plain_loop_on_a_base_that_quanto_rounded(
    tiny: TinyFederation, encoded: list[EncodedExample]
) -> None:
    ours = loss_and_gradients(
        open_network(read_gguf(tiny.small), tiny.adapter, How(mode="quanto")), encoded
    )
    require_equal(ours, loss_and_gradients(RoundedByQuanto(tiny), encoded))


def test_quanto_is_near_the_served_weights(
    open_tiny: Callable[[How], Network], encoded: list[EncodedExample]
) -> None:
    plain = nll(open_tiny(How(mode="plain")), encoded)
    assert nll(open_tiny(How(mode="quanto")), encoded) == pytest.approx(plain, rel=0.02)


def test_without_quanto_its_mode_says_what_to_install(
    tiny: TinyFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optimum.quanto", None)
    monkeypatch.delitem(sys.modules, "edge_runtime.training.quanto_weights", raising=False)
    with pytest.raises(TrainingError, match=r"pip install 'fedpt\[quanto\]'"):
        open_network(read_gguf(tiny.small), tiny.adapter, How(mode="quanto"))


class RoundedByQuanto:
    """transformers, PEFT and quanto, as their documentation puts them together."""

    def __init__(self, tiny: TinyFederation) -> None:
        from optimum.quanto import freeze, qint8, quantize

        model = load_causal_lm(tiny.small)
        quantize(model, weights=qint8, exclude="lm_head")
        freeze(model)
        self._network = put_on(model, tiny.adapter).eval()
        self.factors = {
            name.replace(".default.", "."): one
            for name, one in self._network.named_parameters()
            if one.requires_grad
        }

    def loss(self, examples: Sequence[EncodedExample]) -> torch.Tensor:
        logits = answer_logits(self._network, examples)
        return cross_entropy(logits, answer_tokens(examples), reduction="sum")


class SecondMemory:
    """An accelerator's memory, as far as the host can be one: what is brought there is a copy."""

    device = torch.device("cpu")
    is_elsewhere = True

    def __init__(self) -> None:
        self.live_bytes = self.most_bytes = self.brought = self.brought_ahead = 0
        self._lock = threading.RLock()  # the collector may call `_forget` at any moment

    def bring(self, tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.clone()
        size = copy.untyped_storage().nbytes()
        weakref.finalize(copy.untyped_storage(), self._forget, size)
        with self._lock:
            self.live_bytes += size
            self.brought += 1
            self.brought_ahead += threading.current_thread() is not threading.main_thread()
            self.most_bytes = max(self.most_bytes, self.live_bytes)
        return copy

    def _forget(self, size: int) -> None:
        with self._lock:
            self.live_bytes -= size


def test_layers_are_brought_to_an_accelerator_one_after_another(
    tmp_path: Path, encoded: list[EncodedExample]
) -> None:
    layers = 8
    convert_model(make_tiny_llama(tmp_path / "m", layers=layers), tmp_path / "m.gguf", kind="F32")
    file, memory = read_gguf(tmp_path / "m.gguf"), SecondMemory()
    adapter = adapter_for(file)
    network = LeanNetwork(file, adapter, How(), memory)
    there, brought = memory.live_bytes, memory.brought
    shapes = linear_shapes(file)
    memory.most_bytes = 0
    ours = loss_and_gradients(network, encoded)
    require_equal(ours, loss_and_gradients(LeanNetwork(file, adapter, How(), HOST), encoded))
    assert memory.brought > brought + 1.5 * len(shapes)  # forward and backward; the last one stays
    in_layers = 4 * sum(rows * columns for rows, columns in shapes.values())
    head_and_embedding = 2 * 4 * math.prod(file.tensors["token_embd.weight"].shape)
    assert memory.most_bytes - there < in_layers / 2 + head_and_embedding


def test_the_next_layer_is_on_its_way_while_one_is_computed(
    tiny: TinyFederation, encoded: list[EncodedExample]
) -> None:
    memory, file = SecondMemory(), read_gguf(tiny.small)
    network = LeanNetwork(file, tiny.adapter, How(), memory)
    loss_and_gradients(network, encoded)
    one_layer = len(linear_shapes(file)) // 2
    assert memory.brought_ahead >= 2 * one_layer  # the second layer forward, the first backward


def test_an_adapter_of_the_head_is_for_the_plain_mode(tiny: TinyFederation) -> None:
    tensors = dict(tiny.adapter.tensors)
    for name in [name for name in tensors if "layers.0.self_attn.q_proj" in name]:
        tensors[name.replace("model.layers.0.self_attn.q_proj", "lm_head")] = tensors.pop(name)
    with pytest.raises(TrainingError, match="changes lm_head, which is no linear layer"):
        open_network(read_gguf(tiny.small), Adapter(tiny.adapter.manifest, tensors), How())
