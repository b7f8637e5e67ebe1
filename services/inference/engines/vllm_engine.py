"""The engine on vLLM, in process: a separate asyncio thread, no port, no usage statistics."""

import asyncio
import importlib
import math
import threading
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from services.inference.domain import ChatMessage, Sampling, Score
from services.inference.engines.chat import ChatTemplate
from services.inference.engines.finite import not_finite
from services.inference.engines.grammar import Grammars
from services.inference.engines.vllm_stream import VllmStream, engine_failed
from services.inference.ports import InferenceEngine
from tailor.compute_lock import awaiting_turns
from tailor.engine.environment import COMPUTE_LOCK, adapter_arguments, engine_arguments
from tailor.engine.overflow import OVERFLOW, end_overflows
from tailor.errors import FailedPrecondition, InvalidArgument, Reason, Unavailable
from tailor.hardware import computes_in_bf16, name_cores

T = TypeVar("T")

WATCH_SECONDS = 1.0
STOP_SECONDS = 3.0


def import_ahead() -> None:
    """Import vLLM, which takes seconds, while the process waits for something else. Call `prepare_environment` first."""
    importlib.import_module("vllm.v1.engine.async_llm")


class VllmEngine(InferenceEngine):
    """A base in vLLM, with adapters of the layers that `targets` name under our own ids."""

    def __init__(
        self,
        folder: Path,
        *,
        targets: Collection[str],
        context_length: int,
        max_loras: int,
        max_lora_rank: int,
        max_concurrent: int,
        compute_lock: Path | None = None,
    ) -> None:
        self._chat = ChatTemplate(folder)
        self.thought = self._chat.thought
        # vLLM itself takes those of the generation configuration.
        self._ends = self._chat.ends(None)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        arguments = {
            "model": str(folder),
            "max_model_len": context_length,
            **engine_arguments(max_concurrent),
            **adapter_arguments(targets, max_loras, max_lora_rank),
            "additional_config": {COMPUTE_LOCK: str(compute_lock)} if compute_lock else {},
        }
        self._engine: Any = self._wait(_start(arguments))
        self._grammars = Grammars(self._chat.tokenizer, folder, int(self._engine.model_config.get_vocab_size()))
        self.context_length = int(self._engine.model_config.max_model_len)
        self.device = _name_device()
        self._ids: dict[str, Any] = {}
        self._requests = 0
        self._lock = threading.Lock()
        self._scoring = threading.Lock()
        self._await_turn = awaiting_turns(compute_lock)

    def encode(self, messages: Sequence[ChatMessage], *, thinking: bool = False) -> tuple[int, ...]:
        return self._chat.encode(messages, thinking=thinking)

    def check_schema(self, schema: str, cancelled: Callable[[], bool]) -> None:
        """Try the schema, because vLLM would compile it here without a limit, and fail the answer with an error that names nothing."""
        self._grammars.check(schema, cancelled)

    def load(self, digest: str, folder: Path) -> None:
        from vllm.lora.request import LoRARequest

        with self._lock:
            # Ids are never reused, so that no cache can mistake one adapter for another.
            request = LoRARequest(digest, self._next(), str(folder))
        try:
            self._wait(self._engine.add_lora(request))
        except (ValueError, RuntimeError, OSError) as error:
            self._raise_if_dead()
            raise FailedPrecondition(
                Reason.ADAPTER_DOES_NOT_LOAD, f"The engine cannot load the adapter ({type(error).__name__})."
            ) from None
        self._ids[digest] = request

    def unload(self, digest: str) -> None:
        request = self._ids.pop(digest)
        self._wait(self._engine.remove_lora(request.lora_int_id))

    def generate(self, prompt: tuple[int, ...], adapter: str, sampling: Sampling) -> "VllmStream":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        parameters = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop),
            stop_token_ids=self._ends,
            skip_special_tokens=not sampling.with_control_tokens,
            repetition_penalty=sampling.repetition_penalty,
            logprobs=sampling.top_log_probabilities,
            structured_outputs=StructuredOutputsParams(json=sampling.schema) if sampling.schema else None,
            output_kind=RequestOutputKind.DELTA,
        )
        outputs = self._outputs(prompt, adapter, parameters)
        return VllmStream(outputs, self._run, self._chat.token, sampling)

    def score(self, messages: Sequence[ChatMessage], completion: str, adapter: str) -> Score:
        prompt, answer = self._chat.encode_answered(messages, completion)
        return self.score_tokens(prompt + answer, len(prompt), adapter)

    def score_tokens(self, tokens: tuple[int, ...], prompt_length: int, adapter: str) -> Score:
        """Score the tokens from `prompt_length` on.

        Scores one row at a time, because several rows with prompt log-probabilities kill vLLM 0.32's engine on CPU.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._chat.check(tokens)
        answer = tokens[prompt_length:]
        if len(tokens) >= self.context_length:
            raise InvalidArgument(
                Reason.ROW_TOO_LONG,
                f"Prompt and answer have {len(tokens)} tokens; at most {self.context_length - 1} fit.",
            )
        parameters = SamplingParams(
            temperature=0.0, max_tokens=1, prompt_logprobs=0, output_kind=RequestOutputKind.FINAL_ONLY
        )
        with self._scoring:
            self._await_turn()
            positions = self._wait(self._prompt_logprobs(tokens, adapter, parameters))
        scored = zip(positions[prompt_length:], answer, strict=True)
        total = sum(float(position[token].logprob) for position, token in scored)
        if not math.isfinite(total):
            raise not_finite()
        return Score(total, len(answer))

    def watch(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Block until `stop` is set. Raises Unavailable (ENGINE_DEAD) if the engine dies; the process must then be restarted.

        The engine's steps run in its event loop: a step that hangs, for example in a driver, ends the beats.
        """
        answer = self._run(asyncio.sleep(0))
        while not stop.wait(WATCH_SECONDS):
            self._raise_if_dead()
            if answer.done():
                beat()
                answer = self._run(asyncio.sleep(0))

    def close(self) -> None:
        self._wait(_stop(self._engine))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _prompt_logprobs(self, tokens: tuple[int, ...], adapter: str, parameters: Any) -> list[Any]:
        positions: list[Any] = []
        async for output in self._outputs(tokens, adapter, parameters):
            if output.outputs[0].stop_reason == OVERFLOW:
                raise not_finite()
            positions = list(output.prompt_logprobs)
        return positions

    def _outputs(self, prompt: tuple[int, ...], adapter: str, parameters: Any) -> Any:
        with self._lock:
            number = self._next()
        return self._engine.generate(
            {"prompt_token_ids": list(prompt)},
            parameters,
            str(number),
            lora_request=self._ids[adapter] if adapter else None,
        )

    def _next(self) -> int:
        self._requests += 1
        return self._requests

    def _run(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            return self._run(work).result()
        except (EngineDeadError, EngineGenerateError):
            raise engine_failed() from None

    def _raise_if_dead(self) -> None:
        if self._engine.errored:
            raise Unavailable(Reason.ENGINE_DEAD, "The engine died. The process will be restarted.")


async def _start(arguments: dict[str, Any]) -> Any:
    from vllm.config import StructuredOutputsConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    settings = AsyncEngineArgs(
        dtype="bfloat16" if computes_in_bf16() else "float32",
        enable_log_requests=False,
        structured_outputs_config=StructuredOutputsConfig(backend="guidance", disable_any_whitespace=True),
        **arguments,
    )
    engine = AsyncLLM.from_engine_args(settings)
    end_overflows(engine)
    return engine


async def _stop(engine: Any) -> None:
    engine.shutdown()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=STOP_SECONDS)


def _name_device() -> str:
    """Ask the platform, which needs no further context on the GPU."""
    from vllm.platforms import current_platform

    return name_cores() if current_platform.is_cpu() else f"1 x {current_platform.get_device_name()}"
