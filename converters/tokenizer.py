"""Byte-level BPE tokenizers between `tokenizer.json` and GGUF's metadata, both ways.

Where text is cut before merging is told by `converters.pre_tokenizers`. That both sides then give
the same ids is proved, not assumed: `converters.token_ids`. SentencePiece tokenizers are not
supported.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from converters.checkpoint import read_json
from converters.pre_tokenizers import PRE_TOKENIZERS, SPLITTING_BYTES, PreTokenizer, find_pre
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile, GgufValue

_NORMAL: Final = 1
_CONTROL: Final = 3
_USER_DEFINED: Final = 4
_UNUSED: Final = 5

_SPECIAL_TOKENS: Final = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}
"""Name in `tokenizer_config.json` to key in GGUF."""


def tokenizer_metadata(
    folder: Path, *, row_count: int, pre: str | None = None
) -> dict[str, GgufValue]:
    """A transformers folder's tokenizer as GGUF metadata.

    Args:
        folder: Holds `tokenizer.json`, and `tokenizer_config.json` and `chat_template.jinja` if
            the model has them.
        row_count: Rows of the embedding matrix; those after the last token become unused tokens.
        pre: llama.cpp's name of the pre-tokenizer, if it is to be something else than the one
            found in `tokenizer.json`.

    Raises:
        ModelFileError: A file is missing or damaged, or the tokenizer is of another kind.
    """
    tokenizer = read_json(folder / "tokenizer.json")
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or model.get("byte_fallback"):
        raise ModelFileError(f"{folder / 'tokenizer.json'} is no byte-level BPE tokenizer")
    pre = pre or find_pre(tokenizer.get("pre_tokenizer") or {})
    if pre is None:
        raise ModelFileError(
            f"{folder / 'tokenizer.json'} cuts text in a way not known here; if llama.cpp has a"
            f" name for it, give that with --pre (known: {', '.join(PRE_TOKENIZERS)})"
        )
    try:
        tokens, types = _tokens(tokenizer, row_count)
        merges = [_merge_text(merge) for merge in model["merges"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"cannot use {folder / 'tokenizer.json'}: {error}") from error
    metadata: dict[str, GgufValue] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.token_type": list(types),
        "tokenizer.ggml.merges": list(merges),
        "tokenizer.ggml.add_space_prefix": False,
    }
    return metadata | _settings(folder, tokenizer, tokens)


def write_tokenizer_files(file: GgufFile, folder: Path) -> None:
    """Write the tokenizer of a GGUF file as `tokenizer.json` and `tokenizer_config.json`.

    Raises:
        ModelFileError: The tokenizer is of another kind than byte-level BPE.
        OSError: A file cannot be written. `fedpt.files.folder_written_aside` translates it.
    """
    config = _tokenizer_config(file)
    (folder / "tokenizer.json").write_text(tokenizer_json(file), encoding="utf-8")
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def tokenizer_json(file: GgufFile) -> str:
    """The tokenizer of a GGUF file as the text of a `tokenizer.json`.

    Raises:
        ModelFileError: It is of another kind than byte-level BPE, or damaged.
    """
    pre = str(file.metadata.get("tokenizer.ggml.pre"))
    if file.metadata.get("tokenizer.ggml.model") != "gpt2" or pre not in PRE_TOKENIZERS:
        raise ModelFileError(
            f"{file.path}: the tokenizer {file.metadata.get('tokenizer.ggml.model')!r} with pre"
            f" {pre!r} is not supported; supported: gpt2 with {', '.join(PRE_TOKENIZERS)}"
        )
    definition = PRE_TOKENIZERS[pre]
    tokens = _typed_tokens(file)
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added_token(token_id, token, special=kind == _CONTROL)
            for token_id, (token, kind) in enumerate(tokens)
            if kind in (_CONTROL, _USER_DEFINED)
        ],
        "normalizer": definition.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": definition.steps},
        "post_processor": _post_processor(file, definition),
        "decoder": SPLITTING_BYTES,
        "model": {
            "type": "BPE",
            "ignore_merges": definition.ignore_merges,
            "vocab": {
                token: token_id for token_id, (token, kind) in enumerate(tokens) if kind != _UNUSED
            },
            "merges": [str(merge).split(" ", 1) for merge in _listed(file, "merges")],
        },
    }
    return json.dumps(content, ensure_ascii=False)


def _tokens(tokenizer: Mapping[str, Any], row_count: int) -> tuple[list[str], list[int]]:
    """Every token by id, and its type; ids that have none are unused."""
    tokens = [f"[PAD{token_id}]" for token_id in range(row_count)]
    types = [_UNUSED] * row_count
    vocabulary = tokenizer["model"]["vocab"]
    entries = [(token, int(token_id), _NORMAL) for token, token_id in vocabulary.items()]
    for added in tokenizer.get("added_tokens", []):
        kind = _CONTROL if added.get("special") else _USER_DEFINED
        entries.append((added["content"], int(added["id"]), kind))
    for token, token_id, kind in entries:
        if not 0 <= token_id < row_count:
            raise ValueError(f"token {token!r} has id {token_id}, the model has {row_count} rows")
        tokens[token_id], types[token_id] = str(token), kind
    return tokens, types


def _merge_text(merge: object) -> str:
    """Both spellings, `"a b"` and `["a", "b"]`, as the first."""
    match merge:
        case str():
            return merge
        case [str(left), str(right)]:
            return f"{left} {right}"
    raise ValueError(f"{merge!r} is no merge of two tokens")


def _settings(
    folder: Path, tokenizer: Mapping[str, Any], tokens: list[str]
) -> dict[str, GgufValue]:
    """Special ids, whether a text begins with one, and the chat template."""
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.exists() else {}
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    settings: dict[str, GgufValue] = {}
    for name, key in _SPECIAL_TOKENS.items():
        token = config.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if text in ids:
            settings[key] = ids[text]
    adds_bos = config.get("add_bos_token")
    settings["tokenizer.ggml.add_bos_token"] = (
        _processor_adds_token(tokenizer) if adds_bos is None else bool(adds_bos)
    )
    template = _chat_template(folder, config)
    return settings | ({"tokenizer.chat_template": template} if template else {})


def _processor_adds_token(tokenizer: Mapping[str, Any]) -> bool:
    """Whether the post-processor puts a special token before a text."""
    processor = tokenizer.get("post_processor") or {}
    for step in processor.get("processors", [processor]):
        if step.get("type") == "TemplateProcessing":
            pieces = step.get("single") or [{}]
            return "SpecialToken" in pieces[0]
    return False


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ModelFileError(f"cannot read {path}: {error}") from error
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        by_name = {entry.get("name"): entry.get("template") for entry in template}
        template = by_name.get("default")
    return template if isinstance(template, str) else None


def _listed(file: GgufFile, name: str) -> list[GgufValue]:
    values = file.metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(values, list):
        raise ModelFileError(f"{file.path} has no tokenizer.ggml.{name}")
    return values


def _typed_tokens(file: GgufFile) -> list[tuple[str, GgufValue]]:
    """Every token by id, with its type."""
    tokens, types = _listed(file, "tokens"), _listed(file, "token_type")
    texts = [str(token) for token in tokens]
    if len(types) != len(texts) or len(set(texts)) != len(texts):
        raise ModelFileError(f"{file.path}: its tokens are not unique or not all have a type")
    return list(zip(texts, types, strict=True))


def _added_token(token_id: int, token: str, *, special: bool) -> dict[str, Any]:
    return {
        "id": token_id,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def _post_processor(file: GgufFile, definition: PreTokenizer) -> dict[str, Any]:
    bos = _special_token(file, "tokenizer.ggml.bos_token_id")
    adds_bos = file.metadata.get("tokenizer.ggml.add_bos_token", definition.adds_bos)
    if bos is None or not adds_bos:
        return SPLITTING_BYTES | {"trim_offsets": False}
    first = {"SpecialToken": {"id": bos, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [first, {"Sequence": {"id": "A", "type_id": 0}},
                 first, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            bos: {"id": bos, "ids": [file.number("tokenizer.ggml.bos_token_id")], "tokens": [bos]}
        },
    }  # fmt: skip


def _tokenizer_config(file: GgufFile) -> dict[str, Any]:
    config: dict[str, Any] = {
        # the class that takes tokenizer.json as it is; others rebuild parts of it
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    for name, key in _SPECIAL_TOKENS.items():
        token = _special_token(file, key)
        if token is not None:
            config[name] = token
    context_length = file.metadata.get(f"{file.architecture}.context_length")
    if isinstance(context_length, int):
        config["model_max_length"] = context_length
    template = file.metadata.get("tokenizer.chat_template")
    return config | ({"chat_template": template} if isinstance(template, str) else {})


def _special_token(file: GgufFile, key: str) -> str | None:
    """The text of the token whose id stands at `key`."""
    token_id, tokens = file.metadata.get(key), _listed(file, "tokens")
    if not isinstance(token_id, int) or not 0 <= token_id < len(tokens):
        return None
    return str(tokens[token_id])
