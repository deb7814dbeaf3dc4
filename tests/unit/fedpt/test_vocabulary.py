"""Vocabularies are the same token by token, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpt.errors import ModelFileError, VocabularyMismatchError
from fedpt.gguf_file import GgufFile, GgufValue
from fedpt.vocabulary import Vocabulary, require_same_vocabulary, vocabulary_of


def file(tokens: GgufValue | None, **metadata: GgufValue) -> GgufFile:
    values = dict(metadata) if tokens is None else {"tokenizer.ggml.tokens": tokens, **metadata}
    return GgufFile(Path("m.gguf"), values, {})


SMALL = Vocabulary("small", ("a", "b", "c"))


def test_equal_vocabularies_pass_whatever_their_names() -> None:
    require_same_vocabulary(SMALL, Vocabulary("large", SMALL.tokens))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (("a", "x", "c"), r"first difference is token 1: 'b' and 'x'"),
        (("a", "b"), r"small \(3 tokens\) and large \(2 tokens\).* token 2: 'c' and None"),
        (("a", "b", "c", "d"), r"token 3: None and 'd'"),
        (("b", "a", "c"), r"token 0: 'a' and 'b'"),
    ],
)
def test_the_first_difference_is_shown(tokens: tuple[str, ...], message: str) -> None:
    with pytest.raises(VocabularyMismatchError, match=message):
        require_same_vocabulary(SMALL, Vocabulary("large", tokens))


def test_the_hash_tells_boundaries_apart() -> None:
    assert Vocabulary("", ("ab", "c")).sha256 != Vocabulary("", ("a", "bc")).sha256
    assert Vocabulary("x", ("a",)).sha256 == Vocabulary("y", ("a",)).sha256


def test_padding_at_the_end_is_left_out() -> None:
    assert vocabulary_of(file(["a", "[PAD1]", "[PAD2]"])).tokens == ("a",)
    assert vocabulary_of(file(["a", "[PAD7]"])).tokens == ("a", "[PAD7]")
    assert vocabulary_of(file(["[PAD0]", "a"])).tokens == ("[PAD0]", "a")


def test_the_name_is_one_that_people_know() -> None:
    known = file(["a"], **{"tokenizer.ggml.pre": "qwen2", "general.name": "Qwen"})
    assert vocabulary_of(known).name == "qwen2 tokenizer of Qwen"


@pytest.mark.parametrize("tokens", [None, [], "abc", 5])
def test_a_file_without_a_vocabulary_is_refused(tokens: GgufValue | None) -> None:
    with pytest.raises(ModelFileError, match=r"m\.gguf has no vocabulary"):
        vocabulary_of(file(tokens))
