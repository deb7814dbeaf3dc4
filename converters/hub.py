"""Fetching a model's folder from the Hugging Face hub; the only place that uses a network."""

import re
from pathlib import Path
from typing import Final

from fedpt.errors import ModelFileError

_REPOSITORY: Final = re.compile(r"[\w.-]+/[\w.-]+")
_WANTED: Final = ["*.json", "*.safetensors", "*.jinja"]


def local_model(source: Path) -> Path:
    """`source` if it exists; else, if it looks like `owner/name`, the hub's folder of that name.

    Raises:
        ModelFileError: It is neither here nor on the hub, or the hub cannot be reached.
    """
    if source.exists():
        return source
    if not _REPOSITORY.fullmatch(str(source)):
        raise ModelFileError(f"no such model: {source}")
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError:
        raise ModelFileError(
            f"no such folder: {source}; to fetch it from the hub: pip install huggingface_hub"
        ) from None
    try:
        return Path(snapshot_download(str(source), allow_patterns=_WANTED))
    except Exception as error:  # HTTP client errors of several libraries
        reason = str(error).strip().partition("\n")[0]
        raise ModelFileError(
            f"no such folder: {source}, and it could not be fetched from the hub: {reason}"
        ) from error
