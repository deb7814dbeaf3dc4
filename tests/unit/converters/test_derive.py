"""A small model made of a large one: cached, resumable, and like it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from converters.derive import Recipe, choose_layers, derive, thinned
from converters.gguf_to_torch import load_causal_lm
from converters.healing import likeness
from converters.layer_repair import repair
from converters.layer_walk import hidden_states, states_after
from converters.model_to_gguf import convert_model
from fedpt.errors import ModelFileError, UsageError
from fedpt.gguf_file import read_gguf
from fedpt.progress import Progress
from fedpt.vocabulary import require_same_vocabulary, vocabulary_of
from tests.fakes.raw_llama import llama_logits
from tests.fakes.tiny_families import make_tiny_family
from tests.fakes.tiny_models import make_tiny_llama, torch_logits

RECIPE = Recipe(
    layers=5, repair_sequences=8, healing_sequences=12, healing_steps=50, sequence_tokens=32,
    kind="F32",
)  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("derive")
    convert_model(make_tiny_llama(folder / "m", layers=8), folder / "large.gguf", kind="F32")
    return folder / "large.gguf"


def test_a_derived_model_shares_its_vocabulary_and_is_served_as_it_was_trained(
    large: Path, tmp_path: Path
) -> None:
    derived = derive(large, tmp_path / "small", RECIPE)
    require_same_vocabulary(vocabulary_of(read_gguf(derived.gguf)), vocabulary_of(read_gguf(large)))
    from_torch = torch_logits(load_causal_lm(derived.gguf), [1, 5, 9, 40])
    assert abs(llama_logits(derived.gguf, [1, 5, 9, 40]) - from_torch).max() < 1e-3
    report = json.loads((derived.folder / "derive.json").read_text())
    assert report["likeness"]["kl"] == derived.likeness.kl < derived.before_healing.kl


def test_only_the_llama_family_can_be_thinned(tmp_path: Path) -> None:
    folder = make_tiny_family(tmp_path / "m", "qwen2")
    convert_model(folder, tmp_path / "m.gguf", kind="F32")
    with pytest.raises(ModelFileError, match="is a Qwen2ForCausalLM; only models of the llama fam"):
        derive(tmp_path / "m.gguf", tmp_path / "small", RECIPE)


def test_a_second_run_does_nothing(large: Path, tmp_path: Path) -> None:
    first = derive(large, tmp_path / "small", RECIPE)
    steps: list[Progress] = []
    assert derive(large, tmp_path / "small", RECIPE, on_progress=steps.append) == first
    assert steps == []


def test_other_text_makes_another_model(large: Path, tmp_path: Path) -> None:
    derive(large, tmp_path / "small", RECIPE)
    steps: list[Progress] = []
    texts = ["turn on the lamp " * 30]
    derive(large, tmp_path / "small", RECIPE, texts=texts, on_progress=steps.append)
    assert steps != []


def test_an_interrupted_run_goes_on_from_its_checkpoint(large: Path, tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done == 45:
            raise KeyboardInterrupt

    undisturbed = derive(large, tmp_path / "undisturbed", RECIPE)
    with pytest.raises(KeyboardInterrupt):
        derive(large, tmp_path / "small", RECIPE, on_progress=interrupt)
    assert not (tmp_path / "small").exists()
    steps: list[Progress] = []
    resumed = derive(large, tmp_path / "small", RECIPE, on_progress=steps.append)
    assert min(one.done for one in steps if one.total == 50) == 41
    assert resumed.likeness == undisturbed.likeness


def test_mending_brings_each_layer_nearer_to_where_it_should_be(large: Path) -> None:
    whole, kept = load_causal_lm(large), [0, 1, 2, 4, 7]
    tokens = torch.randint(0, 384, (8, 32), generator=torch.Generator().manual_seed(0))
    goals = states_after(whole, tokens, [*kept[1:], 8])
    small = thinned(whole, kept)

    def error() -> float:
        with torch.no_grad():
            *_, last = hidden_states(small, tokens)
        return float((last - goals[-1].float()).square().mean())

    before = error()
    repair(small, goals, tokens)
    assert error() < 0.7 * before


def test_a_model_with_all_layers_is_the_large_one(large: Path) -> None:
    whole = load_causal_lm(large)
    same = likeness(thinned(whole, range(8)), whole, torch.arange(64).view(2, 32))
    assert same.kl == pytest.approx(0, abs=1e-6)
    assert same.top1_agreement == 1


@pytest.mark.parametrize(("depth", "count"), [(30, 10), (30, 4), (30, 30), (6, 5), (24, 7)])
def test_the_first_and_the_last_layer_are_always_kept(depth: int, count: int) -> None:
    kept = choose_layers(depth, count, sink=min(11, depth - 2))
    assert kept == sorted(set(kept))
    assert (len(kept), kept[0], kept[-1]) == (count, 0, depth - 1)


@pytest.mark.parametrize("count", [3, 31])
def test_a_count_that_cannot_be_is_refused_with_the_range(count: int) -> None:
    with pytest.raises(UsageError, match="4 to 30"):
        choose_layers(30, count, sink=11)


def test_a_folder_that_holds_something_else_is_left_alone(large: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else"):
        derive(large, tmp_path, RECIPE)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_type_that_does_not_exist_is_refused_before_the_work(large: Path, tmp_path: Path) -> None:
    steps: list[Progress] = []
    recipe = replace(RECIPE, kind="Q99")
    with pytest.raises(UsageError, match="Q99"):
        derive(large, tmp_path / "small", recipe, on_progress=steps.append)
    assert steps == []
