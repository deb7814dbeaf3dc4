"""How positions turn queries and keys: rope settings of `config.json` to GGUF and back.

Old configurations have `rope_theta` and `rope_scaling`, new ones `rope_parameters`; GGUF has a few
keys, and tensors where every frequency has a factor of its own.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from converters.architectures.table import Architecture, Rotary
from converters.config_values import count, head_size
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufValue

Factors = npt.NDArray[np.float32]

FREQUENCIES: Final = "rope_freqs.weight"
LONG: Final = "rope_factors_long.weight"
SHORT: Final = "rope_factors_short.weight"
FACTOR_TENSORS: Final = (FREQUENCIES, LONG, SHORT)

_ORIGINAL_CONTEXT: Final = "original_max_position_embeddings"
_SAME: Final = 1e-5
"""Relative: factors that went through float32 once or twice."""


def rotary_metadata(
    config: Mapping[str, Any], architecture: Architecture
) -> dict[str, GgufValue]:  # Any: config.json is free-form, here and below
    """The settings as GGUF's keys.

    Raises:
        ModelFileError: llama.cpp does not compute them as transformers does.
    """
    rotary, key = architecture.rotary, architecture.key
    if rotary is None:
        return {}
    settings = _settings(config, rotary)
    size = head_size(config, architecture)
    metadata: dict[str, GgufValue] = {
        key("rope.dimension_count"): int(size * _partial(settings, rotary)),
        key("rope.freq_base"): float(settings["rope_theta"]),
    }
    if rotary.local_base is not None:
        metadata[key("rope.freq_base_swa")] = _local_base(config, rotary)
    match _kind(settings, rotary):
        case "linear":
            metadata[key("rope.scaling.type")] = "linear"
            metadata[key("rope.scaling.factor")] = _positive(settings, "factor")
        case "longrope":
            original = _original_context(config, settings)
            metadata[key("rope.scaling.original_context_length")] = original
            metadata[key("rope.scaling.attn_factor")] = _attention_factor(
                settings, count(config, architecture, "context_length"), original
            )
    return metadata


def factor_tensors(config: Mapping[str, Any], architecture: Architecture) -> dict[str, Factors]:
    """The tensors of factors that GGUF has for these settings, by name.

    Raises:
        ModelFileError: The settings make no sense.
    """
    rotary = architecture.rotary
    if rotary is None:
        return {}
    settings = _settings(config, rotary)
    pairs = int(head_size(config, architecture) * _partial(settings, rotary)) // 2
    match _kind(settings, rotary):
        case "llama3":
            return {FREQUENCIES: _llama3_factors(settings, pairs)}
        case "longrope":
            return {
                LONG: _listed_factors(settings, "long_factor", pairs),
                SHORT: _listed_factors(settings, "short_factor", pairs),
            }
    return {}


def rope_parameters(
    metadata: Mapping[str, GgufValue], architecture: Architecture, factors: Mapping[str, Factors]
) -> dict[str, Any] | None:
    """The settings of a GGUF file as `rope_parameters`; None for families without.

    Args:
        metadata: Of the file.
        architecture: Its family.
        factors: Those of `FACTOR_TENSORS` that it has.

    Raises:
        ModelFileError: transformers has no words for them.
    """
    rotary, key = architecture.rotary, architecture.key
    if rotary is None:
        return None
    base = metadata.get(key("rope.freq_base"), rotary.default_base)
    settings: dict[str, Any] = {"rope_type": "default", "rope_theta": base}
    scaling = metadata.get(key("rope.scaling.type"), "none")
    if FREQUENCIES in factors:
        settings |= _llama3_settings(factors[FREQUENCIES], float(str(base)))
    elif LONG in factors and SHORT in factors:
        settings |= {
            "rope_type": "longrope",
            "long_factor": factors[LONG].tolist(),
            "short_factor": factors[SHORT].tolist(),
            "attention_factor": metadata.get(key("rope.scaling.attn_factor"), 1.0),
            _ORIGINAL_CONTEXT: metadata[key("rope.scaling.original_context_length")],
        }
    elif scaling == "linear":
        factor = metadata.get(key("rope.scaling.factor"), 1.0)
        settings |= {"rope_type": "linear", "factor": factor} if factor != 1.0 else {}
    elif scaling != "none":
        raise ModelFileError(f"scaled rotary embeddings of the kind {scaling!r} are not supported")
    turning = metadata.get(key("rope.dimension_count"))
    size = metadata.get(key("attention.key_length"), turning)
    if rotary.partial and isinstance(turning, int) and isinstance(size, int) and turning != size:
        settings["partial_rotary_factor"] = turning / size
    if rotary.local_base is None:
        return settings
    local = metadata.get(key("rope.freq_base_swa"), rotary.local_base)
    return {
        "full_attention": settings,
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }


def _settings(config: Mapping[str, Any], rotary: Rotary) -> dict[str, Any]:
    """The settings of the layers that see everything, old spelling or new."""
    new: dict[str, Any] = config.get("rope_parameters") or {}
    new = new.get("full_attention", new)
    old: dict[str, Any] = config.get("rope_scaling") or {}
    if config.get("rope_theta"):
        old = {"rope_theta": config["rope_theta"]} | old
    settings: dict[str, Any] = {"rope_theta": rotary.default_base} | old | new
    if "partial_rotary_factor" in config:
        settings.setdefault("partial_rotary_factor", config["partial_rotary_factor"])
    return settings


def _local_base(config: Mapping[str, Any], rotary: Rotary) -> float:
    new = (config.get("rope_parameters") or {}).get("sliding_attention") or {}
    kind = new.get("rope_type", "default")
    if kind != "default":
        raise ModelFileError(f"rope_type {kind!r} of sliding layers is not supported")
    base: float = (
        new.get("rope_theta") or config.get("rope_local_base_freq") or rotary.local_base or 0.0
    )
    return float(base)


def _kind(settings: Mapping[str, Any], rotary: Rotary) -> str:
    kind = str(settings.get("rope_type") or settings.get("type") or "default")
    if kind == "su":  # what longrope was called first
        kind = "longrope"
    if kind != "default" and kind not in rotary.scalings:
        raise ModelFileError(
            f"rope_type {kind!r} is not supported here; supported:"
            f" {', '.join(sorted({'default', *rotary.scalings}))}"
        )
    return kind


def _partial(settings: Mapping[str, Any], rotary: Rotary) -> float:
    share = float(settings.get("partial_rotary_factor") or 1.0)
    if share != 1.0 and not rotary.partial:
        raise ModelFileError(f"partial_rotary_factor {share} is not supported for this family")
    return share


def _positive(settings: Mapping[str, Any], key: str) -> float:
    value = settings.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ModelFileError(f"config.json: rope {key} is {value!r}, a number was expected")
    return float(value)


def _original_context(config: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    found = config if config.get(_ORIGINAL_CONTEXT) else settings
    return int(_positive(found, _ORIGINAL_CONTEXT))


def _attention_factor(settings: Mapping[str, Any], context: int, original: int) -> float:
    """What rotated values are multiplied by; https://arxiv.org/abs/2402.13753."""
    if settings.get("attention_factor") is not None:
        return _positive(settings, "attention_factor")
    scale = _positive(settings, "factor") if settings.get("factor") else context / original
    return math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0


