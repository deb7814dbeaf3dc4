"""SentencePiece's BPE between `tokenizer.json` and GGUF's metadata, both ways.

SentencePiece joins the two neighbours whose union has the best score; a `tokenizer.json` has a
list of merges instead, best first. So a token's score is the place of its first merge, and the
merges are all ways to cut a token in two tokens, best score first. Spaces are written as U+2581,
and characters without a token as byte tokens.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from converters.special_tokens import (
    BYTE,
    NORMAL,
    UNKNOWN,
    UNUSED,
    added_tokens,
    ends_processor,
    listed,
    merge_text,
    special_token,
    typed_tokens,
)
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile, GgufValue

_SPACE: Final = "\u2581"
_BYTE_TOKEN: Final = re.compile(r"<0x[0-9A-F]{2}>")
_NEVER: Final = -1e9
"""Score of a token that no merge makes: as an added token it is found before any merging."""


def piece_metadata(
    tokenizer: Mapping[str, Any], tokens: list[str], types: list[int]
) -> dict[str, GgufValue]:
    """Scores and types of the tokens of a `tokenizer.json`, and whether text begins with a space.

    Args:
        tokenizer: The content of `tokenizer.json`, a BPE model with `byte_fallback`.
        tokens: By id; see `converters.special_tokens.token_table`.
        types: Of each.

    Raises:
        ValueError: It is damaged. Callers name the file.
    """
    places: dict[str, float] = {}
    for place, merge in enumerate(tokenizer["model"]["merges"]):
        places.setdefault(merge_text(merge).replace(" ", ""), -float(place))
    unknown = tokenizer["model"].get("unk_token")
    kinds = [_kind(token, kind, unknown) for token, kind in zip(tokens, types, strict=True)]
    # a single character is never the result of a merge, so its score does not matter
    scores = [places.get(token, 0.0 if len(token) == 1 else _NEVER) for token in tokens]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": list(scores),
        "tokenizer.ggml.token_type": list(kinds),
        "tokenizer.ggml.add_space_prefix": _adds_space(tokenizer),
    }


def piece_json(file: GgufFile) -> dict[str, Any]:
    """A GGUF file's tokenizer as the content of a `tokenizer.json`.

    Raises:
        ModelFileError: It is damaged.
    """
    tokens = typed_tokens(file)
    vocabulary = {
        token: token_id for token_id, (token, kind) in enumerate(tokens) if kind != UNUSED
    }
    prefix = bool(file.metadata.get("tokenizer.ggml.add_space_prefix", True))
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    back = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
    first = [{"type": "Prepend", "prepend": _SPACE}] if prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(tokens),
        "normalizer": {"type": "Sequence", "normalizers": [*first, spaces]},
        "pre_tokenizer": None,
        "post_processor": ends_processor(file, adds_bos=True),
        "decoder": {
            "type": "Sequence",
            "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": special_token(file, "tokenizer.ggml.unknown_token_id"),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": _merges(file, tokens, vocabulary),
        },
    }


def _kind(token: str, kind: int, unknown: str | None) -> int:
    if token == unknown:
        return UNKNOWN
    return BYTE if kind == NORMAL and _BYTE_TOKEN.fullmatch(token) else kind


def _adds_space(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a space goes before a text, by the normaliser or by the pre-tokenizer."""
    normalizer = tokenizer.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    if any(step.get("type") == "Prepend" for step in steps):
        return True
    pre_tokenizer = tokenizer.get("pre_tokenizer") or {}
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return any(
        step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never"
        for step in steps
    )


def _merges(
    file: GgufFile, tokens: list[tuple[str, int]], vocabulary: Mapping[str, int]
) -> list[tuple[str, str]]:
    """All ways to cut a token in two, best score first."""
    scores = listed(file, "scores")
    if len(scores) != len(tokens):
        raise ModelFileError(f"{file.path}: not all of its tokens have a score")
    parts = {token: token_id for token_id, (token, kind) in enumerate(tokens) if kind == NORMAL}
    ranked = sorted(
        (token_id for token, token_id in parts.items() if len(token) > 1),
        key=lambda token_id: -float(str(scores[token_id])),
    )
    _require_told_apart(file, [float(str(scores[token_id])) for token_id in ranked])
    merges: list[tuple[str, str]] = []
    for token_id in ranked:
        token = tokens[token_id][0]
        cuts = [(token[:place], token[place:]) for place in range(1, len(token))]
        known = [cut for cut in cuts if cut[0] in parts and cut[1] in parts]
        merges += sorted(known, key=lambda cut: (vocabulary[cut[0]], vocabulary[cut[1]]))
    return merges


def _require_told_apart(file: GgufFile, scores: list[float]) -> None:
    """Refuse scores that are all the same: they were lost, and merging would be guesswork."""
    if len(scores) > 1 and all(one == two for one, two in pairwise(scores)):
        raise ModelFileError(f"{file.path}: its tokens all have the same score")
