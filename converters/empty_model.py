"""A family's own transformers class without weights: no memory, no time for random numbers."""

from typing import Any

from accelerate import init_empty_weights
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM

from converters.model_source import SourceModel
from fedpt.errors import ModelFileError


def empty_model(source: SourceModel, name: str) -> Any:  # Any: transformers has no types
    """The model; buffers such as rotary frequencies are real, for they are in no file.

    Args:
        source: Whose hyperparameters.
        name: What an error calls it.

    Raises:
        ModelFileError: The hyperparameters make no model.
    """
    settings = {key: value for key, value in source.config.items() if key != "model_type"}
    try:
        config = AutoConfig.for_model(source.config["model_type"], **settings)
        with init_empty_weights(include_buffers=False):
            return AutoModelForCausalLM.from_config(config)
    except (StrictDataclassError, ValueError, ArithmeticError) as error:
        reason = " ".join(str(error).split())
        raise ModelFileError(f"{name}: its hyperparameters make no model: {reason}") from error
