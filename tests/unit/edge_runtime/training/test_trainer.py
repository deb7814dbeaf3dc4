"""The training loop on a tiny model, judged by transformers and PEFT."""

import copy
import warnings
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from peft.utils import get_peft_model_state_dict
from torch.nn.functional import cross_entropy

from converters.gguf_to_torch import load_causal_lm
from converters.lora_in_torch import answer_logits, answer_tokens, put_on, read_off
from edge_runtime.training.trainer import Trained, encode_for, require_base, train
from edge_runtime.training_job import TrainingStep
from fedpt.adapters import Adapter, require_same_form
from fedpt.chat import EncodedExample
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import TrainingError, WrongBaseError
from fedpt.wire.messages import TrainingPlan
from tests.fakes.tiny_federation import EXAMPLES, TinyFederation
from tests.fakes.wire_messages import PLAN

pytestmark = pytest.mark.llama

THREE_EPOCHS = msgspec.structs.replace(PLAN, epochs=3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """And PEFT's own warning, of transformers 6, silenced."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
    torch.set_num_threads(before)


def run(
    model: LlamaModel,
    adapter: Adapter,
    examples: list[EncodedExample],
    plan: TrainingPlan = THREE_EPOCHS,
    *,
    seed: int = 1,
) -> tuple[Trained, list[TrainingStep]]:
    steps: list[TrainingStep] = []
    return train(model, adapter, examples, plan, seed=seed, on_step=steps.append), steps


def test_the_loss_falls_and_the_result_says_so(
    model: LlamaModel, tiny: TinyFederation, encoded: list[EncodedExample]
) -> None:
    trained, steps = run(model, tiny.adapter, encoded)
    assert trained.result.loss < 0.9 * trained.result.first_loss
    assert trained.result.example_count == len(EXAMPLES)
    assert [step.done for step in steps] == list(range(1, 10))
    assert {step.total for step in steps} == {9}
    require_same_form(trained.adapter, tiny.adapter)


def test_the_same_seed_gives_the_same_update(
    model: LlamaModel, tiny: TinyFederation, encoded: list[EncodedExample]
) -> None:
    first, _ = run(model, tiny.adapter, encoded, PLAN)
    again, _ = run(model, tiny.adapter, encoded, PLAN)
    other, _ = run(model, tiny.adapter, encoded, PLAN, seed=2)
    for name, tensor in first.adapter.tensors.items():
        np.testing.assert_array_equal(tensor, again.adapter.tensors[name])
    assert first.result.loss != other.result.loss


def test_an_adapter_is_read_off_as_it_was_put_on(tiny: TinyFederation) -> None:
    network = put_on(load_causal_lm(tiny.small), tiny.adapter)
    ours = read_off(network, tiny.adapter.manifest).tensors
    theirs = get_peft_model_state_dict(network)
    assert ours.keys() == theirs.keys() == tiny.adapter.tensors.keys()
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor, tiny.adapter.tensors[name])
        np.testing.assert_array_equal(tensor, theirs[name].detach().numpy())


def test_the_loss_is_that_of_transformers_with_the_prompts_masked(
    tiny: TinyFederation, encoded: list[EncodedExample]
) -> None:
    network = put_on(load_causal_lm(tiny.small), tiny.adapter)
    texts = [torch.tensor([*one.prompt, *one.answer]) for one in encoded]
    ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    labels = torch.full_like(ids, -100)  # what transformers leaves out
    for row, one in enumerate(encoded):
        start = len(one.prompt)
        labels[row, start : start + len(one.answer)] = torch.tensor(one.answer)
    with torch.no_grad():
        ours = cross_entropy(answer_logits(network, encoded), answer_tokens(encoded))
        theirs = network(input_ids=ids, attention_mask=(ids >= 0).long(), labels=labels).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)  # float32, another order


def test_a_loss_that_is_not_finite_is_an_error(
    model: LlamaModel, tiny: TinyFederation, encoded: list[EncodedExample]
) -> None:
    broken = copy.deepcopy(tiny.adapter.tensors)
    next(iter(broken.values()))[:] = np.nan
    with pytest.raises(TrainingError, match="the loss is nan at step 1; lower the learning rate"):
        run(model, replace(tiny.adapter, tensors=broken), encoded)


def test_an_adapter_for_another_base_is_refused(model: LlamaModel, tiny: TinyFederation) -> None:
    other = msgspec.structs.replace(tiny.adapter.manifest, base_weights="0" * 64)
    with pytest.raises(WrongBaseError, match="was trained on the base model 000000000000"):
        require_base(replace(tiny.adapter, manifest=other), model)
    require_base(tiny.adapter, model)


def test_long_examples_are_cut_to_the_room_and_keep_an_answer(model: LlamaModel) -> None:
    cut = encode_for(model, EXAMPLES, room=16)
    assert max(len(one.prompt) + len(one.answer) for one in cut) == 16
    assert all(one.prompt and one.answer for one in cut)
