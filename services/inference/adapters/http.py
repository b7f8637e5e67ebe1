"""The OpenAI-style door over HTTP: `/v1/models` and `/v1/chat/completions`, over the same handlers, keys and roles as gRPC."""

import asyncio
import math
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from services.inference import handlers
from services.inference.adapters import openai_wire as wire
from services.inference.adapters.limits import LimitedBody
from services.inference.answering import Answer, Cancellation
from services.inference.domain import Caller
from services.inference.handlers import Door
from tailor.api.inference.v1 import inference_pb2
from tailor.errors import Reason, TailorError
from tailor.logging import get_logger, place
from tailor.rpc.auth import Authenticator
from tailor.rpc.auth import Caller as Admitted

log = get_logger(__name__)

CODES = {404: Reason.NOT_FOUND, 405: Reason.METHOD_NOT_ALLOWED, 408: Reason.TOO_SLOW, 413: Reason.TOO_LARGE}
METHODS = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].methods_by_name
DISCONNECT_SECONDS = 0.5
STOP_SECONDS = 5

T = TypeVar("T")


@dataclass(frozen=True)
class Address:
    """Where the door listens; with TLS where it has a certificate and its key (PEM). Callers must have one that `client_ca` signed."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None


def create_app(door: Door, authenticator: Authenticator, max_threads: int) -> FastAPI:
    """The application; it answers 503 until the door is open."""
    app = FastAPI(title="Tailor inference", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(LimitedBody)
    _answer_errors(app)

    async def known(request: Request) -> tuple[Admitted, str]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = max_threads
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        secret = token.strip() if scheme.lower() == "bearer" else ""
        return await asyncio.to_thread(authenticator.authenticate, secret), secret

    def admit(who: Admitted, method: str) -> Caller:
        authenticator.admit(who, METHODS[method])
        return Caller(who.kind, who.name, who.specialists, who.key_id, who.role)

    @app.get("/v1/models")
    async def models(who: tuple[Admitted, str] = Depends(known)) -> dict[str, Any]:
        asker = admit(who[0], "ListSpecialists")
        return wire.models(name for name, _ in handlers.list_specialists(door.inference(), asker))

    @app.get("/v1/models/{name}")
    async def model(name: str, who: tuple[Admitted, str] = Depends(known)) -> dict[str, Any]:
        handlers.resolve(door.inference(), admit(who[0], "ListSpecialists"), name)
        return wire.model(name)

    @app.post("/v1/chat/completions")
    async def completions(
        body: wire.ChatRequest,
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
            usage = bool(body.stream_options and body.stream_options.include_usage)
            lines = wire.chunks(body.model, answer, lambda: authenticator.still_admits(*who), usage=usage)
            return StreamingResponse(_closing(request, lines, cancellation, answer), media_type="text/event-stream")
        await _unless_gone(request, cancellation, lambda: anyio.to_thread.run_sync(_drain, answer))
        return JSONResponse(wire.completion(body.model, answer))

    return app


def _answer_errors(app: FastAPI) -> None:
    """Every error in OpenAI's shape."""

    @app.exception_handler(TailorError)
    async def refused(_: Request, error: TailorError) -> Response:
        status = error.code.http_status
        wait = error.retry_after_seconds
        headers = None if wait is None else {"retry-after": str(max(1, math.ceil(wait)))}
        body = wire.error(error.reason, error.message, status, next(iter(error.field_violations), None))
        return JSONResponse(body, status, headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        places = {tuple(map(str, found["loc"][1:])) for found in error.errors() if found["type"] != "json_invalid"}
        fields = sorted(".".join(place) for place in places if place)
        message = f"Wrong, missing or not served here: {', '.join(fields)}." if fields else wire.NO_OBJECT
        return JSONResponse(wire.error("INVALID_REQUEST", message, 400, fields[0] if fields else None), 400)

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        status = error.status_code
        # A body that cannot even be decoded is the one bad request that comes this way.
        code, message = (
            ("INVALID_REQUEST", wire.NO_OBJECT) if status == 400 else (CODES.get(status, "HTTP"), error.detail)
        )
        return JSONResponse(wire.error(code, message, status), status, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        log.error("call failed", method="http", error=type(error).__name__, at=place(error))
        return JSONResponse(wire.error(Reason.INTERNAL, "The service failed; its log says where.", 500), 500)


def serve(app: FastAPI, address: Address, stop: threading.Event) -> None:
    """Serve until told to stop."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=address.host,
            port=address.port,
            ssl_certfile=address.certificate,
            ssl_keyfile=address.key,
            ssl_ca_certs=str(address.client_ca) if address.client_ca else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if address.client_ca else ssl.CERT_NONE,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=STOP_SECONDS,
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
