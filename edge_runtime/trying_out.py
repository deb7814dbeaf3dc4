"""An assistant in this very process: for trying models out, and for when the daemon is down."""

import os
import time
from contextlib import ExitStack
from pathlib import Path

from edge_runtime.assistant import Assistant
from edge_runtime.drivers.local_large import ParallelLarge
from edge_runtime.drivers.personal_shelf import PersonalShelf
from edge_runtime.personal import personal_adapter
from edge_runtime.settings import AssistantSettings, DeviceSettings
from edge_runtime.steering import LargeAccess, Traffic
from fedpt.drivers.llama import CachedText, LlamaContext, LlamaModel
from fedpt.vocabulary import require_same_vocabulary


def open_assistant(
    stack: ExitStack, small: Path, adapter: Path | None, large: Path | None, *, system: str
) -> Assistant:
    """An assistant of models by hand; `stack` frees them.

    Raises:
        ArtifactError: A file is missing or damaged, or they do not fit together.
    """
    model = stack.enter_context(LlamaModel(small))
    if large is None:
        return _assistant(stack, model, AssistantSettings(system_prompt=system), adapter)
    threads = max(1, (os.cpu_count() or 1) // 2)  # half for the small model, half for the large one
    # whole rows come in any case: no candidates need be picked before the large model is asked
    settings = AssistantSettings(system_prompt=system, threads=threads, candidate_logits=0)
    large_model = stack.enter_context(LlamaModel(large))
    require_same_vocabulary(model.vocabulary, large_model.vocabulary)
    context = stack.enter_context(
        LlamaContext(large_model, tokens=settings.context_tokens, threads=settings.threads)
    )
    parallel = stack.enter_context(ParallelLarge(CachedText(context), clock=time.monotonic))
    access = LargeAccess(parallel, Traffic())
    return _assistant(stack, model, settings, adapter, large=access)


def open_device_assistant(stack: ExitStack, settings: DeviceSettings) -> Assistant:
    """A device's assistant with the adapter that its daemon served last; local mode only.

    Raises:
        ArtifactError: A file is missing or damaged.
    """
    model = stack.enter_context(LlamaModel(settings.small))
    adapters = sorted((settings.state_dir / "adapters").glob("*.gguf"))
    newest = max(adapters, key=lambda path: path.stat().st_mtime) if adapters else None
    own = _personal_adapter(settings, model)
    return _assistant(stack, model, settings.assistant, own or newest, is_personal=own is not None)


def _personal_adapter(settings: DeviceSettings, model: LlamaModel) -> Path | None:
    if not settings.personal.enabled:
        return None
    shelf = PersonalShelf(settings.state_dir)
    path = shelf.gguf(personal_adapter(shelf.record(), model.weights))
    return path if path.is_file() else None


def _assistant(
    stack: ExitStack,
    model: LlamaModel,
    settings: AssistantSettings,
    adapter: Path | None,
    *,
    is_personal: bool = False,
    large: LargeAccess | None = None,
) -> Assistant:
    assistant = Assistant(model, settings, large=large)
    stack.callback(assistant.close)
    if adapter is not None:
        assistant.switch(adapter.stem, adapter, is_personal=is_personal)
    return assistant
