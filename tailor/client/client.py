"""The client for threads."""

import time
from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.client.answers import (
    Answer,
    Draft,
    Piece,
    ServedSpecialist,
    to_answer,
    to_draft,
    to_piece,
    to_specialist,
)
from tailor.client.asking import TIMEOUT_SECONDS, Options, to_addresses, to_key, to_request
from tailor.client.retries import Ring
from tailor.errors import TailorError
from tailor.rpc.channel import Tls, open_channel
from tailor.rpc.status import wire_errors

SERVICE = "inference"
SHORT_TIMEOUT_SECONDS = 15.0

T = TypeVar("T")


class TailorClient:
    """Asks specialists. Thread-safe.

    `address` is HOST:PORT of inference, or several replicas, in a list or with commas between; they are asked in turns. The key is
    TAILOR_API_KEY where none is given.

    A replica that is UNAVAILABLE or has its queue full (RESOURCE_EXHAUSTED) is passed over for the next at once; when all were, the round
    is repeated up to four times, after 0.3 s to 5 s with jitter and never before the time that the server named, as long as the timeout
    allows and nothing of the answer has come. So a replica that dies costs no call, but for streams that had begun. What still fails is
    raised as a TailorError of `tailor.errors`: NotFound for an unknown specialist, InvalidArgument with `field_violations` for what cannot
    be answered, Unauthenticated for a wrong key, DeadlineExceeded after `timeout_seconds`.

        with TailorClient("127.0.0.1:50057") as client:
            print(client.generate("engagement-reports", "Write the Position section of ...").text)
    """

    def __init__(self, address: str | Sequence[str], api_key: str | None = None, tls: Tls | None = None) -> None:
        key = to_key(api_key)
        self._channels = [open_channel(one, key, tls) for one in to_addresses(address)]
        self._stubs = [inference_pb2_grpc.InferenceServiceStub(channel) for channel in self._channels]
        self._ring = Ring(len(self._stubs))

    def generate(self, model: str, prompt: str | None = None, **options: Unpack[Options]) -> Answer:
        """One whole answer of a specialist (or `base`) to a prompt, or to the messages of a chat."""
        request = to_request(model, prompt, **options)
        timeout = options.get("timeout_seconds", TIMEOUT_SECONDS)
        return to_answer(self._call(lambda stub, left: stub.Generate(request, timeout=left), timeout))

    def stream(self, model: str, prompt: str | None = None, **options: Unpack[Options]) -> Generator[Piece, None, None]:
        """The answer as it is written. The call begins with the first `next`; closing the iterator cancels it, and the generation."""
        request = inference_pb2.StreamGenerateRequest(request=to_request(model, prompt, **options))
        return self._pieces(request, options.get("timeout_seconds", TIMEOUT_SECONDS))

    def specialists(self) -> list[ServedSpecialist]:
        """What this key may ask, the base included, by name."""
        request = inference_pb2.ListSpecialistsRequest()
        response = self._call(lambda stub, left: stub.ListSpecialists(request, timeout=left), SHORT_TIMEOUT_SECONDS)
        return [to_specialist(served) for served in response.specialists]

    def draft(self, draft_id: str) -> Draft:
        """What is known of one's own answer; NotFound where it is nobody's or somebody else's."""
        request = inference_pb2.GetDraftRequest(draft_id=draft_id)
        return to_draft(self._call(lambda stub, left: stub.GetDraft(request, timeout=left), SHORT_TIMEOUT_SECONDS))

    def close(self) -> None:
        """Disconnect; running calls are cancelled."""
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, ask: Callable[[Any, float], T], timeout_seconds: float) -> T:
        attempts = self._ring.attempts(timeout_seconds)
        while True:
            try:
                with wire_errors(SERVICE):
                    return ask(self._stubs[attempts.replica], attempts.seconds_left())
            except TailorError as error:
                pause = attempts.pause_after(error)
            time.sleep(pause)

    def _pieces(
        self, request: inference_pb2.StreamGenerateRequest, timeout_seconds: float
    ) -> Generator[Piece, None, None]:
        attempts = self._ring.attempts(timeout_seconds)
        begun = False
        while True:
            try:
                with wire_errors(SERVICE):
                    call = self._stubs[attempts.replica].StreamGenerate(request, timeout=attempts.seconds_left())
                    try:
                        for response in call:
                            begun = True
                            yield to_piece(response)
                    finally:
                        call.cancel()  # type: ignore[no-untyped-call]
                return
            except TailorError as error:
                if begun:
                    raise
                pause = attempts.pause_after(error)
            time.sleep(pause)
