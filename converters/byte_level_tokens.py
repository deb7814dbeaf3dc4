"""Byte-level BPE between `tokenizer.json` and GGUF's metadata, both ways.

Where text is cut before merging is told by `converters.pre_tokenizers`; what all tokenizers have in
common is `converters.special_tokens`.
"""

from collections.abc import Mapping
from typing import Any

from converters.pre_tokenizers import PRE_TOKENIZERS, SPLITTING_BYTES, find_pre
from converters.special_tokens import (
    UNUSED,
    added_tokens,
    ends_processor,
    listed,
    merge_text,
    typed_tokens,
)
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile, GgufValue


def byte_level_metadata(tokenizer: Mapping[str, Any], pre: str | None) -> dict[str, GgufValue]:
    """The merges of a `tokenizer.json` and llama.cpp's name of its pre-tokenizer.

    Args:
        tokenizer: The content of `tokenizer.json`.
        pre: That name, if it is to be something else than the one found.

    Raises:
        ValueError: It cuts text in a way not known here, or is damaged. Callers name the file.
    """
    model = tokenizer["model"]
    pre = pre or find_pre(
        tokenizer.get("pre_tokenizer") or {}, ignore_merges=bool(model.get("ignore_merges"))
    )
    if pre is None:
        raise ValueError(
            "it cuts text in a way not known here; if llama.cpp has a name for it, give that with"
            f" --pre (known: {', '.join(PRE_TOKENIZERS)})"
        )
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.merges": [merge_text(merge) for merge in model["merges"]],
        "tokenizer.ggml.add_space_prefix": False,
    }


def byte_level_json(file: GgufFile) -> dict[str, Any]:
    """A GGUF file's tokenizer as the content of a `tokenizer.json`.

    Raises:
        ModelFileError: Its pre-tokenizer is not known here, or it is damaged.
    """
    pre = str(file.metadata.get("tokenizer.ggml.pre"))
    if pre not in PRE_TOKENIZERS:
        raise ModelFileError(
            f"{file.path}: the tokenizer 'gpt2' with pre {pre!r} is not supported; supported:"
            f" {', '.join(PRE_TOKENIZERS)}"
        )
    definition, tokens = PRE_TOKENIZERS[pre], typed_tokens(file)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(tokens),
        "normalizer": definition.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": definition.steps},
        "post_processor": ends_processor(file, adds_bos=definition.adds_bos)
        or SPLITTING_BYTES | {"trim_offsets": False},
        "decoder": SPLITTING_BYTES,
        "model": {
            "type": "BPE",
            "ignore_merges": definition.ignore_merges,
            "vocab": {
                token: token_id for token_id, (token, kind) in enumerate(tokens) if kind != UNUSED
            },
            "merges": [str(merge).split(" ", 1) for merge in listed(file, "merges")],
        },
    }
