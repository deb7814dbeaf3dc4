"""The engine on a tiny model: its answers depend on the text alone, not on what came before."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.model_to_gguf import convert_model
from fedpt.drivers.llama import CachedText, LlamaContext, LlamaModel, Run
from fedpt.errors import AdapterError, ModelFileError, UsageError
from fedpt.proxy_tuning import Logits
from tests.fakes.raw_llama import llama_logits
from tests.fakes.tiny_federation import TinyFederation

pytestmark = pytest.mark.llama

TEXTS = ([5, 6, 7, 8], [9, 10], [300, 5, 6, 7, 8, 11])
BATCHED = 1e-3
"""Half-precision keys and values, and other orders of sums in batches of another size."""
ENGINE = 0.03
"""Against raw single-precision keys and values; see `tests.fakes.tiny_federation`."""


@pytest.fixture(scope="module")
def model(tiny: TinyFederation) -> Iterator[LlamaModel]:
    with LlamaModel(tiny.small) as model:
        yield model


@pytest.fixture
def context(model: LlamaModel) -> Iterator[LlamaContext]:
    with LlamaContext(model, tokens=256, sequences=3, threads=1) as context:
        yield context


def fresh(model: LlamaModel, tokens: list[int], adapter: Path | None = None) -> Logits:
    """Logits after a text, in a context that has seen nothing else."""
    with LlamaContext(model, tokens=256, threads=1, adapter=adapter) as context:
        return context.evaluate([Run(0, 0, tokens)])[0][0]


# -- contexts --------------------------------------------------------------------------------------


def test_logits_are_those_of_llama_cpp_used_directly(
    tiny: TinyFederation, context: LlamaContext
) -> None:
    (rows,) = context.evaluate([Run(0, 0, TEXTS[0], wanted=4)])
    np.testing.assert_allclose(rows, llama_logits(tiny.small, TEXTS[0]), atol=ENGINE)


def test_several_sequences_at_once_are_as_one_by_one(
    model: LlamaModel, context: LlamaContext
) -> None:
    together = context.evaluate([Run(i, 0, text) for i, text in enumerate(TEXTS)])
    for rows, text in zip(together, TEXTS, strict=True):
        np.testing.assert_allclose(rows[0], fresh(model, text), atol=BATCHED)


def test_only_the_wanted_last_rows_are_given(context: LlamaContext) -> None:
    (all_rows,) = context.evaluate([Run(0, 0, TEXTS[2], wanted=6)])
    last_two, none = context.evaluate([Run(1, 0, TEXTS[2], wanted=2), Run(2, 0, [5], wanted=0)])
    np.testing.assert_allclose(last_two, all_rows[-2:], atol=BATCHED)
    assert none.shape == (0, all_rows.shape[1])


def test_a_text_longer_than_a_batch_is_as_one_in_pieces(model: LlamaModel) -> None:
    text = [5 + i % 300 for i in range(700)]
    with LlamaContext(model, tokens=1536, sequences=2, threads=1) as context:
        (whole,) = context.evaluate([Run(0, 0, text)])
        context.evaluate([Run(1, 0, text[:100], wanted=0)])
        (pieces,) = context.evaluate([Run(1, 100, text[100:])])
    np.testing.assert_allclose(whole, pieces, atol=BATCHED)


def test_a_shared_beginning_is_as_its_own(model: LlamaModel, context: LlamaContext) -> None:
    context.evaluate([Run(0, 0, [5, 6, 7], wanted=0)])
    context.share(0, 1)
    one, other = context.evaluate([Run(0, 3, [8]), Run(1, 3, [9])])
    np.testing.assert_allclose(one[0], fresh(model, [5, 6, 7, 8]), atol=BATCHED)
    np.testing.assert_allclose(other[0], fresh(model, [5, 6, 7, 9]), atol=BATCHED)


def test_what_was_forgotten_has_no_effect(model: LlamaModel, context: LlamaContext) -> None:
    context.evaluate([Run(0, 0, [5, 6, 20, 21]), Run(1, 0, [9])])
    context.forget(0, 2)
    one, other = context.evaluate([Run(0, 2, [7, 8]), Run(1, 1, [10])])
    np.testing.assert_allclose(one[0], fresh(model, TEXTS[0]), atol=BATCHED)
    np.testing.assert_allclose(other[0], fresh(model, TEXTS[1]), atol=BATCHED)


def test_results_are_copies(context: LlamaContext) -> None:
    (first,) = context.evaluate([Run(0, 0, [5])])
    before = first.copy()
    context.evaluate([Run(1, 0, [9])])
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("length", [257, 300, 513, 1100])
def test_too_long_a_text_is_refused_and_the_context_stays_usable(
    model: LlamaModel, context: LlamaContext, length: int
) -> None:
    with pytest.raises(UsageError, match="does not fit into a context of 256 tokens; shorten it"):
        context.evaluate([Run(0, 0, [5] * length)])
    context.forget(0)
    (rows,) = context.evaluate([Run(0, 0, TEXTS[0])])
    np.testing.assert_allclose(rows[0], fresh(model, TEXTS[0]), atol=BATCHED)


@pytest.mark.parametrize("token", [-1, 384, 2**31, 2**64])
def test_a_token_that_does_not_exist_is_refused_before_anything_happens(
    context: LlamaContext, token: int
) -> None:
    with pytest.raises(UsageError, match=f"token {token} is not in the vocabulary of 384 tokens"):
        context.evaluate([Run(0, 0, [5, token])])
    context.evaluate([Run(0, 0, [5])])


@pytest.mark.parametrize("run", [Run(7, 0, [5]), Run(-1, 0, [5])])
def test_a_sequence_that_does_not_exist_is_an_error_of_ours(
    context: LlamaContext, run: Run
) -> None:
    with pytest.raises(ModelFileError, match=r"llama.cpp failed"):
        context.evaluate([run])
    context.evaluate([Run(0, 0, [5])])


def test_more_rows_than_tokens_cannot_be_wanted(context: LlamaContext) -> None:
    for tokens in ([], [5]):
        with pytest.raises(UsageError, match=f"2 rows .* of {len(tokens)} tokens"):
            context.evaluate([Run(0, 0, tokens, wanted=2)])


def test_nothing_to_evaluate_is_nothing(context: LlamaContext) -> None:
    assert context.evaluate([]) == []


def test_closing_twice_is_no_matter(tiny: TinyFederation) -> None:
    with LlamaModel(tiny.small) as model, LlamaContext(model, tokens=64) as context:
        context.close()
        context.close()


# -- adapters --------------------------------------------------------------------------------------


def test_an_adapter_on_one_context_leaves_the_other_as_it_is(
    tiny: TinyFederation, model: LlamaModel
) -> None:
    before = fresh(model, TEXTS[0])
    with (
        LlamaContext(model, tokens=64, threads=1, adapter=tiny.adapter_gguf) as expert,
        LlamaContext(model, tokens=64, threads=1) as antiexpert,
    ):
        (tuned,) = expert.evaluate([Run(0, 0, TEXTS[0])])
        (plain,) = antiexpert.evaluate([Run(0, 0, TEXTS[0])])
    np.testing.assert_array_equal(plain[0], before)
    reference = llama_logits(tiny.small, TEXTS[0], tiny.adapter_gguf)[-1]
    np.testing.assert_allclose(tuned[0], reference, atol=2 * ENGINE)
    assert np.abs(tuned[0] - plain[0]).max() > 1


@pytest.mark.parametrize("size", [0, 100, -100])
def test_a_damaged_adapter_is_refused(
    tiny: TinyFederation, model: LlamaModel, tmp_path: Path, size: int
) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(tiny.adapter_gguf.read_bytes()[:size])
    with pytest.raises(AdapterError, match="not a usable adapter"):
        LlamaContext(model, tokens=64, adapter=damaged)


# -- one text --------------------------------------------------------------------------------------


def test_a_cached_text_is_as_a_fresh_one_after_every_edit(
    model: LlamaModel, context: LlamaContext
) -> None:
    cached = CachedText(context)
    for text in ([5, 6], [5, 6, 7], [5, 6, 7], [5, 6], [5, 9, 7, 8, 9], [8], [5, 9]):
        np.testing.assert_allclose(after(cached, text), fresh(model, text), atol=BATCHED)


def after(cached: CachedText, text: list[int]) -> Logits:
    kept = cached.begin(text[:-1])
    return np.asarray(cached.append(text[kept:], 1)[0])


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.integers(3, 6), min_size=1, max_size=6), min_size=1, max_size=6))
def test_any_edits_end_at_the_same_logits(
    model: LlamaModel, context: LlamaContext, texts: list[list[int]]
) -> None:
    cached = CachedText(context)
    cached.rewind(0)
    for text in texts:
        got = after(cached, text)
    np.testing.assert_allclose(got, fresh(model, texts[-1]), atol=BATCHED)


def test_several_rows_are_those_of_each_position(model: LlamaModel, context: LlamaContext) -> None:
    cached = CachedText(context)
    rows = cached.append([5, 6, 7, 8], 3)
    for row, end in zip(rows, (2, 3, 4), strict=True):
        np.testing.assert_allclose(row, fresh(model, [5, 6, 7, 8][:end]), atol=BATCHED)
    cached.rewind(2)
    assert list(cached.tokens) == [5, 6]
    np.testing.assert_allclose(cached.append([9], 1)[0], fresh(model, [5, 6, 9]), atol=BATCHED)


@pytest.mark.parametrize(("kind", "apart"), [("Q8_0", 0.0), ("F32", 1e-4)])
def test_logits_are_the_same_however_a_text_is_cut_and_on_however_many_threads(
    tiny: TinyFederation, tmp_path: Path, kind: str, apart: float
) -> None:
    """Drafts are judged by the very rows of single tokens: quantised weights give every bit."""
    convert_model(tiny.small_folder, tmp_path / "model.gguf", kind=kind)
    text = [3 + number * 7 % 380 for number in range(640)]

    def last_rows(cuts: list[int], threads: int | None) -> Logits:
        with LlamaContext(model, tokens=1024, threads=threads) as context:
            cached = CachedText(context)
            rows = [cached.append(text[:600], 1)]
            for size in cuts:
                begin = len(cached.tokens)
                rows.append(cached.append(text[begin : begin + size], size))
            return np.concatenate(rows)

    with LlamaModel(tmp_path / "model.gguf") as model:
        expected = last_rows([1] * 40, 1)
        for cuts in ([1] * 40, [8] * 5, [3, 5, 16, 1, 15]):
            for threads in (1, 2, None):
                assert np.abs(last_rows(cuts, threads) - expected).max() <= apart


def test_a_text_that_grew_too_long_leaves_a_usable_cache(
    model: LlamaModel, context: LlamaContext
) -> None:
    cached = CachedText(context)
    cached.append([5] * 200, 1)
    for bad in ([5] * 700, [5, 384], []):
        with pytest.raises(UsageError):
            cached.append(bad, 1)
    np.testing.assert_allclose(after(cached, [5, 6]), fresh(model, [5, 6]), atol=BATCHED)


# -- tokens ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(text=st.text())
@pytest.mark.parametrize("special", [False, True])
def test_a_text_comes_back_from_its_tokens(model: LlamaModel, special: bool, text: str) -> None:
    assert model.text(model.tokenize(text, special=special)) == text


@pytest.mark.parametrize("text", ["", "a\0b", "Küche 🦙", "<|im_end", " " * 3000, "x" * 3000])
def test_odd_texts_come_back_too(model: LlamaModel, text: str) -> None:
    assert model.text(model.tokenize(text, special=True)) == text


def test_half_a_character_becomes_a_question_mark(model: LlamaModel) -> None:
    assert model.text(model.tokenize("a\ud800b", special=False)) == "a?b"


def test_special_spellings_are_one_token_only_on_demand(model: LlamaModel) -> None:
    assert model.tokenize("<|im_end|>", special=True) == [2]
    assert len(model.tokenize("<|im_end|>", special=False)) > 1
    assert model.piece(2) == b""


@pytest.mark.parametrize("token", [-1, 384, 2**40])
def test_a_token_that_does_not_exist_has_no_piece(model: LlamaModel, token: int) -> None:
    with pytest.raises(UsageError, match=f"token {token} is not"):
        model.piece(token)


def test_a_part_of_a_character_is_shown_as_one(model: LlamaModel) -> None:
    first_half = [token for token in range(3, 384) if model.piece(token) == "ü".encode()[:1]]
    assert model.text(first_half) == "�"


def test_the_model_knows_its_special_tokens(model: LlamaModel) -> None:
    assert model.vocabulary.tokens[model.end_token] == "<|im_end|>"
    assert model.is_end(model.end_token)
    assert not model.is_end(5)
    assert model.begin_token is None
    assert "<|im_start|>" in model.chat_template
    assert model.vocabulary_size == 384


def test_a_vocabulary_alone_tokenizes(tiny: TinyFederation, model: LlamaModel) -> None:
    with LlamaModel(tiny.small, vocabulary_only=True) as vocabulary:
        ids = vocabulary.tokenize("The lamp", special=False)
    assert ids == model.tokenize("The lamp", special=False)


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 5000, -1])
def test_a_damaged_model_is_refused_before_libllama_sees_it(
    tiny: TinyFederation, tmp_path: Path, size: int
) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(tiny.small.read_bytes()[:size])
    with pytest.raises(ModelFileError, match=r"damaged\.gguf"):
        LlamaModel(damaged)


def test_an_architecture_that_libllama_does_not_know_is_told(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    other = tmp_path / "other.gguf"
    shutil.copyfile(tiny.small, other)
    other.write_bytes(
        other.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lloma", 1)
    )
    with pytest.raises(ModelFileError, match=r"cannot load .*other.gguf \(architecture 'lloma'\)"):
        LlamaModel(other)


def test_a_path_with_odd_letters_is_no_matter(tiny: TinyFederation, tmp_path: Path) -> None:
    (tmp_path / "Küche").mkdir()
    shutil.copyfile(tiny.small, tmp_path / "Küche" / "m.gguf")
    LlamaModel(tmp_path / "Küche" / "m.gguf", vocabulary_only=True).close()
