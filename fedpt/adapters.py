"""LoRA adapters as they travel and as PEFT stores them.

On the wire an adapter is one safetensors blob: PEFT's own tensors, half precision, with the
manifest in the file's metadata. Its id is the sha256 of those bytes. On disk it is a PEFT folder
(`adapter_config.json`, `adapter_model.safetensors`) that any PEFT program loads. How an adapter
becomes GGUF is `converters.adapter_to_gguf`.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize
from safetensors.numpy import load, save

from fedpt.errors import AdapterError, WrongBaseError
from fedpt.files import folder_written_aside
from fedpt.ids import Sha256, is_sha256

AdapterTensors: TypeAlias = dict[str, npt.NDArray[np.float32]]
"""By PEFT's names (`base_model.model.<module>.lora_A.weight`): A is `(r, in)`, B `(out, r)`. Those
of an embedding are called `lora_embedding_A`, without `.weight`: A is `(r, tokens)`."""

FACTOR_PAIRS: Final = (
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_embedding_A", ".lora_embedding_B"),
)
"""How names of factors end: linear layers, embeddings."""

TENSOR_PREFIX: Final = "base_model.model."
CONFIG_NAME: Final = "adapter_config.json"
TENSORS_NAME: Final = "adapter_model.safetensors"
MAX_ADAPTER_BYTES: Final = 512 * 1024 * 1024
"""Larger ones are not fetched."""

_MANIFEST_KEY: Final = "fedpt"
_SHOWN: Final = 500
_BASE_KEY: Final = "fedpt.base.weights.sha256"
LARGEST_VALUE: Final = 100.0
"""Of a factor. Trained ones stay below one or two. One poisoned update with huge values, averaged
in, would spoil the adapter of all."""

_ROUNDING: Final = 1e-9
"""Relative: of an alpha that was computed from another rank's."""

_BASE_COPY: Final = ".base_layer.weight"
_FLOATS: Final = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}

_SUPPORTED_CONFIG: Final = {
    "use_dora": (False, "DoRA changes more than a low-rank product"),
    "bias": ("none", "biases are not part of a low-rank adapter"),
    "lora_bias": (False, "biases are not part of a low-rank adapter"),
    "modules_to_save": (None, "whole modules beside the adapter are not supported"),
    "trainable_token_indices": (None, "single tokens' embeddings are no low-rank adapter"),
    "target_parameters": (None, "parameters that are no linear layer's are not supported"),
    "layer_replication": (None, "the base would need more layers than it has"),
    "alora_invocation_tokens": (None, "an adapter that starts at a token is not supported"),
    "use_qalora": (False, "QA-LoRA pools the inputs, which llama.cpp does not"),
    "rank_pattern": ({}, "one rank for all modules is supported"),
    "alpha_pattern": ({}, "one alpha for all modules is supported"),
}


_CHANGED_BASE: Final = ("pissa", "olora", "corda", "loftq")
"""Ways to start that take the adapter's first values off the base's weights, so it fits only those.
PEFT can save it for the base as it was (`path_initial_model_for_weight_conversion`)."""


class AdapterManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter is for, and how its factors scale: ``alpha / rank * B @ A``."""

    base_weights: str
    """`fedpt.gguf_file.weights_sha256` of the base model."""
    rank: int
    alpha: float
    target_modules: tuple[str, ...]

    @property
    def scale(self) -> float:
        """What products are multiplied by; of rsLoRA too, whose alpha is kept as LoRA's."""
        return self.alpha / self.rank


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter in memory."""

    manifest: AdapterManifest
    tensors: AdapterTensors

    @property
    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(tensor.size for tensor in self.tensors.values())


def adapter_to_bytes(adapter: Adapter) -> bytes:
    """The adapter as the blob that travels: float16 safetensors with its manifest."""
    halves = {name: tensor.astype(np.float16) for name, tensor in sorted(adapter.tensors.items())}
    return save(halves, {_MANIFEST_KEY: msgspec.json.encode(adapter.manifest).decode()})


def adapter_from_bytes(content: bytes) -> Adapter:
    """Read an adapter's blob, trusting nothing in it.

    Raises:
        AdapterError: It is damaged, has no manifest, or holds a value that is not finite. The
            daemons refuse such an update with the error's code.
    """
    try:
        tensors = _load_tensors(content)
        manifest = msgspec.json.decode(_metadata(content)[_MANIFEST_KEY], type=AdapterManifest)
    except (msgspec.MsgspecError, ValueError, KeyError, RecursionError) as error:
        raise AdapterError(_short(f"damaged adapter: {type(error).__name__}: {error}")) from error
    adapter = Adapter(manifest, tensors)
    _check(adapter)
    return adapter


def read_peft_folder(folder: Path, *, base_weights: Sha256) -> Adapter:
    """Read a PEFT adapter from its folder.

    A folder that we wrote names its base; one from elsewhere does not, and is taken to be for
    `base_weights`.

    Raises:
        AdapterError: A file is missing or damaged, or the adapter is of a kind we cannot serve.
        WrongBaseError: It names another base.
    """
    config = _read_config(folder / CONFIG_NAME)
    try:
        content = (folder / TENSORS_NAME).read_bytes()
        tensors = _load_tensors(_factors_only(content))
    except FileNotFoundError as error:
        if (folder / "adapter_model.bin").exists():
            raise AdapterError(
                f"{folder} has its weights as pickle (.bin), which can run code and is never read;"
                " save it as safetensors"
            ) from None
        raise AdapterError(f"cannot read {folder / TENSORS_NAME}: {error}") from error
    except (OSError, ValueError) as error:
        raise AdapterError(f"cannot read {folder / TENSORS_NAME}: {error}") from error
    stated = _metadata(content).get(_BASE_KEY, base_weights)
    require_base(str(folder), stated, base_weights)
    rank = int(config["r"])
    scale = rank**0.5 if config.get("use_rslora") else 1.0
    manifest = AdapterManifest(
        base_weights=base_weights,
        rank=rank,
        alpha=float(config["lora_alpha"]) * scale,  # rsLoRA divides by sqrt(rank) instead
        target_modules=module_kinds(name.split(".lora_", maxsplit=1)[0] for name in tensors),
    )
    adapter = Adapter(manifest, tensors)
    _check(adapter)
    return adapter


def write_peft_folder(adapter: Adapter, folder: Path) -> None:
    """Write a folder that PEFT and `read_peft_folder` load, whole or not at all.

    Raises:
        StorageError: It could not be written.
    """
    manifest = adapter.manifest
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": manifest.rank,
        "lora_alpha": manifest.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(manifest.target_modules),
        "inference_mode": True,
    }
    metadata = {"format": "pt", _BASE_KEY: manifest.base_weights}  # PEFT warns of unknown config
    with folder_written_aside(folder) as aside:
        (aside / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (aside / TENSORS_NAME).write_bytes(save(adapter.tensors, metadata))


def module_kinds(modules: Iterable[str]) -> tuple[str, ...]:
    """What target modules are called: `model.layers.0.self_attn.q_proj` is a `q_proj`. Sorted."""
    return tuple(sorted({module.rpartition(".")[2] for module in modules}))


def require_kinds(targets: Iterable[str], modules: Iterable[str]) -> None:
    """Refuse target modules that a model does not have.

    Raises:
        AdapterError: Names the first, and what there is.
    """
    kinds = module_kinds(modules)
    if unknown := sorted(set(targets) - set(kinds)):
        raise AdapterError(f"the model has no layers {unknown[0]!r}; it has {', '.join(kinds)}")


def initial_adapter(
    shapes: Mapping[str, tuple[int, int]], manifest: AdapterManifest, rng: np.random.Generator
) -> Adapter:
    """An adapter that changes nothing yet: A as PEFT draws it (Kaiming uniform), B zero.

    All devices of a first round start from the same A, or averaging their factors means nothing.

    Args:
        shapes: Module path (`model.layers.0.self_attn.q_proj`) to its `(out, in)`.
        manifest: Rank, alpha and targets; modules not among the targets are skipped.
        rng: Where A comes from.

    Raises:
        AdapterError: A target is not among the modules.
    """
    require_kinds(manifest.target_modules, shapes)
    tensors: AdapterTensors = {}
    for module, (rows, columns) in shapes.items():
        if module.rpartition(".")[2] not in manifest.target_modules:
            continue
        bound = columns**-0.5  # kaiming_uniform_(a=sqrt(5)) over the input width
        first = rng.uniform(-bound, bound, (manifest.rank, columns)).astype(np.float32)
        tensors[f"{TENSOR_PREFIX}{module}.lora_A.weight"] = first
        tensors[f"{TENSOR_PREFIX}{module}.lora_B.weight"] = np.zeros(
            (rows, manifest.rank), np.float32
        )
    if not tensors:
        raise AdapterError("an adapter needs at least one target module")
    return Adapter(manifest, tensors)


def require_averageable(update: Adapter, federation: Adapter) -> None:
    """Refuse an adapter that cannot be averaged into the federation's.

    Its rank may be lower; everything else is as in the federation's adapter.

    Raises:
        WrongBaseError: They are for different base models.
        AdapterError: The rank is higher, or scale (alpha / rank), targets, tensor names or shapes
            differ.
    """
    ours, theirs = federation.manifest, update.manifest
    require_base("the adapter", theirs.base_weights, ours.base_weights)
    if theirs.rank > ours.rank:
        raise AdapterError(
            f"the adapter's rank is {theirs.rank}; this federation takes {ours.rank} and lower"
        )
    has_scale = math.isclose(theirs.scale, ours.scale, rel_tol=_ROUNDING)
    if theirs.target_modules != ours.target_modules or not has_scale:
        raise AdapterError(_short(f"not {ours}, or of a lower rank: the adapter is {theirs}"))
    shapes = {name: tensor.shape for name, tensor in update.tensors.items()}
    expected = {
        name: _shape_of_rank(name, tensor.shape, theirs.rank)
        for name, tensor in federation.tensors.items()
    }
    if shapes != expected:
        odd = sorted(set(shapes.items()) ^ set(expected.items()))[0]
        raise AdapterError(_short(f"the tensors differ from those expected, first at {odd}"))


def require_base(what: str, stated: str, expected: str) -> None:
    """Refuse an adapter that meets another base than its own.

    Args:
        what: The adapter, as the error names it.
        stated: Hash of the weights that it was trained on.
        expected: Hash of the weights that it meets.

    Raises:
        WrongBaseError: They differ; both are named.
    """
    if stated == expected:
        return
    raise WrongBaseError(
        f"{what} was trained on the base model {stated[:12]}…, but this one is {expected[:12]}…;"
        " use the model that it was trained on, or train it again"
    )


def _check(adapter: Adapter) -> None:
    """Every A has its B, ranks fit, nothing is NaN or infinite."""
    rank = adapter.manifest.rank
    if not is_sha256(adapter.manifest.base_weights) or rank < 1:
        raise AdapterError(_short(f"the manifest makes no sense: {adapter.manifest}"))
    if not adapter.tensors:
        raise AdapterError("the adapter has no tensors")
    for name, tensor in adapter.tensors.items():
        axis, partner = _place_in_pair(name)
        if partner not in adapter.tensors:
            raise AdapterError(f"tensor {_short(name)!r} is no half of a LoRA pair")
        if tensor.ndim != 2 or tensor.shape[axis] != rank:  # noqa: PLR2004  # a matrix
            raise AdapterError(
                f"tensor {_short(name)!r} is {tensor.shape}, which does not fit rank {rank}"
            )
        if not np.isfinite(tensor).all() or np.abs(tensor).max(initial=0) > LARGEST_VALUE:
            raise AdapterError(
                f"tensor {_short(name)!r} holds values that are not finite or beyond"
                f" {LARGEST_VALUE:g}"
            )


def _shape_of_rank(name: str, shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """A factor's shape, were its adapter of another rank."""
    axis, _ = _place_in_pair(name)
    return (*shape[:axis], rank, *shape[axis + 1 :])


