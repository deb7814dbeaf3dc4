"""As a child process: loads mutated GGUF files with libllama and computes with them.

`python -m tests.fakes.loads_gguf MODEL [ADAPTER]`, seeds on standard input, one a line; the last
file named is the one that is mutated. Says each seed before it tries it: the last one said is the
one that ended the process.
"""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp as ll

from fedpt.gguf_file import read_gguf
from tests.fakes.gguf_mutations import mutated, mutation


@ll.llama_log_callback  # type: ignore[untyped-decorator]  # ctypes
def _drop(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    pass


def main() -> None:
    """Try every seed that comes."""
    ll.llama_log_set(_drop, ctypes.c_void_p(0))
    model, *adapter = (Path(name) for name in sys.argv[1:])
    victim = adapter[0] if adapter else model
    content = victim.read_bytes()
    header_bytes = min(tensor.offset for tensor in read_gguf(victim).tensors.values())
    for seed in map(int, sys.stdin):
        _say(f"try {seed}")
        one = mutation(seed, header_bytes=header_bytes, file_bytes=len(content))
        with mutated(victim, content, one):
            loaded = _use(model, adapter[0] if adapter else None)
        _say("used" if loaded else "refused")
    _say("done")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _use(model_path: Path, adapter_path: Path | None) -> bool:
    """Load, tokenize and decode; whether libllama loaded it."""
    parameters = ll.llama_model_default_params()
    parameters.n_gpu_layers = 0
    model = ll.llama_model_load_from_file(str(model_path).encode(), parameters)
    if not model:
        return False
    try:
        return _decode(model, adapter_path)
    finally:
        ll.llama_model_free(model)


def _decode(model: Any, adapter_path: Path | None) -> bool:  # Any: a ctypes pointer
    adapter: Any = None
    if adapter_path:
        adapter = ll.llama_adapter_lora_init(model, str(adapter_path).encode())
        if not adapter:
            return False
    parameters = ll.llama_context_default_params()
    parameters.n_ctx = 64
    parameters.n_threads = parameters.n_threads_batch = 1
    context = ll.llama_init_from_model(model, parameters)
    if not context:
        return False
    if adapter:
        adapters = (ll.llama_adapter_lora_p_ctypes * 1)(adapter)
        ll.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0))
    for ids in _texts(ll.llama_model_get_vocab(model)):
        ll.llama_decode(context, ll.llama_batch_get_one(ids, len(ids)))
        ll.llama_get_logits(context)
    ll.llama_free(context)
    return True


def _texts(vocabulary: Any) -> Iterator[Any]:  # Any: ctypes' pointers and arrays
    size = ll.llama_vocab_n_tokens(vocabulary)
    text = "The lamp <|im_end|>\nist 12 ü!".encode()
    ids = (ll.llama_token * 64)()
    count = ll.llama_tokenize(vocabulary, text, len(text), ids, 48, True, True)
    if count > 0:
        yield (ll.llama_token * count)(*ids[:count])
    yield (ll.llama_token * 1)(size - 1)
    buffer = ctypes.create_string_buffer(64)
    for token in range(size):
        ll.llama_token_to_piece(vocabulary, token, buffer, 64, 0, True)


if __name__ == "__main__":
    main()
