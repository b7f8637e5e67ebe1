"""`python -m bench.inference_engine`: the service, with an engine that the bench can also ask directly.

For a line of JSON {callers, calls, tokens, prompt} on standard input it prints {seconds, tokens, wall_seconds}: concurrent callers ask vLLM itself, on
the event loop of the service's engine, without gRPC, key, checks, chat template, draft or thread in between.
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from services.inference.bootstrap import build
from services.inference.domain import ChatMessage
from services.inference.engines.vllm_engine import VllmEngine
from services.inference.settings import Settings
from tailor.runtime import Runtime, main


class Direct:
    """The vLLM engine inside the service's engine."""

    def __init__(self, engine: VllmEngine) -> None:
        self._encode = engine.encode
        self._vllm: Any = engine._engine
        self._loop = engine._loop

    def ask(self, callers: int, calls: int, tokens: int, prompt: str) -> dict[str, Any]:
        """The seconds of every call, the total of tokens, and the wall seconds."""
        encoded = self._encode([ChatMessage("user", prompt)])
        return asyncio.run_coroutine_threadsafe(self._all(callers, calls, tokens, encoded), self._loop).result()

    async def _all(self, callers: int, calls: int, tokens: int, prompt: tuple[int, ...]) -> dict[str, Any]:
        started = time.perf_counter()
        results = await asyncio.gather(*(self._calls(number, calls, tokens, prompt) for number in range(callers)))
        return {
            "seconds": [seconds for caller in results for seconds, _ in caller],
            "tokens": sum(written for caller in results for _, written in caller),
            "wall_seconds": time.perf_counter() - started,
        }

    async def _calls(self, caller: int, calls: int, tokens: int, prompt: tuple[int, ...]) -> list[tuple[float, int]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        results = []
        for number in range(calls):
            parameters = SamplingParams(temperature=0, max_tokens=tokens, output_kind=RequestOutputKind.FINAL_ONLY)
            started = time.perf_counter()
            async for output in self._vllm.generate(
                {"prompt_token_ids": list(prompt)}, parameters, f"direct-{started}-{caller}-{number}"
            ):
                written = len(output.outputs[0].token_ids)
            results.append((time.perf_counter() - started, written))
        return results


class Listening:
    """A runtime that answers lines when the service is ready. It recognises the engine by its `close`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def on_stop(self, close: Callable[[], None]) -> None:
        owner = getattr(close, "__self__", None)
        if isinstance(owner, VllmEngine):
            self._direct = Direct(owner)
        self._runtime.on_stop(close)

    def ready(self) -> None:
        self._runtime.ready()
        threading.Thread(target=self._answer, name="lines", daemon=True).start()

    def _answer(self) -> None:
        for line in sys.stdin:
            sys.stdout.write(json.dumps(self._direct.ask(**json.loads(line))) + "\n")
            sys.stdout.flush()


def build_listening(runtime: Runtime, settings: Settings) -> None:
    """The service, unchanged."""
    build(cast(Runtime, Listening(runtime)), settings)


if __name__ == "__main__":
    main("inference", Settings, build_listening)
