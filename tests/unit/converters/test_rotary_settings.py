"""Rope settings there and back; torch and llama.cpp judge them in `architectures/test_known.py`."""

import numpy as np
import pytest

from converters.architectures.llama import LLAMA
from converters.architectures.phi3 import PHI3
from converters.rotary_settings import (
    FREQUENCIES,
    factor_tensors,
    rope_parameters,
    rotary_metadata,
)
from fedpt.errors import ModelFileError

SIZES = {"num_attention_heads": 4, "hidden_size": 512}


def llama3(**changes: float) -> dict[str, object]:
    settings = {
        "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    return settings | changes


@pytest.mark.parametrize(
    ("head_dim", "changes"),
    [
        (64, {}),  # Llama 3.2 1B
        (128, {}),  # Llama 3.2 3B
        (128, {"factor": 8.0}),  # Llama 3.1
        (128, {"original_max_position_embeddings": 4096, "high_freq_factor": 8.0}),
        (16, {"original_max_position_embeddings": 64}),  # one frequency in between
    ],
)
def test_the_settings_of_llama_3_are_found_again_from_its_factors(
    head_dim: int, changes: dict[str, float]
) -> None:
    config = SIZES | {"head_dim": head_dim, "rope_parameters": llama3(**changes)}
    factors = factor_tensors(config, LLAMA)
    back = rope_parameters(rotary_metadata(config, LLAMA), LLAMA, factors)
    again = factor_tensors(config | {"rope_parameters": back}, LLAMA)
    np.testing.assert_allclose(again[FREQUENCIES], factors[FREQUENCIES], rtol=1e-5)


def test_factors_of_no_known_kind_are_refused() -> None:
    factors = {FREQUENCIES: np.linspace(1, 3, 32, dtype=np.float32) ** 2}
    with pytest.raises(ModelFileError, match="are none that transformers knows"):
        rope_parameters({}, LLAMA, factors)


def test_old_and_new_spelling_say_the_same() -> None:
    old = SIZES | {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}}
    new = SIZES | {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}}
    assert rotary_metadata(old, LLAMA) == rotary_metadata(new, LLAMA)


def test_the_attention_factor_of_longrope_follows_from_the_stretch() -> None:
    config = SIZES | {
        "max_position_embeddings": 131_072,
        "original_max_position_embeddings": 4096,
        "rope_scaling": {"type": "su", "long_factor": [1.0] * 64, "short_factor": [1.0] * 64},
    }
    metadata = rotary_metadata(config, PHI3)
    # sqrt(1 + ln 32 / ln 4096)
    assert metadata["phi3.rope.scaling.attn_factor"] == pytest.approx(1.190238)
    assert metadata["phi3.rope.scaling.original_context_length"] == 4096
