"""llama.cpp's logits by the shortest way, to compare with: our own engine is not in between."""

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np

from converters.libllama import caught_log


def llama_logits(gguf: Path, ids: list[int], adapter: Path | None = None) -> np.ndarray:
    """Logits of every position, `(T, V)`, of a model or of a model with an adapter."""
    with caught_log() as errors:
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        model = llama_cpp.llama_model_load_from_file(str(gguf).encode(), parameters)
        assert model, errors
        try:
            return _decode(model, ids, adapter)
        finally:
            llama_cpp.llama_model_free(model)


def _decode(model: int, ids: list[int], adapter: Path | None) -> np.ndarray:
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = max(len(ids), 32)
    parameters.n_threads = parameters.n_threads_batch = 1
    parameters.type_k = parameters.type_v = llama_cpp.GGML_TYPE_F32  # half precision is 1e-3 off
    parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, parameters)
    assert context
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    try:
        if adapter:
            _set_adapter(context, model, adapter)
        _fill(batch, ids)
        assert llama_cpp.llama_decode(context, batch) == 0
        width = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        rows = llama_cpp.llama_get_logits(context)
        return np.ctypeslib.as_array(rows, shape=(len(ids), width)).copy()
    finally:
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)


def _set_adapter(context: int, model: int, path: Path) -> None:
    adapter = llama_cpp.llama_adapter_lora_init(model, str(path).encode())
    assert adapter
    adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)
    assert llama_cpp.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)) == 0


def _fill(batch: llama_cpp.llama_batch, ids: list[int]) -> None:
    batch.n_tokens = len(ids)
    for place, token in enumerate(ids):
        batch.token[place] = token
        batch.pos[place] = place
        batch.n_seq_id[place] = 1
        batch.seq_id[place][0] = 0
        batch.logits[place] = 1
