"""SentencePiece tokenizers, judged by the ids that `sentencepiece` itself and libllama give."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from converters.gguf_output import PlannedTensor, write_gguf
from converters.model_to_gguf import convert_model
from converters.model_to_transformers import convert_to_transformers
from converters.token_ids import CORPUS, require_same_token_ids
from converters.tokenizer import tokenizer_json, tokenizer_metadata, write_tokenizer_files
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile, read_gguf
from tests.fakes.sentence_pieces import train_pieces, write_pieces
from tests.fakes.tiny_models import make_tiny_llama

pytestmark = pytest.mark.llama

ROWS = 420
NO_TENSORS: list[PlannedTensor] = []
ADDED = ("<|user|>", "<|end|>")


def write_vocabulary(folder: Path, **changes: object) -> GgufFile:
    """A GGUF file with a folder's tokenizer and no weights."""
    tokenizer = tokenizer_metadata(folder, row_count=ROWS + 10) | changes  # type: ignore[operator]
    write_gguf(folder / "v.gguf", {"general.architecture": "llama", **tokenizer}, NO_TENSORS)
    return read_gguf(folder / "v.gguf")


@pytest.mark.parametrize("prefix", [True, False])
def test_all_three_give_the_same_ids(tmp_path: Path, prefix: bool) -> None:
    processor = train_pieces(ROWS, prefix=prefix)
    folder = write_pieces(processor, tmp_path, prefix=prefix, added=ADDED)
    file = write_vocabulary(folder)
    assert file.metadata["tokenizer.ggml.add_space_prefix"] is prefix
    require_same_token_ids(file.path, folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in CORPUS:
        if text and "<" not in text:  # sentencepiece has no tokens written in the text
            assert tokenizer.encode(text, add_special_tokens=False).ids == processor.encode(text)


@pytest.mark.parametrize("prefix", [True, False])
def test_a_converted_tokenizer_comes_back_the_same(tmp_path: Path, prefix: bool) -> None:
    folder = write_pieces(train_pieces(ROWS, prefix=prefix), tmp_path, prefix=prefix, added=ADDED)
    original = Tokenizer.from_file(str(folder / "tokenizer.json"))
    back = Tokenizer.from_str(tokenizer_json(write_vocabulary(folder)))
    for text in CORPUS:
        assert back.encode(text).ids == original.encode(text).ids
        if "<" not in text and text:
            assert back.decode(back.encode(text).ids) == text


def test_types_and_scores_are_those_of_the_pieces(tmp_path: Path) -> None:
    processor = train_pieces(ROWS)
    file = write_vocabulary(write_pieces(processor, tmp_path, added=ADDED))
    types = file.metadata["tokenizer.ggml.token_type"]
    scores = file.metadata["tokenizer.ggml.scores"]
    assert isinstance(types, list)
    assert isinstance(scores, list)
    assert types[:3] == [2, 3, 3]  # unknown, control, control
    assert [types[n] == 6 for n in range(ROWS)] == [processor.is_byte(n) for n in range(ROWS)]
    assert types[ROWS : ROWS + 3] == [4, 4, 5]  # user-defined, user-defined, unused
    joined = [n for n in range(259, ROWS) if len(processor.id_to_piece(n)) > 1]
    assert joined == sorted(joined, key=lambda n: -float(str(scores[n])))
    assert file.metadata["tokenizer.ggml.add_bos_token"] is True


def test_transformers_loads_what_comes_back(tmp_path: Path) -> None:
    folder = write_pieces(train_pieces(ROWS), tmp_path / "a", added=ADDED)
    (tmp_path / "b").mkdir()
    write_tokenizer_files(write_vocabulary(folder), tmp_path / "b")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "b")
    assert tokenizer("The lamp turns on").input_ids[0] == tokenizer.bos_token_id == 1
    assert tokenizer.decode(tokenizer("Straße 5, 日本").input_ids[1:]) == "Straße 5, 日本"


def test_a_whole_model_with_such_a_tokenizer_goes_there_and_back(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "m", vocabulary=ROWS + len(ADDED))
    write_pieces(train_pieces(ROWS), folder, added=ADDED)
    convert_model(folder, tmp_path / "m.gguf")
    convert_to_transformers(tmp_path / "m.gguf", tmp_path / "back")
    require_same_token_ids(tmp_path / "m.gguf", tmp_path / "back/tokenizer.json")


def test_merges_that_scores_cannot_say_are_found_out(tmp_path: Path) -> None:
    folder = write_pieces(train_pieces(ROWS), tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    # other places, and some tokens that no merge makes any more
    content["model"]["merges"] = content["model"]["merges"][:40:-1]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match=r"differ on .* at token \d+"):
        require_same_token_ids(write_vocabulary(folder).path, folder / "tokenizer.json")


def test_another_beginning_of_texts_is_found_out(tmp_path: Path) -> None:
    folder = write_pieces(train_pieces(ROWS), tmp_path)
    file = write_vocabulary(folder, **{"tokenizer.ggml.add_bos_token": False})
    with pytest.raises(ModelFileError, match="at token 0"):
        require_same_token_ids(file.path, folder / "tokenizer.json")


def test_lost_scores_are_told(tmp_path: Path) -> None:
    folder = write_pieces(train_pieces(ROWS), tmp_path)
    file = write_vocabulary(folder, **{"tokenizer.ggml.scores": [0.0] * (ROWS + 10)})
    with pytest.raises(ModelFileError, match="all have the same score"):
        tokenizer_json(file)
