"""Where a tokenizer cuts text before merging: llama.cpp's names and what they stand for.

In `tokenizer.json` this is a list of steps with regular expressions, in GGUF a mere name (`pre`),
for llama.cpp has the expressions built in. Adding one is adding an entry to `PRE_TOKENIZERS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_CONTRACTIONS: Final = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_AFTER_DIGITS: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

MAPPING_BYTES: Final = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": False,
}
SPLITTING_BYTES: Final = MAPPING_BYTES | {"use_regex": True}


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """What a `pre` of llama.cpp does, in the words of `tokenizer.json`."""

    steps: tuple[Mapping[str, Any], ...]  # Any: free-form JSON, here and below
    normalizer: Mapping[str, str] | None = None
    ignore_merges: bool = False
    """A piece that is a token as it stands is not merged together from its bytes."""
    adds_bos: bool = False
    """What llama.cpp does where a file does not say."""


def _split(digits: str) -> dict[str, Any]:
    """Cut as Llama 3 and Qwen 2 do, which differ only in how many digits stay together."""
    return _cut(rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}|{_AFTER_DIGITS}")


def _split_by_case(digits: str, *, contractions: str) -> dict[str, Any]:
    """Cut as GPT-4o does: also before a capital letter within a word."""
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    start = r"[^\r\n\p{L}\p{N}]?"
    return _cut(
        f"{start}{upper}*{lower}+{contractions}|{start}{upper}+{lower}*{contractions}|{digits}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


def _cut(pattern: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


PRE_TOKENIZERS: Final[Mapping[str, PreTokenizer]] = {
    "smollm": PreTokenizer(({"type": "Digits", "individual_digits": True}, SPLITTING_BYTES)),
    "gpt-2": PreTokenizer((SPLITTING_BYTES,)),
    "llama-bpe": PreTokenizer(
        (_split(r"\p{N}{1,3}"), MAPPING_BYTES), ignore_merges=True, adds_bos=True
    ),
    "dbrx": PreTokenizer((_split(r"\p{N}{1,3}"), MAPPING_BYTES)),
    "qwen2": PreTokenizer((_split(r"\p{N}"), MAPPING_BYTES), normalizer={"type": "NFC"}),
    # GPT-4o's way; what llama.cpp calls gpt-4o cuts before combining marks, so vowelled Arabic and
    # Hindi would get other ids
    "granite-embed-multi-97m": PreTokenizer(
        (_split_by_case(r"\p{N}{1,3}", contractions=f"{_CONTRACTIONS}?"), MAPPING_BYTES),
        ignore_merges=True,
    ),
}


def find_pre(pre_tokenizer: Mapping[str, Any], *, ignore_merges: bool | None = None) -> str | None:
    """The name whose definition equals a `tokenizer.json`'s `pre_tokenizer`, spelling aside.

    Args:
        pre_tokenizer: As in the file.
        ignore_merges: What the file's model says of that, where definitions differ in nothing else.
    """
    steps = [_normal_form(step) for step in pre_tokenizer.get("pretokenizers", [pre_tokenizer])]
    for name, definition in PRE_TOKENIZERS.items():
        if ignore_merges in (None, definition.ignore_merges) and steps == [
            _normal_form(step) for step in definition.steps
        ]:
            return name
    return None if ignore_merges is None else find_pre(pre_tokenizer)


def _normal_form(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step without what does not change the tokens, and with its defaults spelled out."""
    form = {key: value for key, value in step.items() if key != "trim_offsets"}
    if form.get("type") == "ByteLevel":
        form.setdefault("use_regex", True)
    return form
