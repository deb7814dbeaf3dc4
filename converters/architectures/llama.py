"""Llama and what is built like it: SmolLM2, TinyLlama, Llama 3.x, Mistral.

llama.cpp pairs the values that a rotation turns otherwise than transformers, hence the reordered
queries and keys. It does not slide Mistral's window.
"""

from dataclasses import replace
from typing import Final

from converters.architectures.table import (
    ATTENTION_COUNTS,
    GROUPED_BY_DEFAULT,
    RMS_NORM,
    Architecture,
    Change,
    Part,
    Rotary,
    Window,
    gated_feed_forward,
    outer_parts,
)

_BIAS: Final = "attention_bias"

LLAMA: Final = Architecture(
    gguf_name="llama",
    transformers_name="LlamaForCausalLM",
    model_type="llama",
    model_parts=outer_parts(),
    layer_parts={
        "input_layernorm": Part("attn_norm", "hidden"),
        "self_attn.q_proj": Part(
            "attn_q", "queries hidden", Change.ROTARY, "attention.head_count", _BIAS, linear=True
        ),
        "self_attn.k_proj": Part(
            "attn_k", "keys hidden", Change.ROTARY, "attention.head_count_kv", _BIAS, linear=True
        ),
        "self_attn.v_proj": Part("attn_v", "keys hidden", bias=_BIAS, linear=True),
        "self_attn.o_proj": Part("attn_output", "hidden queries", bias=_BIAS, linear=True),
        "post_attention_layernorm": Part("ffn_norm", "hidden"),
        **gated_feed_forward(bias="mlp_bias"),
    },
    numbers=ATTENTION_COUNTS,
    fractions=RMS_NORM,
    defaults={"tie_word_embeddings": False},
    multiples=GROUPED_BY_DEFAULT,
    only={"hidden_act": ("silu",)},
    rotary=Rotary(frozenset({"llama3", "linear"})),
)

MISTRAL: Final = replace(
    LLAMA,
    transformers_name="MistralForCausalLM",
    model_type="mistral",
    window=Window("limit", default=4096),
)
