"""What a file or folder is, from headers alone: for people in one screen, for programs as JSON.

No weights are read, so a file of many gigabytes takes no longer than its vocabulary.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from converters.checkpoint import Checkpoint, open_checkpoint, read_json
from converters.quantise import kind_of
from converters.special_tokens import chat_template
from fedpt.errors import ModelFileError
from fedpt.gguf_file import BASE_WEIGHTS_KEY, WEIGHTS_KEY, GgufFile, read_gguf
from fedpt.gguf_types import GGML_TYPES
from fedpt.vocabulary import vocabulary_of

_MB: Final = 1e6
_LONG_BLOCK: Final = 256
_TEMPLATE: Final = "tokenizer.chat_template"
_TEMPLATE_SHOWN: Final = 72
_KNOWN_PREFIXES: Final = ("general.", "tokenizer.", "fedpt.", "adapter.", "quantize.", "split.")
_FIRST: Final = ".lora_a"
_NOT_STATED: Final = "not stated"


@dataclass(frozen=True, slots=True)
class TypeUse:
    """How much of a file is stored as one type."""

    tensors: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found out."""

    facts: Mapping[str, Any]  # Any: JSON values
    types: Mapping[str, TypeUse] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:  # Any: as above
        """For programs."""
        types = {
            name: {"tensors": use.tensors, "size_bytes": use.size_bytes}
            for name, use in self.types.items()
        }
        return {**self.facts, "types": types, "warnings": list(self.warnings)}

    def as_text(self) -> str:
        """For people."""
        width = max(map(len, self.facts), default=0)
        lines = [
            f"{name.replace('_', ' '):{width}}  {_shown(value)}"
            for name, value in self.facts.items()
            if value is not None
        ]
        lines += [
            f"{'types' if place == 0 else '':{width}}  {name:8} {use.tensors:5} tensors"
            f" {use.size_bytes / _MB:10.1f} MB"
            for place, (name, use) in enumerate(self.types.items())
        ]
        return "\n".join([*lines, *(f"warning: {one}" for one in self.warnings)])


def inspect(path: Path) -> Inspection:
    """Say what lies at `path`.

    Raises:
        ModelFileError: There is nothing, or nothing that can be read.
    """
    if not path.is_dir():
        file = read_gguf(path)
        is_adapter = file.metadata.get("general.type") == "adapter"
        return _adapter_file(file) if is_adapter else _model_file(file)
    if (path / "adapter_config.json").exists():
        return _adapter_folder(path)
    if (path / "config.json").exists():
        return _model_folder(open_checkpoint(path, name=path.resolve().name))
    raise ModelFileError(f"{path} has neither config.json nor adapter_config.json")


def _model_file(file: GgufFile) -> Inspection:
    has_tokens = "tokenizer.ggml.tokens" in file.metadata
    vocabulary = vocabulary_of(file) if has_tokens else None
    template = str(file.metadata.get(_TEMPLATE, ""))
    facts = {
        "file": str(file.path),
        "what": "GGUF model",
        "name": file.name,
        "architecture": file.architecture,
        "type": kind_of(file),
        "size_bytes": file.path.stat().st_size,
        "parameters": _parameters(tensor.shape for tensor in file.tensors.values()),
        **_hyperparameters(file),
        "tokenizer": _tokenizer(file.metadata),
        "vocabulary": len(vocabulary.tokens) if vocabulary else None,
        "chat_template": _first_line(template),
        "weights": file.metadata.get(WEIGHTS_KEY, _NOT_STATED),
        "vocabulary_sha256": vocabulary.sha256 if vocabulary else None,
        "importance_matrix": file.metadata.get("quantize.imatrix.entries_count"),
    }
    return Inspection(facts, _types_of_file(file), tuple(_model_warnings(file, template)))


def _hyperparameters(file: GgufFile) -> dict[str, Any]:  # Any: JSON values, here and below
    names = {
        "layers": "block_count",
        "context": "context_length",
        "hidden_size": "embedding_length",
        "feed_forward": "feed_forward_length",
        "heads": "attention.head_count",
        "key_value_heads": "attention.head_count_kv",
    }
    return {
        ours: file.metadata.get(f"{file.architecture}.{theirs}") for ours, theirs in names.items()
    }


def _model_warnings(file: GgufFile, template: str) -> list[str]:
    warnings = []
    if not template:
        warnings.append("no chat template: questions cannot be put as the model learned them")
    if "tokenizer.ggml.tokens" not in file.metadata:
        warnings.append("no tokenizer")
    if WEIGHTS_KEY not in file.metadata:
        warnings.append(
            f"{WEIGHTS_KEY} is not stated, so an adapter's base is told by hashing all tensors"
        )
    return warnings + _fallback_warnings(file) + _key_warnings(file)


def _fallback_warnings(file: GgufFile) -> list[str]:
    """What a type of long blocks has become where rows are no whole blocks."""
    kind = kind_of(file)
    has_long_blocks = kind.startswith(("IQ", "TQ")) or "_K" in kind
    if not has_long_blocks or kind == "IQ4_NL":
        return []
    matrices = [one for one in file.tensors.values() if len(one.shape) > 1]
    others = {GGML_TYPES[one.ggml_type].name for one in matrices if one.shape[-1] % _LONG_BLOCK}
    count = sum(one.shape[-1] % _LONG_BLOCK > 0 for one in matrices)
    if not count:
        return []
    return [
        f"{count} of {len(matrices)} matrices are {', '.join(sorted(others))} instead of {kind}'s"
        f" types: their rows are no multiple of {_LONG_BLOCK}"
    ]


