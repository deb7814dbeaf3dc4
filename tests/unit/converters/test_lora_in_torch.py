"""Adapters on torch models of every family, and their logits where answers are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from converters.gguf_to_torch import load_causal_lm
from converters.lora_in_torch import answer_logits, put_on, read_off
from converters.tensor_names import linear_shapes
from fedpt.adapters import AdapterManifest, initial_adapter
from fedpt.chat import EncodedExample
from fedpt.gguf_file import read_gguf, weights_sha256

pytestmark = [
    pytest.mark.llama,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # peft's own, of transformers 6
]

EXAMPLES = [EncodedExample((5, 9, 40), (7, 8, 2)), EncodedExample((6,), (90, 2))]


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma3", "phi3", "gpt2"])
def test_a_new_adapter_of_any_family_can_be_trained(
    family: Callable[[str], tuple[Path, Path]], name: str
) -> None:
    file = read_gguf(family(name)[1])
    shapes = linear_shapes(file)
    manifest = AdapterManifest(
        base_weights=weights_sha256(file),
        rank=2,
        alpha=4.0,
        target_modules=tuple(sorted({module.rpartition(".")[2] for module in shapes})),
    )
    adapter = initial_adapter(shapes, manifest, np.random.default_rng(0))
    network = put_on(load_causal_lm(file.path), adapter)
    logits = answer_logits(network, EXAMPLES)
    rows = [
        network(torch.tensor([[*one.prompt, *one.answer[:-1]]])).logits[0, len(one.prompt) - 1 :]
        for one in EXAMPLES
    ]
    torch.testing.assert_close(logits, torch.cat(rows), atol=1e-4, rtol=0)
    logits.sum().backward()
    assert read_off(network, manifest).tensors.keys() == adapter.tensors.keys()
