"""What the header of a model's GGUF file says, whether or not there is such a file.

Adapters are converted by a header alone, so the base may as well be a transformers folder.
"""

from pathlib import Path

from converters.hyperparameters import config_to_metadata
from converters.model_source import SourceModel
from converters.tensor_changes import changed_shape
from converters.tensor_names import parts_of
from fedpt.gguf_file import WEIGHTS_KEY, GgufFile, GgufValue, TensorInfo


def header_of(model: SourceModel) -> GgufFile:
    """The header; for a folder, tensors without a place.

    Raises:
        ModelFileError: The model's configuration is not supported.
    """
    if not isinstance(model.origin, Path):
        file = model.origin
        return GgufFile(file.path, {**file.metadata, WEIGHTS_KEY: model.weights}, file.tensors)
    metadata: dict[str, GgufValue] = {
        "general.architecture": model.architecture.gguf_name,
        "general.name": model.name,
        WEIGHTS_KEY: model.weights,
        **config_to_metadata(model.config, model.architecture, row_count=model.row_count),
    }
    parts = parts_of(model.architecture, model.layers)
    tensors: dict[str, TensorInfo] = {}
    for key, tensor in model.tensors.items():
        module, _, kind = key.rpartition(".")
        name, part = parts[module]
        shape = changed_shape(tensor.shape, part.change)
        tensors[f"{name}.{kind}"] = TensorInfo(f"{name}.{kind}", shape, 0, 0, 0)
    return GgufFile(model.origin, metadata, tensors)
