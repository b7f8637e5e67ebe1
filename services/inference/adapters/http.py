"""The OpenAI-style door over HTTP: `/v1/models` and `/v1/chat/completions`, over the same handlers, keys and roles as gRPC."""

import asyncio
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio.to_thread
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from services.inference import handlers
from services.inference.domain import DEFAULT_MAX_TOKENS, Ask, Caller, Sampling, Turn
from services.inference.handlers import Answer, Cancellation, Door
from tailor.api.inference.v1 import inference_pb2
from tailor.errors import Code, InvalidArgument, TailorError
from tailor.rpc.auth import Authenticator
from tailor.rpc.auth import Caller as Admitted

STATUS = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.FAILED_PRECONDITION: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
METHODS = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].methods_by_name
DISCONNECT_SECONDS = 0.5

T = TypeVar("T")


class ChatMessage(BaseModel):
    """One message; parts of text are joined."""

    role: Literal["system", "user", "assistant", "developer"]
    content: str | list[dict[str, Any]]

    def turn(self) -> Turn:
        """The message in our own terms; InvalidArgument for parts that are not text."""
        content = self.content
        if isinstance(content, list):
            if any(part.get("type") != "text" for part in content):
                raise InvalidArgument("TEXT_ONLY", "Only text can be asked.")
            content = "".join(str(part.get("text", "")) for part in content)
        return Turn("system" if self.role == "developer" else self.role, content)


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """What the OpenAI clients send; fields that change nothing here are accepted, several choices and tools are not."""

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[ChatMessage]
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int = Field(1, ge=1, le=1)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    def ask(self) -> Ask:
        """The question in our own terms."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        limit = self.max_completion_tokens or self.max_tokens or DEFAULT_MAX_TOKENS
        sampling = Sampling(self.temperature, self.top_p, abs(self.seed) if self.seed else None, limit, tuple(stop))
        return Ask(self.model, tuple(message.turn() for message in self.messages), sampling)


def create_app(door: Door, authenticator: Authenticator, max_threads: int) -> FastAPI:
    """The application; it answers 503 until the door is open."""
    app = FastAPI(title="Tailor inference", docs_url=None, redoc_url=None, openapi_url=None)

    async def known(request: Request) -> tuple[Admitted, str]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = max_threads
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        secret = token.strip() if scheme.lower() == "bearer" else ""
        return await asyncio.to_thread(authenticator.authenticate, secret), secret

    def admit(who: Admitted, method: str) -> Caller:
        authenticator.admit(who, METHODS[method])
        return Caller(who.kind, who.name, who.specialists, who.key_id)

    @app.exception_handler(TailorError)
    async def refused(_: Request, error: TailorError) -> Response:
        headers = {"retry-after": str(math.ceil(error.retry_after_seconds))} if error.retry_after_seconds else None
        return JSONResponse(_error(error.reason, error.message), STATUS.get(error.code, 500), headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        fields = ", ".join(sorted({".".join(map(str, found["loc"][1:])) for found in error.errors()}))
        return JSONResponse(_error("INVALID_REQUEST", f"Wrong or missing: {fields}."), 400)

    @app.get("/v1/models")
    async def models(who: tuple[Admitted, str] = Depends(known)) -> dict[str, Any]:
        asker = admit(who[0], "ListSpecialists")
        names = [name for name, _ in handlers.list_specialists(door.inference(), asker)]
        return {
            "object": "list",
            "data": [{"id": n, "object": "model", "created": 0, "owned_by": "tailor"} for n in names],
        }

    @app.post("/v1/chat/completions")
    async def completions(
        body: ChatRequest,
        request: Request,
        who: tuple[Admitted, str] = Depends(known),
    ) -> Response:
        asker = admit(who[0], "StreamGenerate" if body.stream else "Generate")
        inference = door.inference()
        cancellation = Cancellation()
        ask = body.ask()
        answer = await _unless_gone(
            request,
            cancellation,
            lambda: anyio.to_thread.run_sync(handlers.generate, inference, asker, ask, cancellation),
        )
        if body.stream:
            lines = _chunks(body.model, answer, usage=body.stream_options.include_usage)
            lines = _while_admitted(lines, lambda: authenticator.still_admits(*who))
            return StreamingResponse(_closing(request, lines, cancellation, answer), media_type="text/event-stream")
        await _unless_gone(request, cancellation, lambda: anyio.to_thread.run_sync(_drain, answer))
        return JSONResponse(_completion(body.model, answer))

    return app


def serve(
    app: FastAPI,
    host: str,
    port: int,
    stop: threading.Event,
    tls: tuple[Path | None, Path | None] = (None, None),
) -> None:
    """Serve until told to stop; over TLS where a certificate and its key (PEM) are given."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",
            ssl_certfile=tls[0],
            ssl_keyfile=tls[1],
        )
    )

    def end() -> None:
        stop.wait()
        server.should_exit = True

    threading.Thread(target=end, name="http-stop", daemon=True).start()
    server.run()


async def _unless_gone(request: Request, cancellation: Cancellation, work: Callable[[], Awaitable[T]]) -> T:
    """Do the work; if the client goes away meanwhile, cancel the generation."""
    task = asyncio.ensure_future(work())
    while not (await asyncio.wait([task], timeout=DISCONNECT_SECONDS))[0]:
        if await request.is_disconnected():
            cancellation.cancel()
    return await task


async def _closing(
    request: Request, lines: Iterator[str], cancellation: Cancellation, answer: Answer
) -> AsyncIterator[str]:
    """The lines; a client that goes away ends the generation."""
    try:
        while line := await _unless_gone(request, cancellation, lambda: anyio.to_thread.run_sync(next, lines, "")):
            yield line
    finally:
        cancellation.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(answer.close)


def _drain(answer: Answer) -> None:
    for _ in answer:
        pass


def _while_admitted(lines: Iterator[str], still_admits: Callable[[], None]) -> Iterator[str]:
    """The lines, until the caller's key is revoked; the connection then breaks off."""
    for line in lines:
        still_admits()
        yield line


def _chunks(model: str, answer: Answer, *, usage: bool) -> Iterator[str]:
    yield _line(model, answer, {"role": "assistant", "content": ""})
    for piece in answer:
        if piece.text:
            yield _line(model, answer, {"content": piece.text})
    yield _line(model, answer, {}, answer.finish_reason)
    if usage:
        yield _data(_head(model, answer, "chat.completion.chunk") | {"choices": [], "usage": _usage(answer)})
    yield "data: [DONE]\n\n"


def _line(model: str, answer: Answer, delta: dict[str, str], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _data(_head(model, answer, "chat.completion.chunk") | {"choices": [choice]})


def _completion(model: str, answer: Answer) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
    return _head(model, answer, "chat.completion") | {"choices": [choice], "usage": _usage(answer)}


def _head(model: str, answer: Answer, kind: str) -> dict[str, Any]:
    return {"id": answer.draft_id, "object": kind, "created": int(time.time()), "model": model}


def _usage(answer: Answer) -> dict[str, int]:
    total = answer.prompt_tokens + answer.completion_tokens
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": total,
    }


def _data(message: dict[str, Any]) -> str:
    return f"data: {json.dumps(message)}\n\n"


def _error(reason: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "tailor_error", "code": reason}}
