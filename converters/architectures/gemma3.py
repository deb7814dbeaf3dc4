"""Gemma 3, text only: norms that multiply by one more than their weight, windows that slide.

Five layers in six see a window only and have a rotary base of their own.
"""

from typing import Final

from converters.architectures.table import (
    ATTENTION_COUNTS,
    RMS_NORM,
    Architecture,
    Change,
    Part,
    Rotary,
    Window,
    gated_feed_forward,
)

GEMMA3: Final = Architecture(
    gguf_name="gemma3",
    transformers_name="Gemma3ForCausalLM",
    model_type="gemma3_text",
    model_parts={
        "model.embed_tokens": Part("token_embd", "vocabulary hidden"),
        "model.norm": Part("output_norm", "hidden", Change.PLUS_ONE),
        "lm_head": Part("output", "vocabulary hidden"),
    },
    layer_parts={
        "input_layernorm": Part("attn_norm", "hidden", Change.PLUS_ONE),
        "self_attn.q_proj": Part("attn_q", "queries hidden", linear=True),
        "self_attn.q_norm": Part("attn_q_norm", "head", Change.PLUS_ONE),
        "self_attn.k_proj": Part("attn_k", "keys hidden", linear=True),
        "self_attn.k_norm": Part("attn_k_norm", "head", Change.PLUS_ONE),
        "self_attn.v_proj": Part("attn_v", "keys hidden", linear=True),
        "self_attn.o_proj": Part("attn_output", "hidden queries", linear=True),
        "post_attention_layernorm": Part("post_attention_norm", "hidden", Change.PLUS_ONE),
        "pre_feedforward_layernorm": Part("ffn_norm", "hidden", Change.PLUS_ONE),
        **gated_feed_forward(),
        "post_feedforward_layernorm": Part("post_ffw_norm", "hidden", Change.PLUS_ONE),
    },
    numbers=ATTENTION_COUNTS,
    fractions=RMS_NORM,
    defaults={
        "tie_word_embeddings": True,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256,
    },
    only={
        "hidden_activation": ("gelu_pytorch_tanh",),
        "attention_bias": (False,),
        "attn_logit_softcapping": (None,),
        "final_logit_softcapping": (None,),
        "use_bidirectional_attention": (False, None),
    },
    scales_embedding=True,
    rowless=frozenset({"<image_soft_token>"}),
    score_scale="query_pre_attn_scalar",
    rotary=Rotary(frozenset({"linear"}), default_base=1_000_000.0, local_base=10_000.0),
    window=Window("layers", default=4096, period=6),
)
