"""A small model with an adapter's GGUF on it, in torch."""

from pathlib import Path
from typing import Any

from converters.gguf_to_adapter import read_adapter
from converters.gguf_to_torch import load_causal_lm
from converters.lora_in_torch import put_on
from fedpt.gguf_file import read_gguf


def load_tuned(small: Path, adapter: Path) -> Any:  # Any: peft has no types
    """The small model, dequantised to float32, with the adapter beside its weights."""
    return put_on(load_causal_lm(small), read_adapter(adapter, read_gguf(small))).eval()
