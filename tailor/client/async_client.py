"""The client for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
from google.protobuf.message import Message

from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.client.answers import (
    Answer,
    Draft,
    FeedbackReceipt,
    OutcomeReceipt,
    Piece,
    ServedSpecialist,
    to_draft,
)
from tailor.client.client import FEEDBACK_TIMEOUT_SECONDS, SERVICE, SHORT_TIMEOUT_SECONDS
from tailor.client.requests import (
    TIMEOUT_SECONDS,
    Options,
    Verdict,
    to_addresses,
    to_feedback_request,
    to_key,
    to_outcome_request,
    to_request,
)
from tailor.client.retries import Ring
from tailor.codec import decode
from tailor.errors import TailorError
from tailor.rpc.channel import Tls, open_async_channel
from tailor.rpc.status import wire_errors


class AsyncTailorClient:
    """Asks specialists like TailorClient, in one event loop: that of its first call.

    async with AsyncTailorClient("127.0.0.1:50057") as client:
        async for piece in client.stream("engagement-reports", "Write the Position section of ..."):
            print(piece.text, end="")
    """

    def __init__(self, address: str | Sequence[str], api_key: str | None = None, tls: Tls | None = None) -> None:
        self._metadata = (("authorization", f"Bearer {to_key(api_key)}"),)
        self._addresses = to_addresses(address)
        self._tls = tls
        self._ring = Ring(len(self._addresses))

    async def generate(self, model: str, prompt: str | None = None, **options: Unpack[Options]) -> Answer:
        """Ask a specialist (or `base`) for a whole answer. Cancelling the call stops the generation."""
        request = to_request(model, prompt, **options)
        return decode(Answer, await self._call("Generate", request, options.get("timeout_seconds", TIMEOUT_SECONDS)))

    async def stream(
        self, model: str, prompt: str | None = None, **options: Unpack[Options]
    ) -> AsyncGenerator[Piece, None]:
        """Stream the answer as it is generated. Closing the iterator stops the generation."""
        request = inference_pb2.StreamGenerateRequest(request=to_request(model, prompt, **options))
        attempts = self._ring.attempts(options.get("timeout_seconds", TIMEOUT_SECONDS))
        has_begun = False
        while True:
            try:
                with wire_errors(SERVICE):
                    call = self._stubs[attempts.replica].StreamGenerate(
                        request, timeout=attempts.seconds_left(), metadata=self._metadata
                    )
                    try:
                        async for response in call:
                            has_begun = True
                            yield decode(Piece, response)
                    finally:
                        call.cancel()
                return
            except TailorError as error:
                if has_begun:
                    raise
                pause = attempts.pause_after(error)
            await asyncio.sleep(pause)

    async def specialists(self) -> list[ServedSpecialist]:
        """List what this key may ask, including the base, sorted by name."""
        request = inference_pb2.ListSpecialistsRequest()
        response = await self._call("ListSpecialists", request, SHORT_TIMEOUT_SECONDS)
        return [decode(ServedSpecialist, served) for served in response.specialists]

    async def draft(self, draft_id: str) -> Draft:
        """Look up an answer that this key received. Raises NotFound for any other id."""
        request = inference_pb2.GetDraftRequest(draft_id=draft_id)
        return to_draft(await self._call("GetDraft", request, SHORT_TIMEOUT_SECONDS))

    async def record_feedback(
        self, draft_id: str, verdict: Verdict, *, edited_text: str = "", stars: int = 0, comment: str = ""
    ) -> FeedbackReceipt:
        """Say what became of an answer, as `TailorClient.record_feedback`."""
        request = to_feedback_request(draft_id, verdict, edited_text=edited_text, stars=stars, comment=comment)
        return decode(FeedbackReceipt, await self._call("RecordFeedback", request, FEEDBACK_TIMEOUT_SECONDS))

    async def report_outcome(
        self,
        draft_id: str = "",
        *,
        specialist: str = "",
        minutes: float = 0.0,
        satisfaction: int = 0,
        request_id: str = "",
    ) -> OutcomeReceipt:
        """Report what an answer was worth, as `TailorClient.report_outcome`."""
        request = to_outcome_request(
            draft_id, specialist=specialist, request_id=request_id, minutes=minutes, satisfaction=satisfaction
        )
        return decode(OutcomeReceipt, await self._call("ReportOutcome", request, SHORT_TIMEOUT_SECONDS))

    async def close(self) -> None:
        """Disconnect and cancel running calls."""
        for channel in self._channels:
            await channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @cached_property
    def _channels(self) -> list[grpc.aio.Channel]:
        """Made by the first call, because a channel belongs to the event loop in which it was made."""
        return [open_async_channel(address, self._tls) for address in self._addresses]

    @cached_property
    def _stubs(self) -> list[Any]:
        return [inference_pb2_grpc.InferenceServiceStub(channel) for channel in self._channels]

    async def _call(self, method: str, request: Message, timeout_seconds: float) -> Any:
        attempts = self._ring.attempts(timeout_seconds)
        while True:
            try:
                with wire_errors(SERVICE):
                    ask = getattr(self._stubs[attempts.replica], method)
                    return await ask(request, timeout=attempts.seconds_left(), metadata=self._metadata)
            except TailorError as error:
                pause = attempts.pause_after(error)
            await asyncio.sleep(pause)
