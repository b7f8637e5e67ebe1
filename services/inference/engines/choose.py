"""The engine of a replica, by its settings. Model libraries are imported here and not before."""

import importlib.util
import threading
from collections.abc import Callable
from functools import partial

from services.inference.ports import InferenceEngine
from services.inference.settings import Settings
from tailor.engine.environment import prepare_environment
from tailor.hardware import computes_in_bf16
from tailor.logging import get_logger

log = get_logger(__name__)


# Loads a base's `folder` into an engine. Adapters will change the layers that `targets` name; without targets there are none.
MakeEngine = Callable[..., InferenceEngine]


def choose_engine(settings: Settings) -> MakeEngine:
    """A function that makes the engine; `auto` chooses vLLM if it is installed.

    Imports of vLLM, which take seconds, continue in a thread.
    """
    name = _name_engine(settings)
    log.info("engine", engine=name)
    if name == "vllm":
        from services.inference.engines import vllm_engine

        prepare_environment(settings.kv_cache_gib, settings.compute_threads)
        threading.Thread(target=vllm_engine.import_ahead, name="import", daemon=True).start()
        return partial(
            vllm_engine.VllmEngine,
            context_length=settings.max_model_len,
            max_loras=settings.max_loras,
            max_lora_rank=settings.max_lora_rank,
            max_concurrent=settings.max_concurrent,
            compute_lock=settings.compute_lock,
        )
    from services.inference.engines.transformers_engine import TransformersEngine

    return partial(
        TransformersEngine,
        context_length=settings.max_model_len,
        threads=settings.compute_threads,
        compute_lock=settings.compute_lock,
    )


def takes_quantised(settings: Settings) -> bool:
    """True if the engine computes with quantised weights: vLLM, whose kernels for them compute in bf16."""
    return _name_engine(settings) == "vllm" and computes_in_bf16()


def _name_engine(settings: Settings) -> str:
    if settings.engine != "auto":
        return settings.engine
    return "vllm" if importlib.util.find_spec("vllm") else "transformers"
