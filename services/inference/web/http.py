"""The OpenAI-style HTTP API, with the same handlers, keys and roles as gRPC.

`/v1/models`, `/v1/chat/completions`, and Tailor's own `/v1/drafts/{id}/feedback`.
"""

import asyncio
import math
import ssl
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from services.inference import handlers, routing, slow_readers
from services.inference.adapters.forwarding import Forwarder, PassedCall
from services.inference.domain import Caller, GenerationRequest
from services.inference.generation import Cancellation, ReadinessGate
from services.inference.rpc import to_caller
from services.inference.settings import Settings
from services.inference.web import openai_wire as wire
from services.inference.web.middleware import CODES, CountedCalls, LimitedBody, note_code, note_method
from tailor.api.inference.v1 import inference_pb2
from tailor.errors import Code, Reason, TailorError
from tailor.logging import get_logger, place
from tailor.rpc import auth
from tailor.rpc.certificates import CertificateFiles, renewal
from tailor.runtime import Server
from tailor.slow_requests import TimedProtocol

log = get_logger(__name__)

REASONS = {404: Reason.NOT_FOUND, 405: Reason.METHOD_NOT_ALLOWED, 408: Reason.TOO_SLOW, 413: Reason.TOO_LARGE}
METHODS = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].methods_by_name
DISCONNECT_SECONDS = 0.5
CANCEL_SECONDS = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class Address:
    """Host and port, with TLS if there is a certificate and its key (PEM). With `client_ca`, callers need a certificate that it signed."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> "Address":
        return cls(
            settings.http_host,
            settings.http_port,
            certificate=settings.tls_certificate_file,
            key=settings.tls_key_file,
            client_ca=settings.tls_client_ca_file,
        )


def create_app(
    gate: ReadinessGate, authenticator: auth.Authenticator, forwarder: Forwarder, max_threads: int
) -> FastAPI:
    """The application; it answers 503 until the gate is open. Calls for models of other bases go to `forwarder`."""
    app = FastAPI(title="Tailor inference", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(LimitedBody)
    app.add_middleware(CountedCalls)
    _handle_errors(app)
    # More threads than lookups of made-up keys can hold while the registry answers slowly; asyncio's own are a few per core.
    lookups = ThreadPoolExecutor(auth.MAX_QUESTIONS + max_threads, thread_name_prefix="http-keys")

    async def identify(request: Request) -> tuple[auth.Caller, str]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = max_threads
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        secret = token.strip() if scheme.lower() == "bearer" else ""
        caller = await asyncio.get_running_loop().run_in_executor(lookups, authenticator.authenticate, secret)
        return caller, secret

    def admit(caller: auth.Caller, method: str) -> Caller:
        authenticator.admit(caller, METHODS[method])
        return to_caller(caller)

    def generate(
        question: GenerationRequest, caller: Caller, secret: str, method: str, cancellation: Cancellation
    ) -> wire.HttpAnswer:
        inference = gate.inference()
        base = routing.find_base(inference, caller, question.model)
        if not base:
            return handlers.generate(inference, caller, question, cancellation)
        answer = forwarder.generate(base, question, PassedCall(secret), streamed=method == "StreamGenerate")
        cancellation.attach(answer)
        return answer.begin()

    @app.get("/v1/models")
    async def models(identity: tuple[auth.Caller, str] = Depends(identify)) -> dict[str, Any]:
        caller = admit(identity[0], "ListSpecialists")
        names = [name for name, _ in handlers.list_specialists(gate.inference().models.table, caller)]
        others = await anyio.to_thread.run_sync(list, forwarder.list_specialists(PassedCall(identity[1])))
        return wire.models(dict.fromkeys([*names, *(other.name for other in others)]))

    @app.get("/v1/models/{name}")
    async def model(name: str, identity: tuple[auth.Caller, str] = Depends(identify)) -> dict[str, Any]:
        caller = admit(identity[0], "ListSpecialists")
        base = routing.find_base(gate.inference(), caller, name)
        if base:
            gate.inference().deployments.address(base)
        else:
            handlers.resolve(gate.inference(), caller, name)
        return wire.model(name)

    @app.post("/v1/chat/completions")
    async def completions(
        body: wire.ChatRequest,
        request: Request,
        identity: tuple[auth.Caller, str] = Depends(identify),
    ) -> Response:
        method = "StreamGenerate" if body.stream else "Generate"
        note_method(request, method)
        caller = admit(identity[0], method)
        cancellation = Cancellation()
        question = body.to_request(wire.request_id(request.headers.get("idempotency-key", "")))
        answer = await _unless_gone(
            request,
            cancellation,
            lambda: anyio.to_thread.run_sync(generate, question, caller, identity[1], method, cancellation),
        )
        if body.stream:
            usage = bool(body.stream_options and body.stream_options.include_usage)
            note = partial(note_code, request)
            lines = wire.chunks(body.model, answer, lambda: authenticator.still_admits(*identity), note, usage=usage)
            return ReadResponse(_closing(request, lines, cancellation, answer), media_type="text/event-stream")
        await _unless_gone(request, cancellation, lambda: anyio.to_thread.run_sync(_drain, answer))
        return JSONResponse(wire.completion(body.model, answer))

    @app.post("/v1/drafts/{draft_id}/feedback")
    async def feedback(
        draft_id: str, body: wire.FeedbackBody, identity: tuple[auth.Caller, str] = Depends(identify)
    ) -> dict[str, Any]:
        caller = admit(identity[0], "RecordFeedback")
        archive, said = gate.inference().archive, body.to_feedback(draft_id)
        receipt = await anyio.to_thread.run_sync(handlers.record_feedback, archive, caller, said)
        return wire.feedback(draft_id, receipt)

    return app


def _handle_errors(app: FastAPI) -> None:
    """Give every error OpenAI's shape."""

    @app.exception_handler(TailorError)
    async def domain_error(request: Request, error: TailorError) -> Response:
        note_code(request, error.code.name)
        wait = error.retry_after_seconds
        headers = None if wait is None else {"retry-after": str(max(1, math.ceil(wait)))}
        return JSONResponse(wire.domain_error(error), wire.status_of(error), headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        note_code(request, Code.INVALID_ARGUMENT.name)
        return JSONResponse(wire.malformed_error(error.errors()), 400)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        status = error.status_code
        note_code(request, CODES.get(status, Code.INVALID_ARGUMENT).name)
        # Only a body that cannot be decoded arrives here as a 400.
        reason, message = (
            (Reason.INVALID_REQUEST, wire.NOT_AN_OBJECT)
            if status == 400
            else (REASONS.get(status, Reason.INVALID_REQUEST), error.detail)
        )
        return JSONResponse(wire.error(reason, message, status), status, error.headers)

    @app.exception_handler(Exception)
    async def failure(request: Request, error: Exception) -> Response:
        note_code(request, "INTERNAL")
        log.error("call failed", method="http", error=type(error).__name__, at=place(error))
        message = "The service failed. Its log has the error's type and place."
        return JSONResponse(wire.error(Reason.INTERNAL, message, 500), 500)


class UvicornServer(Server):
    """Serves the app in a thread that the runtime spawns with `run`."""

    def __init__(self, app: FastAPI, address: Address) -> None:
        config = uvicorn.Config(
            app,
            host=address.host,
            port=address.port,
            http=TimedProtocol,
            ssl_certfile=address.certificate,
            ssl_keyfile=address.key,
            ssl_ca_certs=str(address.client_ca) if address.client_ca else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if address.client_ca else ssl.CERT_NONE,
            log_config=None,
            access_log=False,
            lifespan="off",
        )
        if address.certificate and address.key:
            config.callback_notify = renewal(CertificateFiles(address.certificate, address.key), lambda: config.ssl)
        self._server = uvicorn.Server(config)
        self._ended = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Serve until stopped. Blocks."""

        def stop_server() -> None:
            stop.wait()
            self.stop(0.0)

        threading.Thread(target=stop_server, name="http-stop", daemon=True).start()
        try:
            self._server.run()
        finally:
            self._ended.set()

    def start(self) -> None:
        """Does nothing: the server starts in `run`."""

    def stop(self, grace: float) -> None:
        """Accept no more requests. Blocks for up to `grace` seconds until the running ones have ended, then cancels them."""
        self._server.config.timeout_graceful_shutdown = max(1, round(grace))
        self._server.should_exit = True
        self._ended.wait(grace + CANCEL_SECONDS)

    def set_serving(self, serving: bool) -> None:
        """Does nothing: over HTTP, the status port shows the health."""


class ReadResponse(StreamingResponse):
    """A stream that ends if nobody reads it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            # TimeoutError is an OSError, and ends the response as a lost connection does.
            async with asyncio.timeout(slow_readers.UNREAD_SECONDS):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        finally:
            if isinstance(self.body_iterator, AsyncGenerator):
                await self.body_iterator.aclose()


async def _unless_gone(request: Request, cancellation: Cancellation, work: Callable[[], Awaitable[T]]) -> T:
    """Await the work; cancel the generation if the client goes away meanwhile."""
    task = asyncio.ensure_future(work())
    while not (await asyncio.wait([task], timeout=DISCONNECT_SECONDS))[0]:
        if await request.is_disconnected():
            cancellation.cancel()
    return await task


async def _closing(
    request: Request, lines: Iterator[str], cancellation: Cancellation, answer: wire.HttpAnswer
) -> AsyncIterator[str]:
    """Yield the lines; end the generation if the client goes away."""
    try:
        while line := await _unless_gone(request, cancellation, lambda: anyio.to_thread.run_sync(next, lines, "")):
            yield line
    finally:
        cancellation.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(answer.close)


def _drain(answer: wire.HttpAnswer) -> None:
    for _ in answer:
        pass
