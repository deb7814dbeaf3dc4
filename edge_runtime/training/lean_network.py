"""A GGUF model as a network that needs little memory: transformers' own code on our layers.

The family's class computes attention, norms and the rest; linear layers, embedding and head are
replaced by ones that look their weights up in the mapped file. The adapter's factors are the only
parameters. The reference beside it is `plain_network`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from converters.answer_positions import answer_tokens, at_answers, padded
from converters.architectures.table import HEAD
from converters.empty_model import empty_model
from converters.model_source import SourceModel, gguf_model
from edge_runtime.training.answer_loss import answer_loss
from edge_runtime.training.how import How
from edge_runtime.training.layer_weights import Expanded, OnDemand, OneLayer, Weights
from edge_runtime.training.low_rank_linear import LowRankLinear
from edge_runtime.training.mapped_embedding import MappedEmbedding
from edge_runtime.training.mapped_weights import MappedMatrix, map_matrices
from edge_runtime.training.placement import Placement
from fedpt.adapters import TENSOR_PREFIX, Adapter, AdapterManifest
from fedpt.chat import EncodedExample
from fedpt.errors import TrainingError
from fedpt.gguf_file import GgufFile

Factors: TypeAlias = tuple[torch.nn.Parameter, torch.nn.Parameter]

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class LeanNetwork:
    """A frozen base with trainable factors."""

    def __init__(self, file: GgufFile, adapter: Adapter, how: How, placement: Placement) -> None:
        """Lay the network out. In mapped mode hardly anything of the file is read.

        Raises:
            ModelFileError: The file is of an unsupported family, or contradicts itself.
            TrainingError: The adapter changes what only the plain mode can train.
        """
        source = gguf_model(file)
        matrices = map_matrices(file, placement)
        self._placement = placement
        self.factors = {
            name: torch.nn.Parameter(placement.bring(torch.from_numpy(tensor.copy())))
            for name, tensor in sorted(adapter.tensors.items())
        }
        model = empty_model(source, source.name)
        dtype = DTYPES[how.precision]
        vectors = _vectors(source, matrices, placement, dtype)
        weights = _weights(source, matrices, how)
        layers = _linear_layers(weights, vectors, _pairs(self.factors), adapter.manifest)
        for module, layer in layers.items():
            model.set_submodule(module, layer)
        name = source.architecture.embedding
        scale = getattr(model.get_submodule(name), "scalar_embed_scale", 1.0)  # Gemma's
        self._head = matrices.get(HEAD, matrices[name])
        model.set_submodule(name, MappedEmbedding(matrices[name], dtype, scale))
        model.lm_head = torch.nn.Identity()  # `answer_loss` is the head
        model.load_state_dict(vectors, assign=True, strict=False)
        self._body = model.base_model.to(placement.device)
        _switch_dropout_off(self._body)
        if how.recompute:
            _compute_activations_again(self._body)

    def loss(self, examples: Sequence[EncodedExample]) -> torch.Tensor:
        """Sum over the answers' tokens, nats."""
        self._body.train(torch.is_grad_enabled())  # only then layers compute activations again
        ids = self._placement.bring(padded(examples))
        hidden = self._body(input_ids=ids, use_cache=False).last_hidden_state
        targets = self._placement.bring(answer_tokens(examples))
        return answer_loss(at_answers(hidden, examples), targets, self._head)


def _switch_dropout_off(body: torch.nn.Module) -> None:
    """Nothing is random here: an interrupted training could not go on the same way."""
    for module in body.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def _compute_activations_again(body: torch.nn.Module) -> None:
    """What transformers' own switch does; that one has changed its name between versions.

    The variant that is not reentrant holds a layer's activations for longer than the layer's turn.
    """
    function = partial(checkpoint, use_reentrant=True, preserve_rng_state=False)
    for module in body.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = function


def _vectors(
    source: SourceModel,
    matrices: Mapping[str, MappedMatrix],
    placement: Placement,
    dtype: torch.dtype,
) -> dict[str, torch.Tensor]:
    """Norms, biases and learned positions: everything that no linear layer multiplies with."""
    mapped = {*_linear(source), source.architecture.embedding, HEAD} & matrices.keys()
    return {
        key: placement.bring(torch.from_numpy(tensor.load()).to(dtype).contiguous())
        for key, tensor in source.tensors.items()
        if not (key.endswith(".weight") and key.removesuffix(".weight") in mapped)
    }


def _linear(source: SourceModel) -> list[str]:
    """Paths of the linear layers, in the order of the model."""
    architecture = source.architecture
    return [
        f"{architecture.layers}.{layer}.{module}"
        for layer in range(source.layers)
        for module, part in architecture.layer_parts.items()
        if part.linear
    ]


def _weights(
    source: SourceModel, matrices: Mapping[str, MappedMatrix], how: How
) -> dict[str, Weights]:
    dtype, current = DTYPES[how.precision], OneLayer()
    depth = source.architecture.layers.count(".") + 2
    weights: dict[str, Weights] = {}
    for module in _linear(source):
        if how.mode == "expanded":
            weights[module] = Expanded(matrices[module].expanded(dtype))
        else:
            layer = ".".join(module.split(".")[:depth])
            weights[module] = OnDemand(module, layer, matrices[module], dtype, current)
    return weights


def _pairs(factors: Mapping[str, torch.nn.Parameter]) -> dict[str, Factors]:
    """A and B by the module that they change."""
    return {
        name.removeprefix(TENSOR_PREFIX).removesuffix(".lora_A.weight"): (
            factor,
            factors[name.replace(".lora_A.", ".lora_B.")],
        )
        for name, factor in factors.items()
        if name.endswith(".lora_A.weight")
    }


def _linear_layers(
    weights: Mapping[str, Weights],
    vectors: dict[str, torch.Tensor],
    pairs: Mapping[str, Factors],
    manifest: AdapterManifest,
) -> dict[str, LowRankLinear]:
    """By their paths; they take their biases out of the vectors.

    Raises:
        TrainingError: The adapter changes something else too, or is of another shape.
    """
    other = sorted(pairs.keys() - weights.keys())
    if other:
        raise TrainingError(
            f"the adapter changes {other[0]}, which is no linear layer within the layers; only"
            " mode plain can train that"
        )
    scale = manifest.alpha / manifest.rank
    layers = {}
    for module, matrix in weights.items():
        factors = pairs.get(module)
        if factors is not None:
            _require_fit(module, factors, matrix.shape)
        bias = vectors.pop(f"{module}.bias", None)
        layers[module] = LowRankLinear(matrix, bias, factors, scale)
    return layers


def _require_fit(module: str, factors: Factors, shape: tuple[int, int]) -> None:
    first, second = factors
    if (second.shape[0], first.shape[1]) != shape:
        raise TrainingError(
            f"{module}: A {tuple(first.shape)} and B {tuple(second.shape)} of the adapter do not"
            f" fit {shape} of the base"
        )
