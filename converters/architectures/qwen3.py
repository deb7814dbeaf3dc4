"""Qwen 3, dense: a norm on every head's query and key, and heads of their own size."""

from typing import Final

from converters.architectures.table import (
    ATTENTION_COUNTS,
    GROUPED_BY_DEFAULT,
    RMS_NORM,
    Architecture,
    Part,
    Rotary,
    Window,
    gated_feed_forward,
    outer_parts,
)

QWEN3: Final = Architecture(
    gguf_name="qwen3",
    transformers_name="Qwen3ForCausalLM",
    model_type="qwen3",
    model_parts=outer_parts(),
    layer_parts={
        "input_layernorm": Part("attn_norm", "hidden"),
        "self_attn.q_proj": Part("attn_q", "queries hidden", linear=True),
        "self_attn.q_norm": Part("attn_q_norm", "head"),
        "self_attn.k_proj": Part("attn_k", "keys hidden", linear=True),
        "self_attn.k_norm": Part("attn_k_norm", "head"),
        "self_attn.v_proj": Part("attn_v", "keys hidden", linear=True),
        "self_attn.o_proj": Part("attn_output", "hidden queries", linear=True),
        "post_attention_layernorm": Part("ffn_norm", "hidden"),
        **gated_feed_forward(),
    },
    numbers=ATTENTION_COUNTS,
    fractions=RMS_NORM,
    defaults={"tie_word_embeddings": False, "head_dim": 128},
    multiples=GROUPED_BY_DEFAULT,
    only={"hidden_act": ("silu",), "attention_bias": (False,)},
    rotary=Rotary(frozenset({"linear"})),
    window=Window("limit", switch="use_sliding_window", default=4096),
)
