"""What a family's table says: both names of everything, and how GGUF stores it otherwise.

Pure data types. Who reads them: `converters.tensor_names` (names), `converters.tensor_changes`
(values), `converters.hyperparameters` and `converters.rotary_settings` (configurations).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal


class Change(Enum):
    """How GGUF stores a tensor's values, compared with transformers.

    An adapter's factors ``W + B A`` follow: B's rows change as W's rows do, A never does. PEFT
    keeps the factors of a transposed weight as those of an ordinary linear layer, so nothing is to
    be transposed there.
    """

    NONE = "as they are"
    ROTARY = "rows reordered within each head"
    TRANSPOSED = "columns as rows"
    PLUS_ONE = "one added: transformers adds it when computing"


@dataclass(frozen=True, slots=True)
class Part:
    """One module of a model."""

    name: str
    """In GGUF, without `.weight` and without the layer's prefix."""
    shape: str
    """The weight's in GGUF, rows first: names of sizes, `queries+keys hidden` being a sum."""
    change: Change = Change.NONE
    heads: str = ""
    """For `ROTARY`: the hyperparameter in GGUF that counts the heads."""
    bias: str = ""
    """`always`, or the key in `config.json` that switches it on; empty: there is none."""
    linear: bool = False
    """A linear layer within the layers: what an adapter changes when it changes all of them."""


@dataclass(frozen=True, slots=True)
class Rotary:
    """How a family turns positions into rotations."""

    scalings: frozenset[str] = frozenset()
    """Which `rope_type` besides `default` llama.cpp computes as transformers does."""
    default_base: float = 10_000.0
    local_base: float | None = None
    """Default base of sliding layers, where they have their own."""
    partial: bool = False
    """Whether only the first values of a head may turn."""


@dataclass(frozen=True, slots=True)
class Window:
    """What becomes of a sliding attention window."""

    kind: Literal["layers", "limit"]
    """`layers`: llama.cpp knows which layers slide. `limit`: it does not slide at all, so the file
    states a context that is not longer than the window: as far as that goes, both are the same."""
    switch: str = ""
    """Key in `config.json` without which the window is not used."""
    default: int | None = None
    period: int = 0
    """For `layers`: one in so many does not slide, where the configuration does not say."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One family of models, by both names of everything in it."""

    gguf_name: str
    """`general.architecture`, and the prefix of its hyperparameters."""
    transformers_name: str
    """As in `architectures` of `config.json`."""
    model_type: str
    """As in `config.json`."""
    model_parts: Mapping[str, Part]
    """Modules outside the layers, by their path in transformers."""
    layer_parts: Mapping[str, Part]
    """Modules of one layer, without the layer's prefix."""
    numbers: Mapping[str, str]
    """Whole-number hyperparameters: key in GGUF to key in `config.json`."""
    fractions: Mapping[str, str]
    """The same for those that are not whole."""
    embedding: str = "model.embed_tokens"
    layers: str = "model.layers"
    """Path of the list of layers in transformers."""
    defaults: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values, here and below
    """What transformers takes where `config.json` does not say; None: that must be said."""
    multiples: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Numbers that are so many times another one where `config.json` does not say."""
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Keys in `config.json` that may have these values only, for llama.cpp computes just that. The
    first is what a folder written here says."""
    scales_embedding: bool = False
    """Whether rows of the embedding are multiplied by the root of the hidden size."""
    own_head_size: bool = True
    """Whether a head's size may be something else than hidden size by heads."""
    score_scale: str = ""
    """Key in `config.json` that must be a head's size: llama.cpp divides scores by its root."""
    rowless: frozenset[str] = frozenset()
    """Added tokens that the tokenizer has and the text model has no row for, as the placeholder of
    an image; they are left out."""
    rotary: Rotary | None = field(default_factory=Rotary)
    window: Window | None = None

    def key(self, name: str) -> str:
        """A hyperparameter's whole key in GGUF."""
        return f"{self.gguf_name}.{name}"


HEAD = "lm_head"
"""Every family calls its head so."""

ATTENTION_COUNTS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}
"""What most families call these numbers."""

GROUPED_BY_DEFAULT = {"num_key_value_heads": ("num_attention_heads", 1)}
"""Without grouped queries, older configurations do not count the keys' heads."""

RMS_NORM = {"attention.layer_norm_rms_epsilon": "rms_norm_eps"}


def outer_parts(prefix: str = "model") -> dict[str, Part]:
    """Embedding, last norm and head, as most families have them."""
    return {
        f"{prefix}.embed_tokens": Part("token_embd", "vocabulary hidden"),
        f"{prefix}.norm": Part("output_norm", "hidden"),
        HEAD: Part("output", "vocabulary hidden"),
    }


def gated_feed_forward(bias: str = "") -> dict[str, Part]:
    """The three projections of a gated feed-forward network."""
    return {
        "mlp.gate_proj": Part("ffn_gate", "inner hidden", bias=bias, linear=True),
        "mlp.up_proj": Part("ffn_up", "inner hidden", bias=bias, linear=True),
        "mlp.down_proj": Part("ffn_down", "hidden inner", bias=bias, linear=True),
    }
