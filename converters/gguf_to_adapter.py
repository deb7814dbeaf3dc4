"""An adapter's GGUF file as PEFT has it: the inverse of `converters.adapter_to_gguf`."""

from pathlib import Path

import numpy as np

from converters.adapter_factors import targets_of
from converters.gguf_tensors import read_values
from fedpt.adapter_file import require_adapter_fits
from fedpt.adapters import Adapter, AdapterManifest, AdapterTensors, module_kinds
from fedpt.errors import AdapterError
from fedpt.gguf_file import GgufFile, read_gguf, weights_sha256


def read_adapter(path: Path, base: GgufFile) -> Adapter:
    """Read a GGUF adapter; `fedpt.adapters.write_peft_folder` writes it.

    Args:
        path: The adapter's file.
        base: The model it is for, in any quantisation; of it only the header is looked at.

    Raises:
        AdapterError: It is damaged, no LoRA adapter, does not fit the base, or has factors of
            several ranks.
        WrongBaseError: It was trained on another base.
        ModelFileError: The base is of an unsupported family.
    """
    require_adapter_fits(path, base)
    file = read_gguf(path)
    tensors: AdapterTensors = {}
    modules: list[str] = []
    ranks: set[int] = set()
    known: set[str] = set()
    for target in targets_of(base).values():
        infos = [file.tensors.get(f"{target.tensor}.{one}") for one in ("lora_a", "lora_b")]
        if infos[0] is None or infos[1] is None:
            continue
        first, second = target.from_gguf(*(read_values(path, info) for info in infos if info))
        tensors |= dict(zip(target.names, (first, second), strict=True))
        modules.append(target.module)
        ranks.add(first.shape[0])
        known |= {info.name for info in infos if info}
    odd = sorted(file.tensors.keys() - known)
    if odd:
        raise AdapterError(f"{path}: {odd[0]!r} is of no linear layer of this family")
    if len(ranks) != 1:
        raise AdapterError(f"{path} has factors of the ranks {sorted(ranks)}; one is supported")
    (rank,) = ranks
    # llama.cpp takes an alpha of zero as a scale of one
    alpha = float(str(file.metadata["adapter.lora.alpha"])) or float(rank)
    manifest = AdapterManifest(
        base_weights=weights_sha256(base),
        rank=rank,
        alpha=alpha,
        target_modules=module_kinds(modules),
    )
    return Adapter(manifest, {name: np.asarray(one, np.float32) for name, one in tensors.items()})