def _place_in_pair(name: str) -> tuple[int, str]:
    """Which axis of a factor is the rank, and what its partner is called; empty if it has none."""
    for pair in FACTOR_PAIRS:
        for axis, ending in enumerate(pair):
            if name.endswith(ending):
                return axis, name.removesuffix(ending) + pair[1 - axis]
    return 0, ""


def _factors_only(content: bytes) -> bytes:
    """What PEFT wrote, without copies of the base and with bfloat16, unknown to numpy, as float32.

    Of an embedding or a head PEFT stores the base's weight beside the factors; it is frozen.

    Raises:
        ValueError: It is no safetensors file.
    """
    try:
        entries = deserialize(content)  # type: ignore[no-untyped-call]  # it has no types
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    kept = [(name, entry) for name, entry in entries if not name.endswith(_BASE_COPY)]
    if len(kept) == len(entries) and not any(entry["dtype"] == "BF16" for _, entry in kept):
        return content
    tensors = {}
    for name, entry in kept:
        if entry["dtype"] not in _FLOATS:
            raise ValueError(f"tensor {_short(name)!r} is {entry['dtype']}; save it as F32 or F16")
        values = np.frombuffer(entry["data"], _FLOATS[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = values
    return save(tensors, _metadata(content))


def _load_tensors(content: bytes) -> AdapterTensors:
    """The tensors of a safetensors file; ValueError if there is anything wrong with them."""
    try:
        tensors = load(content)
    except KeyError as error:  # safetensors knows types that numpy does not
        raise ValueError(f"its tensors are {error.args[0]}; save it as F32 or F16") from error
    except (SafetensorError, TypeError) as error:
        raise ValueError(str(error)) from error
    for name, tensor in tensors.items():
        if tensor.dtype not in (np.float16, np.float32):
            raise ValueError(f"tensor {_short(name)!r} is {tensor.dtype}; save it as F32 or F16")
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def _short(text: str) -> str:
    """A network's text for a message, which may go back over it: names can be megabytes long."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _metadata(content: bytes) -> dict[str, str]:
    """safetensors: eight bytes of length, then a JSON header with `__metadata__`.

    Only for what `_load_tensors` has read: the header's form is not checked again.
    """
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    return metadata


def _read_config(path: Path) -> dict[str, Any]:  # Any: PEFT's config is free-form JSON
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if int(config["r"]) < 1 or not math.isfinite(float(config["lora_alpha"])):
            raise ValueError(f"r = {config['r']!r}, lora_alpha = {config['lora_alpha']!r}")
    except FileNotFoundError:
        raise AdapterError(f"no such file: {path}; a PEFT adapter's folder was expected") from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise AdapterError(f"{path} is no PEFT LoRA configuration: {error!r}") from error
    for key, (supported, reason) in _SUPPORTED_CONFIG.items():
        if config.get(key) not in (supported, None):
            raise AdapterError(f"{path}: {key} = {config[key]!r}: {reason}")
    start = str(config.get("init_lora_weights")).lower()
    if start.startswith(_CHANGED_BASE):
        raise AdapterError(
            f"{path}: init_lora_weights = {start!r}: the base's weights were changed too; save the"
            " adapter converted to the base as it was"
        )
    return config
