"""Tokenizers between a transformers folder's files and GGUF's metadata, both ways.

Two kinds: byte-level BPE (`converters.byte_level_tokens`) and SentencePiece's BPE
(`converters.sentence_pieces`). That both sides then give the same ids is proved, not assumed:
`converters.token_ids`.
"""

import json
from pathlib import Path
from typing import Any, Final

from converters.byte_level_tokens import byte_level_json, byte_level_metadata
from converters.checkpoint import read_json
from converters.sentence_pieces import piece_json, piece_metadata
from converters.special_tokens import settings_metadata, token_table, tokenizer_config
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile, GgufValue

_KINDS: Final = {"gpt2": byte_level_json, "llama": piece_json}
"""By `tokenizer.ggml.model`."""


def tokenizer_metadata(
    folder: Path,
    *,
    row_count: int,
    pre: str | None = None,
    rowless: frozenset[str] = frozenset(),
) -> dict[str, GgufValue]:
    """A transformers folder's tokenizer as GGUF metadata.

    Args:
        folder: Holds `tokenizer.json`, and `tokenizer_config.json` and `chat_template.jinja` if
            the model has them.
        row_count: Rows of the embedding matrix; those after the last token become unused tokens.
        pre: llama.cpp's name of the pre-tokenizer, if it is to be something else than the one
            found in `tokenizer.json`.
        rowless: See `converters.architectures.table.Architecture`.

    Raises:
        ModelFileError: A file is missing or damaged, or the tokenizer is of another kind.
    """
    path = folder / "tokenizer.json"
    if not path.exists() and (folder / "tokenizer.model").exists():
        raise ModelFileError(
            f"{folder} has tokenizer.model only; load it with transformers' AutoTokenizer and save"
            " it, which writes tokenizer.json"
        )
    tokenizer = read_json(path)
    try:
        _require_known(tokenizer["model"])
        tokens, types = token_table(tokenizer, row_count, rowless)
        metadata: dict[str, GgufValue] = {
            "tokenizer.ggml.tokens": list(tokens),
            "tokenizer.ggml.token_type": list(types),
            **_kind_metadata(tokenizer, tokens, types, pre),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(f"cannot use {path}: {error}") from error
    return metadata | settings_metadata(folder, tokenizer, tokens)


def write_tokenizer_files(file: GgufFile, folder: Path) -> None:
    """Write the tokenizer of a GGUF file as `tokenizer.json` and `tokenizer_config.json`.

    Raises:
        ModelFileError: The tokenizer is of another kind than those known here.
        OSError: A file cannot be written. `fedpt.files.folder_written_aside` translates it.
    """
    content = tokenizer_json(file)
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    text = json.dumps(tokenizer_config(file), indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def tokenizer_json(file: GgufFile) -> str:
    """The tokenizer of a GGUF file as the text of a `tokenizer.json`.

    Raises:
        ModelFileError: It is of another kind than those known here, or damaged.
    """
    model = str(file.metadata.get("tokenizer.ggml.model"))
    if model not in _KINDS:
        raise ModelFileError(
            f"{file.path}: the tokenizer {model!r} is not supported; supported: {', '.join(_KINDS)}"
        )
    return json.dumps(_KINDS[model](file), ensure_ascii=False)


def _require_known(model: dict[str, Any]) -> None:  # Any: free-form JSON, here and below
    if model.get("type") != "BPE":
        raise ValueError(
            f"its model is {model.get('type')!r}; supported are byte-level BPE and SentencePiece's"
            " BPE with byte fallback"
        )


def _kind_metadata(
    tokenizer: dict[str, Any], tokens: list[str], types: list[int], pre: str | None
) -> dict[str, GgufValue]:
    """What only one kind of tokenizer has."""
    if tokenizer["model"].get("byte_fallback"):
        return piece_metadata(tokenizer, tokens, types)
    return byte_level_metadata(tokenizer, pre)
