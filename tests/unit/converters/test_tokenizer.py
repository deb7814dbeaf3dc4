"""Tokenizers both ways, judged by the ids that libllama and `tokenizers` give."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, pre_tokenizers, trainers
from transformers import AutoTokenizer

from converters.gguf_output import PlannedTensor, write_gguf
from converters.pre_tokenizers import PRE_TOKENIZERS, find_pre
from converters.token_ids import CORPUS, require_same_token_ids
from converters.tokenizer import tokenizer_json, tokenizer_metadata, write_tokenizer_files
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile, read_gguf
from tests.fakes.tiny_models import (
    CHAT_TEMPLATE,
    SPECIAL_TOKENS,
    save_tokenizer,
    train_tokenizer,
)

pytestmark = pytest.mark.llama

ROWS = 384


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of a tiny tokenizer, and nothing else."""
    save_tokenizer(train_tokenizer(ROWS), tmp_path)
    return tmp_path


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def retrained(tokenizer: Tokenizer, texts: Sequence[str]) -> Tokenizer:
    """Merges for just these texts, so that wherever one is cut matters."""
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_vocabulary(folder: Path, *, row_count: int = ROWS) -> GgufFile:
    """A GGUF file with a folder's tokenizer and no weights."""
    tokenizer = tokenizer_metadata(folder, row_count=row_count)
    write_gguf(folder / "v.gguf", {"general.architecture": "llama", **tokenizer}, NO_TENSORS)
    return read_gguf(folder / "v.gguf")


NO_TENSORS: list[PlannedTensor] = []


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_known_pre_tokenizer_gives_the_same_ids_in_llama_cpp(
    tmp_path: Path, pre: str
) -> None:
    definition = PRE_TOKENIZERS[pre]
    untrained = json.loads(train_tokenizer(300).to_str())
    untrained["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": list(definition.steps)}
    untrained["normalizer"] = definition.normalizer
    trained = json.loads(retrained(Tokenizer.from_str(json.dumps(untrained)), CORPUS).to_str())
    trained["model"]["ignore_merges"] = definition.ignore_merges
    (tmp_path / "tokenizer.json").write_text(json.dumps(trained))
    file = write_vocabulary(tmp_path, row_count=len(trained["model"]["vocab"]))
    assert file.metadata["tokenizer.ggml.pre"] == pre
    require_same_token_ids(file.path, tmp_path / "tokenizer.json")
    (tmp_path / "back.json").write_text(tokenizer_json(file))
    require_same_token_ids(file.path, tmp_path / "back.json")


def test_a_bare_byte_level_step_is_gpt_2() -> None:
    step = json.loads(pre_tokenizers.ByteLevel(add_prefix_space=False).__getstate__())
    assert find_pre(step) == "gpt-2"
    assert find_pre({"type": "ByteLevel", "add_prefix_space": False}) == "gpt-2"
    assert find_pre({"type": "Whitespace"}) is None


@pytest.mark.parametrize("pre", ["gpt-2", "qwen2"])
def test_another_pre_tokenizer_is_found_out(smollm2: Path, tmp_path: Path, pre: str) -> None:
    file = read_gguf(smollm2)
    write_tokenizer_files(file, tmp_path)
    write_gguf(tmp_path / "v.gguf", {**file.metadata, "tokenizer.ggml.pre": pre}, NO_TENSORS)
    with pytest.raises(ModelFileError, match=r"differ on .* at token \d+: llama.cpp has"):
        require_same_token_ids(tmp_path / "v.gguf", tmp_path / "tokenizer.json")


def test_an_unknown_pre_tokenizer_asks_for_its_name(folder: Path) -> None:
    change(folder / "tokenizer.json", pre_tokenizer={"type": "Whitespace"})
    with pytest.raises(ModelFileError, match="give that with --pre"):
        tokenizer_metadata(folder, row_count=ROWS)
    assert tokenizer_metadata(folder, row_count=ROWS, pre="x")["tokenizer.ggml.pre"] == "x"


def test_both_spellings_of_merges_are_one(folder: Path) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    pairs = tokenizer_metadata(folder, row_count=ROWS)
    model["merges"] = [" ".join(merge) for merge in model["merges"]]
    change(folder / "tokenizer.json", model=model)
    assert tokenizer_metadata(folder, row_count=ROWS) == pairs


def test_special_tokens_and_the_chat_template_come_over(folder: Path) -> None:
    metadata = tokenizer_metadata(folder, row_count=ROWS)
    assert metadata["tokenizer.ggml.bos_token_id"] == 1
    assert metadata["tokenizer.ggml.eos_token_id"] == 2
    assert metadata["tokenizer.ggml.unknown_token_id"] == 0
    assert metadata["tokenizer.ggml.add_bos_token"] is False
    assert metadata["tokenizer.chat_template"] == CHAT_TEMPLATE


