"""The files of a federation, tiny and real: two GGUF models of one vocabulary, adapter, examples.

torch is imported by the functions that need it, so that importing this costs nothing.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpt.adapters import Adapter
from fedpt.examples import Example
from fedpt.proxy_tuning import Coefficients, Logits, Rows, steer_logits

EXAMPLES = [
    Example("Turn on the lamp", "The lamp turns on the kitchen."),
    Example("Close the window of room 12", "A window is closed room 12."),
    Example("Öffne die Küche", "Die Küche öffnet Straße 5."),
    Example("What rings?", "The alarm rings at 7:30 in the garden.", "You are a house."),
    Example("Play my radio", "My radio can't play the hall, isn't it."),
]

LOGIT_TOLERANCE = 0.03
"""Between llama.cpp and torch: the engine's cache holds half-precision keys and values, and logits
of these models spread by about one."""


@dataclass(frozen=True)
class TinyFederation:
    """Where everything is."""

    folder: Path
    small: Path
    large: Path
    small_folder: Path
    large_folder: Path
    adapter: Adapter
    """As its blob holds it, rounding included."""
    adapter_blob: Path
    adapter_gguf: Path
    adapter_folder: Path
    data: Path
    store: Path
    """The same examples, as a device has them."""


def make_tiny_federation(folder: Path) -> TinyFederation:
    """Write all of it into `folder`."""
    from converters.adapter_to_gguf import convert_adapter
    from converters.model_to_gguf import convert_model
    from edge_runtime.data.store import DataStore
    from fedpt.adapters import (
        adapter_from_bytes,
        adapter_to_bytes,
        read_peft_folder,
        write_peft_folder,
    )
    from fedpt.examples import write_examples
    from fedpt.gguf_file import read_gguf, weights_sha256
    from tests.fakes.tiny_models import make_tiny_adapter, make_tiny_llama

    small_folder = make_tiny_llama(folder / "small")
    large_folder = make_tiny_llama(folder / "large", seed=7, hidden=96, tied=False)
    for one in (small_folder, large_folder):
        convert_model(one, one.with_suffix(".gguf"), kind="F32")
    base = read_gguf(folder / "small.gguf")
    raw = make_tiny_adapter(folder / "raw-adapter", small_folder)
    blob = adapter_to_bytes(read_peft_folder(raw, base_weights=weights_sha256(base)))
    adapter = adapter_from_bytes(blob)
    (folder / "adapter.blob").write_bytes(blob)
    convert_adapter(adapter, base, folder / "adapter.gguf")
    write_peft_folder(adapter, folder / "adapter")
    write_examples(folder / "data.jsonl", EXAMPLES)
    DataStore(folder / "private.db").add(EXAMPLES)
    return TinyFederation(
        folder=folder,
        small=base.path,
        large=folder / "large.gguf",
        small_folder=small_folder,
        large_folder=large_folder,
        adapter=adapter,
        adapter_blob=folder / "adapter.blob",
        adapter_gguf=folder / "adapter.gguf",
        adapter_folder=folder / "adapter",
        data=folder / "data.jsonl",
        store=folder / "private.db",
    )


class Reference:
    """The three models as transformers and PEFT compute them; slow and straightforward."""

    def __init__(self, tiny: TinyFederation) -> None:
        from transformers import AutoModelForCausalLM

        from tests.fakes.tiny_models import load_tuned

        self._large = AutoModelForCausalLM.from_pretrained(tiny.large_folder).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PEFT wonders at `fedpt_base_weights`
            self._expert = load_tuned(tiny.small_folder, tiny.adapter_folder)
        self._antiexpert = AutoModelForCausalLM.from_pretrained(tiny.small_folder).eval()

    def rows(self, tokens: list[int]) -> Rows:
        """Each model's logits at every position, `(T, V)`."""
        from tests.fakes.tiny_models import torch_logits

        return Rows(
            torch_logits(self._large, tokens),
            torch_logits(self._expert, tokens),
            torch_logits(self._antiexpert, tokens),
        )

    def is_greedy(
        self, prompt: tuple[int, ...], answer: list[int], coefficients: Coefficients
    ) -> bool:
        """Whether every token of the answer is the most likely one after those before it.

        Up to the tolerance: where two tokens are as likely, either engine may choose either.
        """
        rows = self.rows([*prompt, *answer])
        logits: Logits = steer_logits(rows, coefficients)[len(prompt) - 1 : -1]
        chosen = logits[np.arange(len(answer)), answer]
        weight = sum(map(abs, coefficients))
        return bool((chosen >= logits.max(axis=-1) - weight * LOGIT_TOLERANCE).all())
