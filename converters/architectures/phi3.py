"""Phi 3, 3.5 and 4-mini: queries, keys and values in one matrix, gate and up in another.

Both sides have them in the same order, so adapters fit as they are. llama.cpp does not slide the
window.
"""

from typing import Final

from converters.architectures.table import (
    ATTENTION_COUNTS,
    GROUPED_BY_DEFAULT,
    RMS_NORM,
    Architecture,
    Part,
    Rotary,
    Window,
    outer_parts,
)

PHI3: Final = Architecture(
    gguf_name="phi3",
    transformers_name="Phi3ForCausalLM",
    model_type="phi3",
    model_parts=outer_parts(),
    layer_parts={
        "input_layernorm": Part("attn_norm", "hidden"),
        "self_attn.qkv_proj": Part("attn_qkv", "queries+keys+keys hidden", linear=True),
        "self_attn.o_proj": Part("attn_output", "hidden queries", linear=True),
        "post_attention_layernorm": Part("ffn_norm", "hidden"),
        "mlp.gate_up_proj": Part("ffn_up", "inner+inner hidden", linear=True),
        "mlp.down_proj": Part("ffn_down", "hidden inner", linear=True),
    },
    numbers=ATTENTION_COUNTS,
    fractions=RMS_NORM,
    defaults={"tie_word_embeddings": False},
    multiples=GROUPED_BY_DEFAULT,
    only={"hidden_act": ("silu",)},
    own_head_size=False,
    rotary=Rotary(frozenset({"longrope"}), partial=True),
    window=Window("limit"),
)