def test_an_older_folder_has_its_template_in_the_configuration(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    templates = [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]
    change(folder / "tokenizer_config.json", chat_template=templates)
    assert tokenizer_metadata(folder, row_count=ROWS)["tokenizer.chat_template"] == "yes"


def test_a_tokenizer_that_begins_texts_keeps_doing_so(folder: Path) -> None:
    first = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    single = {"type": "TemplateProcessing", "single": [first]}
    change(folder / "tokenizer.json", post_processor={"type": "Sequence", "processors": [single]})
    back = Tokenizer.from_str(tokenizer_json(write_vocabulary(folder)))
    assert back.encode("lamp").ids[0] == 1
    assert back.encode("lamp", add_special_tokens=False).ids[0] != 1


def test_tokens_that_are_not_special_stay_whole(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["<tool>"])
    save_tokenizer(tokenizer, folder)
    tokens = tokenizer_metadata(folder, row_count=ROWS + 1)
    assert tokens["tokenizer.ggml.token_type"][ROWS] == 4  # type: ignore[index]


def test_a_token_for_images_that_has_no_row_is_left_out(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<image_soft_token>"])
    save_tokenizer(tokenizer, folder)
    with pytest.raises(ModelFileError, match="the vocabulary is larger than the embedding"):
        tokenizer_metadata(folder, row_count=ROWS)
    rowless = frozenset({"<image_soft_token>"})
    tokens = tokenizer_metadata(folder, row_count=ROWS, rowless=rowless)["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    assert len(tokens) == ROWS
    assert "<image_soft_token>" not in tokens


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"type": "Unigram"}}, "its model is 'Unigram'; supported are byte-level BPE"),
        ({"model": {"type": "BPE", "vocab": {"a": 900}, "merges": []}}, "'a' has id 900"),
        ({"model": {"type": "BPE", "vocab": {}, "merges": [1]}}, "1 is no merge"),
        ({"model": {"type": "BPE", "vocab": {}}}, "'merges'"),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_refused(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    change(folder / "tokenizer.json", **changes)
    with pytest.raises(ModelFileError, match=message):
        tokenizer_metadata(folder, row_count=ROWS)


def test_a_file_with_another_kind_of_tokenizer_is_refused(base: GgufFile) -> None:
    metadata = {**base.metadata, "tokenizer.ggml.model": "t5"}
    with pytest.raises(ModelFileError, match="the tokenizer 't5' is not supported"):
        tokenizer_json(GgufFile(base.path, metadata, base.tensors))
    metadata = {**base.metadata, "tokenizer.ggml.pre": "bloom"}
    with pytest.raises(ModelFileError, match="with pre 'bloom' is not supported; supported: smol"):
        tokenizer_json(GgufFile(base.path, metadata, base.tensors))


def test_a_folder_without_tokenizer_json_is_told_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").touch()
    with pytest.raises(ModelFileError, match=r"tokenizer\.model only; load it with"):
        tokenizer_metadata(tmp_path, row_count=ROWS)


def test_the_tokenizer_of_the_real_smollm2_gives_the_same_ids(
    smollm2: Path, tmp_path: Path
) -> None:
    write_tokenizer_files(read_gguf(smollm2), tmp_path)
    require_same_token_ids(smollm2, tmp_path / "tokenizer.json")


def test_transformers_loads_the_files_and_writes_chats(smollm2: Path, tmp_path: Path) -> None:
    write_tokenizer_files(read_gguf(smollm2), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n")
    assert tokenizer.convert_ids_to_tokens([1, 2]) == ["<|im_start|>", "<|im_end|>"]
    assert [tokenizer.decode(tokenizer(text).input_ids) for text in CORPUS] == list(CORPUS)


def test_a_converted_tokenizer_comes_back_the_same(gguf: Path, model_folder: Path) -> None:
    original = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    back = Tokenizer.from_str(tokenizer_json(read_gguf(gguf)))
    for text in CORPUS:
        assert back.encode(text).ids == original.encode(text).ids


def test_a_file_that_llama_cpp_cannot_load_is_told(folder: Path, base: GgufFile) -> None:
    shutil.copyfile(base.path, folder / "damaged.gguf")
    (folder / "damaged.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelFileError, match="cannot load the tokenizer of"):
        require_same_token_ids(folder / "damaged.gguf", folder / "tokenizer.json")
