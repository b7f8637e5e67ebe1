"""The client for threads."""

import time
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

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
from tailor.rpc.channel import Tls, open_channel
from tailor.rpc.status import wire_errors

SERVICE = "inference"
SHORT_TIMEOUT_SECONDS = 15.0
# The texts are anonymised before they are stored.
FEEDBACK_TIMEOUT_SECONDS = 60.0


class TailorClient:
    """Asks specialists. Thread-safe.

    `address` is HOST:PORT of inference, or of several replicas, in a list or separated by commas. `api_key` defaults to
    TAILOR_API_KEY.

    Replicas take turns. If one is UNAVAILABLE or its queue is full (RESOURCE_EXHAUSTED), the next one is asked at once. After all of them
    failed, up to four more rounds follow, with pauses of 0.3 s to 5 s plus jitter, never shorter than the server asks for, and never
    beyond the timeout. So a replica that dies fails no call, except streams that have already begun.

    Errors are raised as a TailorError of `tailor.errors`, among them: NotFound for an unknown specialist, InvalidArgument with
    `field_violations` for an invalid request, Unauthenticated for a wrong key, DeadlineExceeded after `timeout_seconds`.

        with TailorClient("127.0.0.1:50057") as client:
            print(client.generate("engagement-reports", "Write the Position section of ...").text)
    """

    def __init__(self, address: str | Sequence[str], api_key: str | None = None, tls: Tls | None = None) -> None:
        key = to_key(api_key)
        self._channels = [open_channel(replica, key, tls) for replica in to_addresses(address)]
        self._stubs = [inference_pb2_grpc.InferenceServiceStub(channel) for channel in self._channels]
        self._ring = Ring(len(self._stubs))

    def generate(self, model: str, prompt: str | None = None, **options: Unpack[Options]) -> Answer:
        """Ask a specialist (or `base`) for a whole answer to a prompt, or to the messages of a chat."""
        request = to_request(model, prompt, **options)
        timeout = options.get("timeout_seconds", TIMEOUT_SECONDS)
        return decode(Answer, self._call("Generate", request, timeout))

    def stream(self, model: str, prompt: str | None = None, **options: Unpack[Options]) -> Generator[Piece, None, None]:
        """Stream the answer as it is generated. The call begins with the first `next`. Closing the iterator stops the generation."""
        request = inference_pb2.StreamGenerateRequest(request=to_request(model, prompt, **options))
        return self._pieces(request, options.get("timeout_seconds", TIMEOUT_SECONDS))

    def specialists(self) -> list[ServedSpecialist]:
        """List what this key may ask, including the base, sorted by name."""
        request = inference_pb2.ListSpecialistsRequest()
        response = self._call("ListSpecialists", request, SHORT_TIMEOUT_SECONDS)
        return [decode(ServedSpecialist, served) for served in response.specialists]

    def draft(self, draft_id: str) -> Draft:
        """Look up an answer that this key received. Raises NotFound for any other id."""
        request = inference_pb2.GetDraftRequest(draft_id=draft_id)
        return to_draft(self._call("GetDraft", request, SHORT_TIMEOUT_SECONDS))

    def record_feedback(
        self, draft_id: str, verdict: Verdict, *, edited_text: str = "", stars: int = 0, comment: str = ""
    ) -> FeedbackReceipt:
        """Say what became of an answer that this key received. Idempotent: a later feedback replaces this key's earlier one.

        `edited_text` is the answer as it was used, at most 100,000 characters, only with the verdict `edited`. `stars` are 1 to 5, 0 for
        none. Texts are anonymised before they are stored. Raises NotFound for a draft of another key or one that is not catalogued
        yet, InvalidArgument with `field_violations` for wrong values.
        """
        request = to_feedback_request(draft_id, verdict, edited_text=edited_text, stars=stars, comment=comment)
        response = self._call("RecordFeedback", request, FEEDBACK_TIMEOUT_SECONDS)
        return decode(FeedbackReceipt, response)

    def report_outcome(
        self,
        draft_id: str = "",
        *,
        specialist: str = "",
        minutes: float = 0.0,
        satisfaction: int = 0,
        request_id: str = "",
    ) -> OutcomeReceipt:
        """Report what an answer that this key received was worth. Idempotent: a later report replaces this key's earlier one.

        `minutes` lead from the draft to the deliverable, at most 100,000; `satisfaction` is 1 to 5; 0 for none, but not for both.
        Without a draft, name the specialist: then it is work that was done without Tailor, to compare with, and a repeated call with the
        same `request_id` has no further effect. Raises NotFound for an unknown specialist, a draft of another key or one that is not
        catalogued yet, InvalidArgument with `field_violations` for wrong values.
        """
        request = to_outcome_request(
            draft_id, specialist=specialist, request_id=request_id, minutes=minutes, satisfaction=satisfaction
        )
        response = self._call("ReportOutcome", request, SHORT_TIMEOUT_SECONDS)
        return decode(OutcomeReceipt, response)

    def close(self) -> None:
        """Disconnect and cancel running calls."""
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, request: Message, timeout_seconds: float) -> Any:
        attempts = self._ring.attempts(timeout_seconds)
        while True:
            try:
                with wire_errors(SERVICE):
                    ask = getattr(self._stubs[attempts.replica], method)
                    return ask(request, timeout=attempts.seconds_left())
            except TailorError as error:
                pause = attempts.pause_after(error)
            time.sleep(pause)

    def _pieces(
        self, request: inference_pb2.StreamGenerateRequest, timeout_seconds: float
    ) -> Generator[Piece, None, None]:
        attempts = self._ring.attempts(timeout_seconds)
        has_begun = False
        while True:
            try:
                with wire_errors(SERVICE):
                    call = self._stubs[attempts.replica].StreamGenerate(request, timeout=attempts.seconds_left())
                    try:
                        for response in call:
                            has_begun = True
                            yield decode(Piece, response)
                    finally:
                        call.cancel()  # type: ignore[no-untyped-call]
                return
            except TailorError as error:
                if has_begun:
                    raise
                pause = attempts.pause_after(error)
            time.sleep(pause)
