"""Proof that a GGUF file and its `tokenizer.json` give the same token ids.

One differing id makes nonsense of training, steering and distillation alike, and nothing would say
so. Hence every conversion ends with this comparison: libllama against `tokenizers`, on text of many
scripts.
"""
# ruff: noqa: RUF001 - the corpus is full of look-alikes on purpose

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Final

import llama_cpp
from tokenizers import Tokenizer

from converters.checkpoint import read_json
from converters.libllama import caught_log
from fedpt.errors import ModelFileError

CORPUS: Final = (
    "The quick brown fox didn't jump; it's said that we'll see, they've I'm you'd HE'LL DON'T.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich: „Füße, Maße, ÄÖÜ“.",
    "¿Dónde está el niño? ¡Qué alegría! El pingüino comió piña en la montaña.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Її ґанок, ўсё.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Ποῦ εἶναι ὁ ἄνθρωπος;",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر. مُحَمَّد ١٢٣٤",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश। १२३ क्षत्रिय",
    "天地玄黃，宇宙洪荒。我爱北京天安门，2024年10月1日。「繁體」与简体",
    "いろはにほへと ちりぬるを。カタカナとﾊﾝｶｸ、漢字１２３。",
    "다람쥐 헌 쳇바퀴에 타고파. 안녕하세요 세계!",
    "ภาษาไทยไม่มีช่องว่าง שלום עולם Tiếng Việt có dấu",
    "👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇪🇸 ❤️ 🤷‍♀️ 😀😃 ☃ \U0001f9d1\u200d\U0001f680",
    "0 1 12 123 1234 12345 3.14159 1,000,000 0x1F 1e-9 ½ ² Ⅷ ٣ २ 2nd v1.2.3",
    "a  b   c    d     e\tf\t\tg \t h  ",
    "   leading, trailing   ",
    "\n\nnew\nlines\r\nof\r\n\r\nall \n kinds\n \n\t\n   \n",
    "def f(x: int) -> list[str]:\n    return [f'{i:02d}' for i in range(x)]  # comment\n",
    '<div class="a">{"k": [1, null, true], "s": "\\u00e9\\n"}</div> SELECT * FROM t WHERE a != b;',
    "https://example.org/path?q=1&r=%20#part user@example.org C:\\dir\\file.txt ~/x_y-z",
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|><|endoftext|> <|im_end|>word<|im_start|> x<|im_end|>",
    "<|im_start <|im_end| |> <| <|> <|unknown|> <s> </s> [INST] <unk> <pad> [PAD1]",
    "“quotes” ‘single’ — en–dash … • · § € £ ¥ © ® ™ ∑ ∞ ≠ → ← ░▒▓",
    "no\u00a0break\u2009thin\u3000wide\u200bzero\ufeffmark soft\u00adhyphen \u2028line",
    "ALLCAPS CamelCase snake_case kebab-case aaaaaaaaaaaaaaaaaaaaaaaa !!!!!!!! ........ ======",
    "",
    " ",
    "\n",
)
"""Text of many scripts, in composed form (NFC): llama.cpp does not normalise, tokenizers may."""


_OWN_TOKENS: Final = 48
"""Of a tokenizer's own added tokens, so many are put between words; some have thousands."""


def require_same_token_ids(gguf: Path, tokenizer_json: Path) -> None:
    """Refuse a GGUF file whose tokenizer differs from `tokenizer.json` on any text of `CORPUS`.

    Special tokens written in the text count as such on both sides, the tokenizer's own among them.
    Then what each puts before and after a text is compared, unless `tokenizer_config.json` beside
    the file decides that.

    Raises:
        ModelFileError: The ids differ (shows the first difference), or a file cannot be loaded.
    """
    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_json))
    except Exception as error:  # tokenizers raises nothing more precise
        raise ModelFileError(f"tokenizers cannot load {tokenizer_json}: {error}") from error
    with _vocabulary(gguf) as vocabulary:
        rows = llama_cpp.llama_vocab_n_tokens(vocabulary)
        for text in (*CORPUS, *_with_own_tokens(tokenizer, rows)):
            _require_same(vocabulary, tokenizer, text, add_special=False)
        if not _is_told_its_ends(tokenizer_json.with_name("tokenizer_config.json")):
            _require_same(vocabulary, tokenizer, CORPUS[0], add_special=True)


def _require_same(vocabulary: int, tokenizer: Tokenizer, text: str, *, add_special: bool) -> None:
    ours = _llama_ids(vocabulary, text, add_special=add_special)
    theirs = tokenizer.encode(text, add_special_tokens=add_special).ids
    if ours != theirs:
        raise _difference(text, ours, theirs, tokenizer)


def _with_own_tokens(tokenizer: Tokenizer, rows: int) -> Iterator[str]:
    """Texts with the tokenizer's own added tokens: at the ends, between words, side by side."""
    decoder = sorted(tokenizer.get_added_tokens_decoder().items())
    added = [token.content for token_id, token in decoder if token_id < rows]
    for token in added[:_OWN_TOKENS]:
        yield f"{token}one{token}two {token} three{token}{token}\n{token[:-1]} {token}"


def _is_told_its_ends(config: Path) -> bool:
    if not config.exists():
        return False
    settings = read_json(config)
    return settings.get("add_bos_token") is not None or settings.get("add_eos_token") is not None


@contextmanager
def _vocabulary(gguf: Path) -> Iterator[int]:
    """The vocabulary of a file in libllama, loaded without its weights."""
    with caught_log() as errors:
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        model = llama_cpp.llama_model_load_from_file(str(gguf).encode(), parameters)
        if not model:  # NULL
            reason = errors[0] if errors else "no reason given"
            raise ModelFileError(f"llama.cpp cannot load the tokenizer of {gguf}: {reason}")
        try:
            vocabulary = llama_cpp.llama_model_get_vocab(model)
            if not vocabulary:
                raise ModelFileError(f"llama.cpp found no tokenizer in {gguf}")
            yield vocabulary
        finally:
            llama_cpp.llama_model_free(model)


def _llama_ids(vocabulary: int, text: str, *, add_special: bool) -> list[int]:
    encoded = text.encode()
    room = 2 * len(encoded) + 4  # a token is at least one byte; spaces and ends may be added
    ids = (llama_cpp.llama_token * room)()
    parse_special = True
    count = llama_cpp.llama_tokenize(
        vocabulary, encoded, len(encoded), ids, len(ids), add_special, parse_special
    )
    return list(ids[:count])


def _difference(
    text: str, ours: list[int], theirs: list[int], tokenizer: Tokenizer
) -> ModelFileError:
    """Shows the first id that differs, and what it stands for."""
    pairs = zip_longest(ours, theirs)
    place = next(place for place, (our, their) in enumerate(pairs) if our != their)
    here, there = ours[place : place + 4], theirs[place : place + 4]
    return ModelFileError(
        f"llama.cpp and tokenizers differ on {text!r} at token {place}: llama.cpp has {here}"
        f" {tokenizer.decode(here)!r}, tokenizers {there} {tokenizer.decode(there)!r};"
        " another --pre may be right"
    )
