"""A GGUF file's model put together: its layers' parts by the family's table, on frozen weights.

What a layer computes is `decoder_layer`'s, where weights come from `layer_weights`'.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from converters.architectures.table import Change, Part
from converters.config_values import number
from converters.model_source import SourceModel, gguf_model
from converters.rotary_settings import factor_tensors
from converters.tensor_names import gguf_names, parts_of, sizes_of
from edge_runtime.training.decoder_layer import ACTIVATIONS, DecoderLayer, Function, Heads
from edge_runtime.training.how import How
from edge_runtime.training.layer_weights import Weights, weights_of
from edge_runtime.training.low_rank_linear import LowRankLinear, Pair
from edge_runtime.training.mapped_embedding import MappedEmbedding
from edge_runtime.training.mapped_weights import MappedMatrix, map_matrices
from edge_runtime.training.norms import LayerNorm, RmsNorm
from edge_runtime.training.placement import Placement
from edge_runtime.training.precision import DTYPES
from edge_runtime.training.rotation import Rotation, Turns, rotation
from fedpt.errors import TrainingError
from fedpt.gguf_file import GgufFile

_FULL: Final = "full_attention"
_SLIDING: Final = "sliding_attention"
_RMS: Final = "attention.layer_norm_rms_epsilon"
_ACTIVATION_KEYS: Final = ("hidden_act", "hidden_activation", "activation_function")


@dataclass(frozen=True, slots=True)
class LowRank:
    """An adapter where it is computed."""

    pairs: Mapping[str, Pair]
    """A and B by the module that they change."""
    scale: float
    """alpha / rank"""


@dataclass(frozen=True, slots=True)
class Decoder:
    """Everything between tokens and logits."""

    embedding: MappedEmbedding
    positions: MappedMatrix | None
    """Learned ones, `(context, H)`."""
    layers: Sequence[DecoderLayer]
    kinds: Sequence[str]
    """What each layer sees, in transformers' words."""
    rotations: Mapping[str, Rotation]
    """By kind; empty: positions are learned."""
    norm: Function
    head: MappedMatrix
    placement: Placement
    dtype: torch.dtype

    def embedded(self, ids: torch.Tensor) -> torch.Tensor:
        """`(B, T)` to `(B, T, H)`."""
        x = self.embedding(ids)
        if self.positions is not None:
            last = self.positions.shape[0] - 1  # padding may lie behind it
            x = x + self.positions.rows(torch.arange(ids.shape[1]).clamp_(max=last), self.dtype)
        return x

    def turns(self, tokens: int) -> dict[str, Turns]:
        """The rotations of positions from 0 on, by kind."""
        found = {kind: one.turns(tokens, self.dtype) for kind, one in self.rotations.items()}
        bring = self.placement.bring
        return {kind: (bring(cosines), bring(sines)) for kind, (cosines, sines) in found.items()}


def open_decoder(file: GgufFile, low_rank: LowRank, how: How, placement: Placement) -> Decoder:
    """Put a file's model together.

    Args:
        file: The model.
        low_rank: The adapter.
        how: Precision, and what is kept of the matrices.
        placement: Where it is computed.

    Raises:
        ModelFileError: The file is of an unsupported family, or contradicts itself.
        TrainingError: The adapter changes what only the plain mode can train.
    """
    source = gguf_model(file)
    architecture, dtype = source.architecture, DTYPES[how.precision]
    matrices = map_matrices(file, placement)
    named = {name: matrices.get(module) for module, (name, _) in _parts(source).items()}
    weights = weights_of(_linear_modules(source), matrices, how)
    functions = {
        **_norms(source, placement),
        **_linear_layers(source, weights, low_rank, placement=placement),
    }
    sizes = sizes_of(architecture, file.metadata, source.row_count)
    embedding = matrices[architecture.embedding]
    kinds = source.config.get("layer_types") or [_FULL] * source.layers
    return Decoder(
        embedding=MappedEmbedding(
            embedding, dtype, sizes["hidden"] ** 0.5 if architecture.scales_embedding else 1.0
        ),
        positions=named.get("position_embd"),
        layers=list(_layers(source, functions, sizes, kinds)),
        kinds=kinds,
        rotations=_rotations(source, sizes["head"]),
        norm=functions["output_norm"],
        head=named["output"] or embedding,
        placement=placement,
        dtype=dtype,
    )


