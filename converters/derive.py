"""Making a small model of a large one, for families that have no small sibling.

Some of the large model's layers are kept; what they miss is mended first in closed form
(`layer_repair`), then by a short training (`healing`). Vocabulary, embeddings and head stay, so the
two share their tokens, and steering can add their logits.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import LlamaForCausalLM

from converters.gguf_to_torch import load_causal_lm, write_transformers_folder
from converters.healing import Lesson, Likeness, Schedule, heal, likeness
from converters.layer_repair import repair
from converters.layer_walk import hidden_states, states_after
from converters.model_to_gguf import convert_model
from converters.public_text import public_text
from converters.quantise import require_kind
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import ModelFileError, UsageError
from fedpt.files import sha256_bytes, write_json
from fedpt.gguf_file import read_gguf, weights_sha256
from fedpt.ids import Sha256
from fedpt.progress import OnProgress, Progress, ignore_progress

GGUF_NAME: Final = "model.gguf"
REPORT_NAME: Final = "derive.json"

_HELD_OUT: Final = 16
"""Sequences for the report: 2,048 tokens."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to derive; the defaults take some minutes for a model of 135 M parameters on 2 cores."""

    layers: int = 10
    repair_sequences: int = 160
    healing_sequences: int = 320
    healing_steps: int = 240
    sequence_tokens: int = 128
    batch: int = 2
    learning_rate: float = 6e-4
    kind: str = "Q8_0"
    seed: int = 0

    @property
    def sha256(self) -> Sha256:
        """Names the recipe: equal recipes make equal models."""
        return sha256_bytes(json.dumps(asdict(self)).encode())


@dataclass(frozen=True, slots=True)
class Derived:
    """A derived model: a transformers folder with its GGUF and a report inside."""

    folder: Path
    likeness: Likeness
    before_healing: Likeness

    @property
    def gguf(self) -> Path:
        """The file that llama.cpp serves."""
        return self.folder / GGUF_NAME


def derive(
    large: Path,
    folder: Path,
    recipe: Recipe,
    *,
    texts: Sequence[str] = (),
    on_progress: OnProgress = ignore_progress,
) -> Derived:
    """Derive a small model, or give the one that this recipe has made before.

    An interrupted derivation goes on from its last checkpoint.

    Args:
        large: The large model, GGUF.
        folder: Where the small one goes.
        recipe: How.
        texts: Public text like that which the model will meet; goes in besides Python's own.
        on_progress: Told of every step.

    Raises:
        ModelFileError: The large model cannot be used.
        UsageError: It has too few layers, or the folder holds something else.
        StorageError: The folder cannot be written.
    """
    require_kind(recipe.kind)
    folder = folder.absolute()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise UsageError(f"{folder} holds something else; choose a new or an empty folder")
    wanted = {
        "recipe": recipe.sha256,
        "texts": _digest(texts),
        "large": weights_sha256(read_gguf(large)),
    }
    if (done := _read_report(folder, wanted)) is not None:
        return done
    started = time.monotonic()
    torch.manual_seed(recipe.seed)
    on_progress(Progress(0, 1, "loading the large model"))
    whole = load_causal_lm(large)
    if not isinstance(whole, LlamaForCausalLM):
        raise ModelFileError(
            f"{large} is a {type(whole).__name__}; only models of the llama family can be thinned"
        )
    tokens = _tokens(large, texts, recipe)
    held_out, healing = tokens[:_HELD_OUT], tokens[_HELD_OUT:]
    kept = choose_layers(len(whole.model.layers), recipe.layers, find_sink(whole, held_out[:2]))
    small = thinned(whole, kept)
    on_progress(Progress(0, 1, f"mending {len(kept)} of {len(whole.model.layers)} layers"))
    goals = states_after(whole, healing, [*kept[1:], len(whole.model.layers)])
    mending = slice(recipe.repair_sequences)
    repair(small, [goal[mending] for goal in goals], healing[mending])
    before = likeness(small, whole, held_out)
    work = folder.with_name(f"{folder.name}.unfinished")
    schedule = Schedule(
        steps=recipe.healing_steps,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        checkpoint=work / f"{sha256_bytes(json.dumps(wanted).encode())[:12]}.pt",
    )
    heal(small, Lesson(healing, goals[-1]), schedule, on_progress=on_progress)
    after = likeness(small, whole, held_out)
    on_progress(Progress(1, 1, "writing"))
    write_transformers_folder(small, large, folder)
    convert_model(folder, folder / GGUF_NAME, kind=recipe.kind)
    report = {
        **wanted,
        "layers": kept,
        "parameters": sum(one.numel() for one in small.parameters()),
        "before_healing": asdict(before),
        "likeness": asdict(after),
        "seconds": time.monotonic() - started,
        "settings": asdict(recipe),
    }
    write_json(folder / REPORT_NAME, report)  # last: a folder with a report is complete
    shutil.rmtree(work, ignore_errors=True)
    return Derived(folder, after, before)