def _key_warnings(file: GgufFile) -> list[str]:
    prefixes = (*_KNOWN_PREFIXES, f"{file.architecture}.")
    unknown = [key for key in file.metadata if not key.startswith(prefixes)]
    return [f"unknown keys: {', '.join(unknown[:5])}{' …' * (len(unknown) > 5)}"] if unknown else []  # noqa: PLR2004  # a line's worth


def _adapter_file(file: GgufFile) -> Inspection:
    firsts = [one for one in file.tensors.values() if one.name.endswith(_FIRST)]
    ranks = sorted({min(one.shape) for one in firsts})
    alpha = file.metadata.get("adapter.lora.alpha")
    facts = {
        "file": str(file.path),
        "what": "GGUF adapter (LoRA)",
        "name": file.metadata.get("general.name"),
        "architecture": file.architecture,
        "size_bytes": file.path.stat().st_size,
        "parameters": _parameters(tensor.shape for tensor in file.tensors.values()),
        "rank": ranks[0] if len(ranks) == 1 else ranks,
        "alpha": alpha,
        "changes": f"{len(firsts)} matrices",
        "base": file.metadata.get(BASE_WEIGHTS_KEY, _NOT_STATED),
    }
    warnings = [] if BASE_WEIGHTS_KEY in file.metadata else ["it does not say which base it is for"]
    return Inspection(facts, _types_of_file(file), (*warnings, *_key_warnings(file)))


def _model_folder(checkpoint: Checkpoint) -> Inspection:
    folder, config = checkpoint.folder, checkpoint.config
    tokenizer = _json_or_empty(folder / "tokenizer.json")
    template = chat_template(folder, _json_or_empty(folder / "tokenizer_config.json")) or ""
    facts = {
        "file": str(folder),
        "what": "transformers folder",
        "architecture": ", ".join(map(str, config.get("architectures") or ["not stated"])),
        "size_bytes": sum(one.size_bytes for one in checkpoint.tensors.values()),
        "parameters": _parameters(tensor.shape for tensor in checkpoint.tensors.values()),
        "layers": config.get("num_hidden_layers", config.get("n_layer")),
        "context": config.get("max_position_embeddings", config.get("n_positions")),
        "hidden_size": config.get("hidden_size", config.get("n_embd")),
        "heads": config.get("num_attention_heads", config.get("n_head")),
        "key_value_heads": config.get("num_key_value_heads"),
        "tokenizer": (tokenizer.get("model") or {}).get("type"),
        "vocabulary": config.get("vocab_size"),
        "chat_template": _first_line(template),
    }
    warnings = [] if template else ["no chat template"]
    if not tokenizer:
        warnings.append("no tokenizer.json")
    uses = _uses((one.dtype, one.size_bytes) for one in checkpoint.tensors.values())
    return Inspection(facts, uses, tuple(warnings))


def _adapter_folder(folder: Path) -> Inspection:
    config = read_json(folder / "adapter_config.json")
    weights = folder / "adapter_model.safetensors"
    facts = {
        "file": str(folder),
        "what": f"PEFT adapter ({config.get('peft_type')})",
        "size_bytes": weights.stat().st_size if weights.exists() else 0,
        "rank": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "rank_stabilised": config.get("use_rslora"),
        "changes": ", ".join(sorted(map(str, config.get("target_modules") or []))),
        "base": config.get("base_model_name_or_path"),
        "base_weights": config.get("fedpt_base_weights", _NOT_STATED),
    }
    checks = {
        "it has no adapter_model.safetensors": not weights.exists(),
        "DoRA: llama.cpp cannot compute it": config.get("use_dora"),
        "modules_to_save: llama.cpp's adapters hold none": config.get("modules_to_save"),
    }
    return Inspection(facts, {}, tuple(warning for warning, is_so in checks.items() if is_so))


def _types_of_file(file: GgufFile) -> dict[str, TypeUse]:
    pairs = ((GGML_TYPES[one.ggml_type].name, one.size_bytes) for one in file.tensors.values())
    return _uses(pairs)


def _uses(pairs: Iterable[tuple[str, int]]) -> dict[str, TypeUse]:
    """The types, the one with most bytes first."""
    uses: dict[str, TypeUse] = {}
    for name, size in pairs:
        before = uses.get(name, TypeUse(0, 0))
        uses[name] = TypeUse(before.tensors + 1, before.size_bytes + size)
    return dict(sorted(uses.items(), key=lambda item: -item[1].size_bytes))


def _parameters(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(map(math.prod, shapes))


def _tokenizer(metadata: Mapping[str, Any]) -> str | None:
    parts = [metadata.get(f"tokenizer.ggml.{part}") for part in ("model", "pre")]
    return " ".join(str(part) for part in parts if part) or None


def _first_line(template: str) -> str | None:
    """As much of a chat template as fits on a line."""
    lines = template.strip().splitlines()
    if not lines:
        return None
    is_cut = len(lines) > 1 or len(lines[0]) > _TEMPLATE_SHOWN
    return lines[0][:_TEMPLATE_SHOWN] + (" …" if is_cut else "")


def _json_or_empty(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _shown(value: Any) -> str:
    match value:
        case bool() | str() | float():
            return str(value)
        case int():
            return f"{value:,}"
        case _:
            return json.dumps(value)