def _parts(source: SourceModel) -> dict[str, tuple[str, Part]]:
    return parts_of(source.architecture, source.layers)


def _linear_modules(source: SourceModel) -> list[list[str]]:
    """The linear layers' paths, layer by layer."""
    architecture = source.architecture
    linear = [module for module, part in architecture.layer_parts.items() if part.linear]
    return [
        [f"{architecture.layers}.{layer}.{module}" for module in linear]
        for layer in range(source.layers)
    ]


def _norms(source: SourceModel, placement: Placement) -> dict[str, Function]:
    """By GGUF's names."""
    epsilons = source.architecture.fractions
    (name, key), *_ = epsilons.items()
    epsilon = number(source.config, source.architecture, key)
    norms: dict[str, Function] = {}
    for module, (gguf_name, part) in _parts(source).items():
        if " " in part.shape:
            continue  # a matrix
        weight = _vector(source, f"{module}.weight", placement)
        if part.change is Change.PLUS_ONE:
            weight = weight + 1
        if name == _RMS:
            norms[gguf_name] = RmsNorm(weight, epsilon)
        else:
            bias = _vector(source, f"{module}.bias", placement)
            norms[gguf_name] = LayerNorm(weight, bias, epsilon)
    return norms


def _linear_layers(
    source: SourceModel, weights: Mapping[str, Weights], low_rank: LowRank, *, placement: Placement
) -> dict[str, Function]:
    """By GGUF's names.

    Raises:
        TrainingError: The adapter changes something else too, or is of another shape.
    """
    other = sorted(low_rank.pairs.keys() - weights)
    if other:
        raise TrainingError(
            f"the adapter changes {other[0]}, which is no linear layer within the layers; only"
            " mode plain can train that"
        )
    layers: dict[str, Function] = {}
    names = gguf_names(source.architecture, source.layers)
    for module, matrix in weights.items():
        pair = low_rank.pairs.get(module)
        if pair is not None:
            _require_fit(module, pair, matrix.shape)
        key = f"{module}.bias"
        bias = _vector(source, key, placement) if key in source.tensors else None
        layers[names[module]] = LowRankLinear(matrix, bias, pair, low_rank.scale)
    return layers


def _vector(source: SourceModel, key: str, placement: Placement) -> torch.Tensor:
    return placement.bring(torch.from_numpy(source.tensors[key].load()).contiguous())


def _require_fit(module: str, pair: Pair, shape: tuple[int, int]) -> None:
    first, second = pair
    if (second.shape[0], first.shape[1]) != shape:
        raise TrainingError(
            f"{module}: A {tuple(first.shape)} and B {tuple(second.shape)} of the adapter do not"
            f" fit {shape} of the base"
        )


def _layers(
    source: SourceModel,
    functions: Mapping[str, Function],
    sizes: Mapping[str, int],
    kinds: Sequence[str],
) -> Iterator[DecoderLayer]:
    activation = next(source.config[key] for key in _ACTIVATION_KEYS if key in source.config)
    head = sizes["head"]
    for place, kind in enumerate(kinds):
        prefix = f"blk.{place}."
        yield DecoderLayer(
            parts={
                name.removeprefix(prefix): function
                for name, function in functions.items()
                if name.startswith(prefix)
            },
            heads=Heads(sizes["queries"] // head, sizes["keys"] // head, head),
            inner=sizes["inner"],
            activation=ACTIVATIONS[activation],
            window=source.config["sliding_window"] if kind == _SLIDING else None,
        )


def _rotations(source: SourceModel, head: int) -> dict[str, Rotation]:
    settings = source.config.get("rope_parameters")
    if settings is None:
        return {}
    factors = factor_tensors(source.config, source.architecture)
    by_kind = settings if _FULL in settings else {_FULL: settings}
    return {kind: rotation(one, factors, head=head) for kind, one in by_kind.items()}
