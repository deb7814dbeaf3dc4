"""What every kind of tokenizer has: tokens by id, special ones, added ones, ends, a chat template.

Between a transformers folder's files and GGUF's metadata, both ways. How text becomes tokens is
`converters.byte_level_tokens` and `converters.sentence_pieces`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from converters.checkpoint import read_json
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile, GgufValue

NORMAL: Final = 1
UNKNOWN: Final = 2
CONTROL: Final = 3
USER_DEFINED: Final = 4
UNUSED: Final = 5
BYTE: Final = 6

_SPECIAL_TOKENS: Final = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}
"""Name in `tokenizer_config.json` to key in GGUF."""

_ENDS: Final = {
    "add_bos_token": ("tokenizer.ggml.add_bos_token", 0),
    "add_eos_token": ("tokenizer.ggml.add_eos_token", -1),
}
"""Name in `tokenizer_config.json` to key in GGUF, and where in the template of a text it stands."""


def token_table(
    tokenizer: Mapping[str, Any], row_count: int, rowless: frozenset[str] = frozenset()
) -> tuple[list[str], list[int]]:
    """Every token by id, and its type; ids that have none are unused.

    Args:
        tokenizer: The content of `tokenizer.json`.
        row_count: Rows of the embedding matrix.
        rowless: Added tokens that are left out where there is no row for them.

    Raises:
        ValueError: A token has an id beyond the rows. Callers name the file.
    """
    tokens = [f"[PAD{token_id}]" for token_id in range(row_count)]
    types = [UNUSED] * row_count
    vocabulary = tokenizer["model"]["vocab"]
    entries = [(token, int(token_id), NORMAL) for token, token_id in vocabulary.items()]
    for added in tokenizer.get("added_tokens", []):
        kind = CONTROL if added.get("special") else USER_DEFINED
        entries.append((added["content"], int(added["id"]), kind))
    for token, token_id, kind in entries:
        if token in rowless and token_id >= row_count:
            continue
        if not 0 <= token_id < row_count:
            raise ValueError(
                f"token {token!r} has id {token_id}, the model's embedding has {row_count} rows:"
                " the vocabulary is larger than the embedding"
            )
        tokens[token_id], types[token_id] = str(token), kind
    return tokens, types


def merge_text(merge: object) -> str:
    """Both spellings of a merge, `"a b"` and `["a", "b"]`, as the first.

    Raises:
        ValueError: It is something else.
    """
    match merge:
        case str():
            return merge
        case [str(left), str(right)]:
            return f"{left} {right}"
    raise ValueError(f"{merge!r} is no merge of two tokens")


def settings_metadata(
    folder: Path, tokenizer: Mapping[str, Any], tokens: list[str]
) -> dict[str, GgufValue]:
    """Special ids, what a text begins and ends with, and the chat template."""
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.exists() else {}
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    settings: dict[str, GgufValue] = {}
    for name, key in _SPECIAL_TOKENS.items():
        token = config.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if text in ids:
            settings[key] = ids[text]
    for name, (key, place) in _ENDS.items():
        stated = config.get(name)
        settings[key] = _processor_adds(tokenizer, place) if stated is None else bool(stated)
    template = chat_template(folder, config)
    return settings | ({"tokenizer.chat_template": template} if template else {})


def chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """A transformers folder's; of several, the one that is called default.

    Args:
        folder: Where it may lie as a file.
        config: The content of `tokenizer_config.json`, where it may be instead.

    Raises:
        ModelFileError: It cannot be read.
    """
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


def tokenizer_config(file: GgufFile) -> dict[str, Any]:
    """The content of `tokenizer_config.json` for a GGUF file's tokenizer."""
    config: dict[str, Any] = {
        # the class that takes tokenizer.json as it is; others rebuild parts of it
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    for name, key in _SPECIAL_TOKENS.items():
        token = special_token(file, key)
        if token is not None:
            config[name] = token
    context_length = file.metadata.get(f"{file.architecture}.context_length")
    if isinstance(context_length, int):
        config["model_max_length"] = context_length
    template = file.metadata.get("tokenizer.chat_template")
    return config | ({"chat_template": template} if isinstance(template, str) else {})


def typed_tokens(file: GgufFile) -> list[tuple[str, int]]:
    """Every token of a GGUF file by id, with its type.

    Raises:
        ModelFileError: They are damaged.
    """
    tokens, types = listed(file, "tokens"), listed(file, "token_type")
    texts = [str(token) for token in tokens]
    if len(types) != len(texts) or len(set(texts)) != len(texts):
        raise ModelFileError(f"{file.path}: its tokens are not unique or not all have a type")
    return list(zip(texts, [int(str(kind)) for kind in types], strict=True))


def added_tokens(tokens: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """The entries of `added_tokens` in `tokenizer.json`."""
    return [
        {
            "id": token_id,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind != USER_DEFINED,
        }
        for token_id, (token, kind) in enumerate(tokens)
        if kind in (CONTROL, UNKNOWN, USER_DEFINED)
    ]


def ends_processor(file: GgufFile, *, adds_bos: bool) -> dict[str, Any] | None:
    """The `post_processor` that adds what a text begins and ends with; None if that is nothing.

    Args:
        file: The GGUF file.
        adds_bos: What llama.cpp does where the file does not say.
    """
    stated = file.metadata.get("tokenizer.ggml.add_bos_token", adds_bos)
    first = _end(file, "tokenizer.ggml.bos_token_id") if stated else []
    stated = file.metadata.get("tokenizer.ggml.add_eos_token", False)
    last = _end(file, "tokenizer.ggml.eos_token_id") if stated else []
    if not first and not last:
        return None
    one, two = ({"Sequence": {"id": text, "type_id": n}} for n, text in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [*first, one, *last],
        "pair": [*first, one, *last, *first, two, *last],
        "special_tokens": {
            entry["SpecialToken"]["id"]: {
                "id": entry["SpecialToken"]["id"],
                "ids": [_id_of(file, entry["SpecialToken"]["id"])],
                "tokens": [entry["SpecialToken"]["id"]],
            }
            for entry in [*first, *last]
        },
    }


def special_token(file: GgufFile, key: str) -> str | None:
    """The text of the token whose id stands at `key`."""
    token_id, tokens = file.metadata.get(key), listed(file, "tokens")
    if not isinstance(token_id, int) or not 0 <= token_id < len(tokens):
        return None
    return str(tokens[token_id])


def listed(file: GgufFile, name: str) -> list[GgufValue]:
    """A list in a GGUF file's tokenizer.

    Raises:
        ModelFileError: There is none.
    """
    values = file.metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(values, list):
        raise ModelFileError(f"{file.path} has no tokenizer.ggml.{name}")
    return values


def _processor_adds(tokenizer: Mapping[str, Any], place: int) -> bool:
    """Whether the post-processor puts a special token before a text, or after it."""
    processor = tokenizer.get("post_processor") or {}
    for step in processor.get("processors", [processor]):
        if step.get("type") == "TemplateProcessing":
            pieces = step.get("single") or [{}]
            return "SpecialToken" in pieces[place]
    return False


def _end(file: GgufFile, key: str) -> list[dict[str, Any]]:
    token = special_token(file, key)
    return [] if token is None else [{"SpecialToken": {"id": token, "type_id": 0}}]


def _id_of(file: GgufFile, token: str) -> int:
    return listed(file, "tokens").index(token)
