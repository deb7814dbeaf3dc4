"""GPT-2: learned positions, biases everywhere, and weights that transformers keeps transposed."""

from typing import Final

from converters.architectures.table import Architecture, Change, Part

GPT2: Final = Architecture(
    gguf_name="gpt2",
    transformers_name="GPT2LMHeadModel",
    model_type="gpt2",
    embedding="transformer.wte",
    layers="transformer.h",
    model_parts={
        "transformer.wte": Part("token_embd", "vocabulary hidden"),
        "transformer.wpe": Part("position_embd", "positions hidden"),
        "transformer.ln_f": Part("output_norm", "hidden", bias="always"),
        "lm_head": Part("output", "vocabulary hidden"),
    },
    layer_parts={
        "ln_1": Part("attn_norm", "hidden", bias="always"),
        "attn.c_attn": Part(
            "attn_qkv", "queries+keys+keys hidden", Change.TRANSPOSED, bias="always", linear=True
        ),
        "attn.c_proj": Part(
            "attn_output", "hidden queries", Change.TRANSPOSED, bias="always", linear=True
        ),
        "ln_2": Part("ffn_norm", "hidden", bias="always"),
        "mlp.c_fc": Part("ffn_up", "inner hidden", Change.TRANSPOSED, bias="always", linear=True),
        "mlp.c_proj": Part(
            "ffn_down", "hidden inner", Change.TRANSPOSED, bias="always", linear=True
        ),
    },
    numbers={
        "block_count": "n_layer",
        "context_length": "n_positions",
        "embedding_length": "n_embd",
        "feed_forward_length": "n_inner",
        "attention.head_count": "n_head",
    },
    fractions={"attention.layer_norm_epsilon": "layer_norm_epsilon"},
    defaults={"tie_word_embeddings": True},
    multiples={"n_inner": ("n_embd", 4)},
    only={
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "reorder_and_upcast_attn": (False, True),
        "add_cross_attention": (False,),
    },
    own_head_size=False,
    rotary=None,
)