def _listed_factors(settings: Mapping[str, Any], key: str, pairs: int) -> Factors:
    values = settings.get(key)
    if not isinstance(values, list) or len(values) != pairs:
        raise ModelFileError(f"config.json: rope {key} is no list of {pairs} numbers")
    return np.array(values, np.float32)


def _llama3_factors(settings: Mapping[str, Any], pairs: int) -> Factors:
    """What each frequency is divided by, https://arxiv.org/abs/2407.21783.

    Short waves stay, long ones are divided by `factor`, those in between by something in between.
    """
    factor, low, high, original = (
        _positive(settings, key)
        for key in ("factor", "low_freq_factor", "high_freq_factor", _ORIGINAL_CONTEXT)
    )
    waves = _wave_lengths(float(settings["rope_theta"]), pairs)
    share = np.clip((original / waves - low) / (high - low), 0, 1)  # of the unscaled frequency
    return (1 / ((1 - share) / factor + share)).astype(np.float32)


def _llama3_settings(factors: Factors, base: float) -> dict[str, Any]:
    """The settings that give these factors.

    The factors depend on `original / low` and `original / high` only, so `low` can be one. The rest
    follows from two frequencies in between, on a line.

    Raises:
        ModelFileError: None give them.
    """
    factor = float(factors.max())
    usual = 4.0  # Llama 3's own `high`, taken where too few frequencies lie in between
    candidates = [(8192, usual)]
    between = (factors > 1) & (factors < factor)
    waves = _wave_lengths(base, len(factors))[between]
    shares = (1 / factors[between].astype(np.float64) - 1 / factor) / (1 - 1 / factor)
    if len(waves) > 1:
        slope, offset = np.polyfit(1 / waves, shares, 1)
        candidates.append((round(-slope / offset), float(np.round(1 - 1 / offset, 4))))
    elif len(waves) == 1:
        candidates.append((round(waves[0] * (1 + shares[0] * (usual - 1))), usual))
    for original, high in candidates:
        settings = {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": high,
            _ORIGINAL_CONTEXT: original,
        }
        if high > 1 and original > 0:
            again = _llama3_factors(settings | {"rope_theta": base}, len(factors))
            if np.allclose(again, factors, rtol=_SAME):
                return settings
    raise ModelFileError(f"the rotary factors in {FREQUENCIES} are none that transformers knows")


def _wave_lengths(base: float, pairs: int) -> npt.NDArray[np.float64]:
    """Of each frequency, in tokens."""
    return 2 * np.pi * base ** (np.arange(pairs) / pairs)
