"""A model quantised as somebody wishes: by type, size or board, calibrated, some tensors otherwise.

Puts together what `converters.model_to_gguf`, `converters.importance`, `converters.quantise_choice`
and `converters.quantise` do.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from converters.gguf_output import FILE_TYPES
from converters.hub import local_model
from converters.model_to_gguf import convert_model
from converters.quantise import (
    Adjustments,
    Forecast,
    foresee,
    parse_overrides,
    quantise,
    require_kind,
)
from converters.quantise_choice import choose_for_board, choose_for_size, parse_size
from fedpt.errors import ModelFileError, UsageError
from fedpt.files import written_aside
from fedpt.gguf_file import GgufFile, read_gguf, weights_sha256
from fedpt.progress import OnProgress, ignore_progress

_DEFAULT_KIND: Final = "F16"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the file should be; at most one of `kind`, `target_size` and `board`."""

    kind: str | None = None
    target_size: str | None = None
    board: str | None = None
    overrides: tuple[str, ...] = ()
    """Each `REGEX=TYPE`."""
    calibration: Path | None = None
    """Text for the importance matrix."""

    @property
    def is_plain(self) -> bool:
        """Whether `converters.model_to_gguf.convert_model` does all of it."""
        return not (self.target_size or self.board or self.overrides or self.calibration)


def quantise_model(
    source: Path,
    target: Path,
    wish: Wish,
    *,
    pre: str | None = None,
    on_progress: OnProgress = ignore_progress,
    on_note: Callable[[str], None] = lambda _: None,
) -> str:
    """Write `source` as the GGUF file `target`, whole or not at all.

    Args:
        source: A transformers folder, a GGUF file, or the name of a repository on the hub.
        target: The file to write.
        wish: What it should be.
        pre: See `converters.tokenizer.tokenizer_metadata`.
        on_progress: Told how far it is.
        on_note: Told, before the quantising, which type was chosen and why, and which tensors fall
            back to what.

    Returns:
        The type that was written.

    Raises:
        UsageError: The wish contradicts itself or cannot be granted; says what can.
        ModelFileError: See `convert_model`.
        DataFileError: The calibration text cannot be used.
        StorageError: The target cannot be written.
    """
    _require_one_wish(wish)
    kind = wish.kind or _DEFAULT_KIND
    if wish.is_plain and kind in FILE_TYPES:  # needs no libllama, and no copy in between
        convert_model(source, target, kind=kind, pre=pre, on_progress=on_progress)
        return kind
    overrides = parse_overrides(wish.overrides, "" if wish.target_size or wish.board else kind)
    with _as_gguf(source, target.parent, pre, on_progress) as lossless:
        file = read_gguf(lossless)
        if file.metadata.get("general.type", "model") != "model":
            raise ModelFileError(f"{source} is no model but: {file.metadata['general.type']}")
        adjustments = Adjustments(overrides)
        if wish.calibration:
            from converters.importance import importance_of  # torch

            importance = importance_of(file, wish.calibration, on_progress)
            adjustments = Adjustments(overrides, importance)
        forecast = _forecast(file, wish, adjustments, on_note)
        require_possible(forecast)
        for note in fallback_notes(forecast):
            on_note(note)
        with written_aside(target) as aside:
            weights = weights_sha256(file)
            quantise(lossless, aside, forecast.kind, weights=weights, adjustments=adjustments)
    return forecast.kind


def require_possible(forecast: Forecast) -> None:
    """Refuse what libllama would refuse only after minutes.

    Raises:
        UsageError: The type needs an importance matrix.
    """
    if forecast.needs_importance:
        raise UsageError(
            f"{forecast.kind} needs an importance matrix (for {forecast.needs_importance}); give"
            " calibration text with --imatrix TEXT.txt"
        )


def fallback_notes(forecast: Forecast) -> list[str]:
    """One line for each pair of types: what is stored otherwise than the type says."""
    counts = Counter((one.wanted, one.stored, one.columns) for one in forecast.fallbacks)
    return [
        f"{count} tensor{'s' if count > 1 else ''} will be {stored} instead of {wanted}: rows of"
        f" {columns} values are no whole blocks"
        for (wanted, stored, columns), count in counts.most_common()
    ]


def _require_one_wish(wish: Wish) -> None:
    given = [name for name in (wish.kind, wish.target_size, wish.board) if name]
    if len(given) > 1:
        raise UsageError("give one of --type, --target-size and --board")
    if wish.kind:
        require_kind(wish.kind)
    if wish.target_size:
        parse_size(wish.target_size)


@contextmanager
def _as_gguf(
    source: Path, workspace: Path, pre: str | None, on_progress: OnProgress
) -> Iterator[Path]:
    """The source as a GGUF file: itself, or one that holds it exactly and is gone afterwards."""
    found = local_model(source)
    if found.is_file():
        yield found
        return
    workspace.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace, prefix=".fedpt-convert-") as folder:
        lossless = Path(folder) / "lossless.gguf"
        convert_model(source, lossless, kind="F32", pre=pre, on_progress=on_progress)
        yield lossless


def _forecast(
    file: GgufFile, wish: Wish, adjustments: Adjustments, on_note: Callable[[str], None]
) -> Forecast:
    if wish.board:
        choice = choose_for_board(file, wish.board, adjustments)
    elif wish.target_size:
        choice = choose_for_size(file, parse_size(wish.target_size), adjustments)
    else:
        return foresee(file, wish.kind or _DEFAULT_KIND, adjustments)
    on_note(f"{choice.forecast.kind}: {choice.reason}")
    return choice.forecast
