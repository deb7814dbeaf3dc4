"""Whether GGUF files say what their source says: perplexity, KL, agreement, on a given text.

A window of the text at a time goes through the source and then through every file, so memory holds
the models and one window's logits. How it is shown is `converters.verify_report`.
"""

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from converters.fidelity import Fidelity
from converters.hub import local_model
from converters.logit_sources import GgufLogits, LogitSource, TorchLogits
from converters.quantise import kind_of
from converters.text_windows import read_text, windows
from fedpt.errors import DataFileError, VocabularyMismatchError
from fedpt.progress import OnProgress, Progress, ignore_progress
from fedpt.vocabulary import require_same_vocabulary

_DEFAULT_TEXT: Final = "verify_text.txt"


@dataclass(frozen=True, slots=True)
class Verified:
    """One file, compared."""

    path: Path
    kind: str
    size_bytes: int
    fidelity: Fidelity


@dataclass(frozen=True, slots=True)
class Verification:
    """All files, compared with one source on one text."""

    source: str
    tokens: int
    files: tuple[Verified, ...]

    @property
    def source_perplexity(self) -> float:
        """Of the text under the source."""
        return self.files[0].fidelity.reference_perplexity


def verify(
    paths: Sequence[Path],
    source: Path,
    text: Path | None = None,
    *,
    on_progress: OnProgress = ignore_progress,
) -> Verification:
    """Compare GGUF models with what they were made from.

    Args:
        paths: The files; all are held in memory at a time.
        source: A transformers folder (computed by torch), a GGUF file (by llama.cpp), or a
            repository on the hub.
        text: What to compare on; None: a text in 14 languages that comes with this package.
        on_progress: Told of every window.

    Raises:
        ModelFileError: A model is missing or cannot be used.
        VocabularyMismatchError: A file and the source have other tokens.
        DataFileError: The text is missing, or too short to say anything.
    """
    content = read_text(text) if text else default_text()
    with ExitStack() as stack:
        reference = _open_source(source, stack)
        models = [stack.enter_context(GgufLogits(path)) for path in paths]
        for model in models:
            require_same_vocabulary(model.vocabulary, reference.vocabulary)
        tokens = _tokens(content, reference, models)
        begin = models[0].model.begin_token
        results = [Fidelity() for _ in models]
        size = min(model.window for model in models)
        texts = list(windows(tokens, size, begin=begin))
        for place, window in enumerate(texts):
            on_progress(Progress(place, len(texts), f"{place} of {len(texts)} windows"))
            rows = reference.rows(window).copy()
            for model, result in zip(models, results, strict=True):
                result.add(rows, model.rows(window), window[1:])
        on_progress(Progress(len(texts), len(texts)))
        return Verification(
            str(source),
            results[0].positions,
            tuple(
                Verified(path, kind_of(model.model.file), path.stat().st_size, result)
                for path, model, result in zip(paths, models, results, strict=True)
            ),
        )


def default_text() -> str:
    """The text that comes with this package."""
    return (files("converters") / _DEFAULT_TEXT).read_text(encoding="utf-8")


def _open_source(source: Path, stack: ExitStack) -> LogitSource:
    found = local_model(source)
    if found.is_file():
        return stack.enter_context(GgufLogits(found))
    return stack.enter_context(nullcontext(TorchLogits(found)))


def _tokens(text: str, reference: LogitSource, models: Sequence[GgufLogits]) -> list[int]:
    """The text's ids, which all must agree on."""
    tokens = reference.tokenize(text)
    if len(tokens) < 2:  # noqa: PLR2004  # one to begin with, one to foretell
        raise DataFileError(f"the text has {len(tokens)} tokens, which is nothing to compare on")
    for model in models:
        others = model.tokenize(text)
        if others != tokens:
            pairs = enumerate(zip([*tokens, None], [*others, None], strict=False))
            place, (theirs, ours) = next((p, pair) for p, pair in pairs if pair[0] != pair[1])
            raise VocabularyMismatchError(
                f"{model.model.file.path} cuts the text otherwise than its source: token {place} is"
                f" {ours} there and {theirs} in the source"
            )
    return tokens
