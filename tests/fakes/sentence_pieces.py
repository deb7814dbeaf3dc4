"""SentencePiece tokenizers trained in a test, and the `tokenizer.json` that goes with each."""

import io
import json
from pathlib import Path

import sentencepiece

from tests.fakes.tiny_models import training_texts

_SPACE = "\u2581"


def train_pieces(rows: int, *, prefix: bool = True) -> sentencepiece.SentencePieceProcessor:
    """A BPE model with byte tokens as Llama 2 (`prefix`) and Gemma have it."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(training_texts()),
        model_writer=written,
        model_type="bpe",
        vocab_size=rows,
        byte_fallback=True,
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        character_coverage=1.0,
        split_digits=True,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


def write_pieces(
    processor: sentencepiece.SentencePieceProcessor,
    folder: Path,
    *,
    prefix: bool = True,
    added: tuple[str, ...] = (),
) -> Path:
    """Write `tokenizer.json` and `tokenizer_config.json` as transformers has them for Llama 2."""
    size = processor.get_piece_size()
    pieces = [processor.id_to_piece(token_id) for token_id in range(size)]
    vocabulary = {piece: token_id for token_id, piece in enumerate(pieces)}
    special = [(token_id, pieces[token_id], True) for token_id in range(3)]  # <unk> <s> </s>
    special += [(size + place, token, False) for place, token in enumerate(added)]
    space = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    content = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": token_id, "content": token, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False, "special": is_special,
            }
            for token_id, token, is_special in special
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": _SPACE}, space] if prefix else [space],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, text],
            "pair": [begin, text, begin, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": None,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocabulary,
            "merges": _merges(processor, vocabulary),
        },
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def _merges(
    processor: sentencepiece.SentencePieceProcessor, vocabulary: dict[str, int]
) -> list[list[str]]:
    """Every way to cut a piece in two, in the order of the pieces' scores."""
    merges: list[tuple[float, list[str]]] = []
    for piece, token_id in vocabulary.items():
        if processor.is_byte(token_id) or processor.is_control(token_id):
            continue
        for place in range(1, len(piece)):
            left, right = piece[:place], piece[place:]
            if left in vocabulary and right in vocabulary:
                merges.append((processor.get_score(token_id), [left, right]))
    return [merge for _, merge in sorted(merges, key=lambda one: -one[0])]
