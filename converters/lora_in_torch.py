"""An adapter on a torch model: put on, read off, and the model's logits where answers are.

What local training and distillation share. Their loops and losses are their own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict

from converters.answer_positions import at_answers, padded
from fedpt.adapters import Adapter, AdapterManifest
from fedpt.chat import EncodedExample


def put_on(model: Any, adapter: Adapter) -> PeftModel:  # Any: transformers has no types
    """The model with the adapter's factors as its only trainable parameters, in float32."""
    manifest = adapter.manifest
    config = LoraConfig(
        r=manifest.rank,
        lora_alpha=manifest.alpha,
        target_modules=list(manifest.target_modules),
        task_type="CAUSAL_LM",
        fan_in_fan_out=model.config.model_type == "gpt2",  # its weights are transposed
    )
    peft_model = get_peft_model(model, config)
    tensors = {name: torch.from_numpy(tensor) for name, tensor in adapter.tensors.items()}
    set_peft_model_state_dict(peft_model, tensors)
    return peft_model


def read_off(model: PeftModel, manifest: AdapterManifest) -> Adapter:
    """The adapter as it is now."""
    tensors = get_peft_model_state_dict(model)
    return Adapter(
        manifest,
        {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()},
    )


def trainable(model: PeftModel) -> list[torch.nn.Parameter]:
    """The adapter's parameters."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def answer_logits(model: PeftModel, examples: Sequence[EncodedExample]) -> torch.Tensor:
    """Logits `(N, V)` from which the answers' `N` tokens are predicted, example after example."""
    network = model.base_model.model
    body = getattr(network, network.base_model_prefix)  # `model`, or `transformer` in GPT-2
    hidden = body(input_ids=padded(examples), use_cache=False).last_hidden_state
    logits: torch.Tensor = network.get_output_embeddings()(at_answers(hidden, examples))
    return logits.float()
