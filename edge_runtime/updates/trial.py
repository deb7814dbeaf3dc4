"""Trying a release before it is used, one function a kind.

Runs in a process of its own: what is tried may crash it, and the device goes on.
"""

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

from converters.adapter_to_gguf import convert_adapter
from edge_runtime.updates.canary import (
    Score,
    read_canary,
    require_answer,
    require_no_worse,
    require_round_trip,
    score,
)
from edge_runtime.updates.runtime_environment import try_runtime
from fedpt.adapters import adapter_from_bytes, require_base
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import ArtifactError, ReleaseError
from fedpt.releases import ADAPTER_FILE, CANARY_FILE, MODEL_FILE, TRUST_FILE, Manifest, Trust

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trial:
    """A release and what it is compared with."""

    manifest: Manifest
    folder: Path
    """Of the release."""
    small: Path
    """The model in use; need not be there."""
    adapter: Path | None
    """The adapter release in use, its blob."""
    tolerance: float


def try_release(trial: Trial) -> None:
    """Do what the device will do with it.

    Raises:
        ReleaseError: It does not work; says why.
    """
    attempt = {
        "model": _try_model,
        "adapter": _try_adapter,
        "runtime": lambda one: try_runtime(one.folder),
        "keys": _try_keys,
    }[trial.manifest.kind]
    try:
        attempt(trial)
    except ArtifactError as error:
        raise ReleaseError(f"the {trial.manifest.kind} release does not work: {error}") from error


def _try_model(trial: Trial) -> None:
    text = read_canary(trial.folder / CANARY_FILE)
    with LlamaModel(trial.folder / MODEL_FILE) as model:
        require_base("the release's model", trial.manifest.base_weights, model.weights)
        require_round_trip(model, text)
        new = score(model, text)
        require_no_worse(new, None, tolerance=0)  # else an answer would only blur the reason
        require_answer(model)
    old = _score_of(trial.small, text)
    if old is not None and old.vocabulary != new.vocabulary:
        _logger.warning("a model of a new family: adapters of the old one are dropped")
    require_no_worse(new, old, tolerance=trial.tolerance)
    _logger.info("model tried", extra={"nll": new.nll, "before": old.nll if old else None})


def _try_adapter(trial: Trial) -> None:
    with LlamaModel(trial.small) as model, tempfile.TemporaryDirectory() as temporary:
        text = read_canary(trial.folder / CANARY_FILE)
        new_gguf = _as_gguf(trial.folder / ADAPTER_FILE, model, Path(temporary) / "new.gguf")
        new = score(model, text, new_gguf)
        require_no_worse(new, None, tolerance=0)
        require_answer(model, new_gguf)
        old_gguf = None
        if trial.adapter is not None and _fits(trial.adapter, model):
            old_gguf = _as_gguf(trial.adapter, model, Path(temporary) / "old.gguf")
        require_no_worse(new, score(model, text, old_gguf), tolerance=trial.tolerance)


def _try_keys(trial: Trial) -> None:
    try:
        content = (trial.folder / TRUST_FILE).read_bytes()
    except OSError as error:
        raise ReleaseError(f"the keys release has no {TRUST_FILE}: {error.strerror}") from error
    if not any("keys" in one.kinds for one in Trust.from_json(content).keys):
        raise ReleaseError("it leaves no key that may sign the next keys: nobody could mend that")


def _score_of(path: Path, text: str) -> Score | None:
    """The model in use; one that does not even load is no measure."""
    try:
        with LlamaModel(path) as model:
            return score(model, text)
    except ArtifactError as error:
        _logger.warning("the model in use cannot be measured: %s", error)
        return None


def _as_gguf(blob: Path, model: LlamaModel, target: Path) -> Path:
    try:
        content = blob.read_bytes()
    except OSError as error:
        raise ReleaseError(f"cannot read {blob}: {error.strerror}") from error
    convert_adapter(adapter_from_bytes(content), model.file, target)
    return target


def _fits(blob: Path, model: LlamaModel) -> bool:
    try:
        stated = adapter_from_bytes(blob.read_bytes()).manifest.base_weights
    except (OSError, ArtifactError):
        return False
    return stated == model.weights