def choose_layers(depth: int, count: int, sink: int) -> list[int]:
    """Which layers to keep: the first three, the last, the sink, and others evenly on both sides.

    The first layers and the sink build up the few huge activations that all others rely on; the
    last turns hidden states into predictions; those in between are much alike. Two fifths of the
    others are taken from before the sink. On SmolLM2-135M this gives a KL of 2.5 after mending
    alone, where layers spread evenly give 2.9.

    Args:
        depth: Layers of the large model.
        count: Layers to keep.
        sink: See `find_sink`.

    Raises:
        UsageError: `count` is not between 4 and `depth`.
    """
    least = 4
    if not least <= count <= depth:
        raise UsageError(f"cannot keep {count} of {depth} layers; choose {least} to {depth}")
    fixed = list(dict.fromkeys((0, depth - 1, 1, 2, min(sink, depth - 1))))[:count]
    others = [layer for layer in range(3, depth - 1) if layer != sink]
    early = [layer for layer in others if layer < sink]
    late = [layer for layer in others if layer > sink]
    wanted = count - len(fixed)
    of_early = min(len(early), max(round(0.4 * wanted), wanted - len(late)))
    return sorted([*fixed, *_spread(early, of_early), *_spread(late, wanted - of_early)])


def find_sink(model: LlamaForCausalLM, tokens: torch.Tensor) -> int:
    """The layer past the third whose largest activation grows most over the layer before it."""
    with torch.no_grad():
        largest = [float(hidden.abs().max()) for hidden in hidden_states(model, tokens)][1:]
    candidates = range(min(3, len(largest) - 1), max(4, len(largest) - 2))
    return max(candidates, key=lambda layer: largest[layer] / largest[layer - 1])


def _spread(layers: Sequence[int], count: int) -> list[int]:
    """So many of `layers`, evenly, neither end preferred."""
    places = (np.arange(count) + 1) * (len(layers) + 1) / (count + 1) - 1
    return [layers[round(place)] for place in places]


def thinned(large: LlamaForCausalLM, kept: Sequence[int]) -> LlamaForCausalLM:
    """A copy of `large` with only the layers `kept`."""
    config = type(large.config)(**{**large.config.to_dict(), "num_hidden_layers": len(kept)})
    small = LlamaForCausalLM(config)
    state = large.state_dict()
    mine = {key: state[_key_in_large(key, kept)].clone() for key in small.state_dict()}
    small.load_state_dict(mine)
    small.tie_weights()
    return small.eval()


def _key_in_large(key: str, kept: Sequence[int]) -> str:
    """`model.layers.3.mlp.up_proj.weight` is `model.layers.<kept[3]>...` in the large model."""
    prefix = "model.layers."
    if not key.startswith(prefix):
        return key
    number, _, rest = key.removeprefix(prefix).partition(".")
    return f"{prefix}{kept[int(number)]}.{rest}"


def _tokens(large: Path, texts: Sequence[str], recipe: Recipe) -> torch.Tensor:
    """Text as rows of tokens `(N, T)`, ours and the caller's mixed.

    Raises:
        ModelFileError: There is too little.
    """
    rng = np.random.default_rng(recipe.seed)
    count = _HELD_OUT + recipe.healing_sequences
    with LlamaModel(large, vocabulary_only=True) as model:
        rows = _rows(model, public_text(rng), recipe.sequence_tokens)
        more = _rows(model, texts, recipe.sequence_tokens)[: count // 2]
    mixed = [*rows[: count - len(more)], *more]
    if len(mixed) < count:
        raise ModelFileError(f"text for {count} sequences is needed, there are {len(mixed)}")
    return torch.tensor([mixed[index] for index in rng.permutation(count)])


def _rows(model: LlamaModel, texts: Sequence[str], length: int) -> list[list[int]]:
    """All texts one after the other, cut into rows."""
    flat: list[int] = []
    for text in texts:
        flat += [*model.tokenize(text, special=True), model.end_token]
    return [flat[start : start + length] for start in range(0, len(flat) - length, length)]


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _read_report(folder: Path, wanted: dict[str, str]) -> Derived | None:
    """The finished model in a folder, if it is the one that is wanted."""
    try:
        report: dict[str, Any] = json.loads((folder / REPORT_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if any(report.get(key) != value for key, value in wanted.items()):
        return None
    return Derived(folder, Likeness(**report["likeness"]), Likeness(**report["before_healing"]))
