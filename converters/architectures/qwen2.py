"""Qwen 2 and 2.5: like Llama, with biases at queries, keys and values, and nothing reordered."""

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

QWEN2: Final = Architecture(
    gguf_name="qwen2",
    transformers_name="Qwen2ForCausalLM",
    model_type="qwen2",
    model_parts=outer_parts(),
    layer_parts={
        "input_layernorm": Part("attn_norm", "hidden"),
        "self_attn.q_proj": Part("attn_q", "queries hidden", bias="always", linear=True),
        "self_attn.k_proj": Part("attn_k", "keys hidden", bias="always", linear=True),
        "self_attn.v_proj": Part("attn_v", "keys hidden", bias="always", linear=True),
        "self_attn.o_proj": Part("attn_output", "hidden queries", linear=True),
        "post_attention_layernorm": Part("ffn_norm", "hidden"),
        **gated_feed_forward(),
    },
    numbers=ATTENTION_COUNTS,
    fractions=RMS_NORM,
    defaults={"tie_word_embeddings": False},
    multiples=GROUPED_BY_DEFAULT,
    only={"hidden_act": ("silu",)},
    own_head_size=False,
    rotary=Rotary(frozenset({"linear"})),
    window=Window("limit", switch="use_sliding_window", default=4096),
)
