"""Passes calls on to replicas of other bases, with the callers' own credentials and deadlines."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message

from services.inference import wire
from services.inference.deployments import Deployments
from services.inference.domain import AnswerPiece, GenerationRequest, TokenLogProbability
from services.inference.ports import Stream
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.codec import decode
from tailor.errors import DeadlineExceeded, Reason, TailorError
from tailor.logging import get_logger
from tailor.rpc.channel import wire_errors

log = get_logger(__name__)

# Marks a call that another replica passed on. It is answered or refused, and never passed on again.
FORWARDED = "tailor-forwarded"
LIST_SECONDS = 5.0


@dataclass(frozen=True)
class PassedCall:
    """What goes with a request: the caller's token, and the seconds that its call has left, None without a deadline.

    A service always gets the same replica of a base, because only the one that loaded a candidate can answer for it.
    """

    token: str = field(repr=False)
    seconds: float | None = None
    is_service: bool = False
    is_forwarded: bool = False

    @classmethod
    def of(cls, context: grpc.ServicerContext, *, is_service: bool) -> "PassedCall":
        """What goes with a gRPC call."""
        metadata = {name: str(value) for name, value in context.invocation_metadata()}
        left = context.time_remaining()
        seconds = None if left is None or math.isinf(left) else left
        token = metadata.get("authorization", "").partition(" ")[2].strip()
        return cls(token, seconds, is_service, FORWARDED in metadata)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the call that passes the request on."""
        metadata = (("authorization", f"Bearer {self.token}"), (FORWARDED, "1"))
        return {"timeout": self.seconds, "metadata": metadata}


class Forwarder:
    """Calls replicas of other bases by the methods of inference's own contract. Thread-safe.

    Its methods return gRPC's calls, and raise Unavailable or FailedPrecondition (NOT_SERVING) if no replica of the base can be reached.
    """

    def __init__(self, deployments: Deployments, open_channel: Callable[[str], grpc.Channel]) -> None:
        self._deployments = deployments
        self._open_channel = open_channel
        self._lock = threading.Lock()
        self._stubs: dict[str, inference_pb2_grpc.InferenceServiceStub] = {}

    def ask(self, base: str, method: str, request: Message, passed: PassedCall) -> Any:
        """Start a call with one answer, a future."""
        return getattr(self._stub(base, passed), method).future(request, **passed.options)

    def stream(self, base: str, request: inference_pb2.StreamGenerateRequest, passed: PassedCall) -> Any:
        """Start a call with streamed answers."""
        return self._stub(base, passed).StreamGenerate(request, **passed.options)

    def generate(
        self, base: str, request: GenerationRequest, passed: PassedCall, *, streamed: bool
    ) -> "ForwardedAnswer":
        """Start an answer of the HTTP API."""
        message = wire.from_request(request)
        if streamed:
            call = self.stream(base, inference_pb2.StreamGenerateRequest(request=message), passed)
            return ForwardedAnswer(call, call.cancel)
        future = self.ask(base, "Generate", message, passed)
        return ForwardedAnswer((future.result() for _ in range(1)), future.cancel)

    def list_specialists(self, passed: PassedCall) -> Iterator[inference_pb2.ServedSpecialist]:
        """What other bases serve for the caller, without those that do not answer. Blocks for a few seconds at most."""
        if passed.is_forwarded:
            return
        passed = PassedCall(passed.token, LIST_SECONDS, passed.is_service)
        for base in self._deployments.other_bases():
            try:
                with handing_back():
                    response = self.ask(
                        base, "ListSpecialists", inference_pb2.ListSpecialistsRequest(), passed
                    ).result()
            except TailorError as error:
                log.warning("specialists not listed", base=base, reason=error.reason)
                continue
            for specialist in response.specialists:
                specialist.name = specialist.name if specialist.provenance.specialist else wire.name_base(base)
                yield specialist

    def _stub(self, base: str, passed: PassedCall) -> inference_pb2_grpc.InferenceServiceStub:
        address = self._deployments.address(base, always_same=passed.is_service)
        with self._lock:
            if address not in self._stubs:
                self._stubs[address] = inference_pb2_grpc.InferenceServiceStub(self._open_channel(address))
            return self._stubs[address]


class ForwardedAnswer(Stream):
    """An answer of another replica: iterate over it once, or close it. Raises as that replica does."""

    def __init__(self, replies: Iterator[Any], cancel: Callable[[], object]) -> None:
        self.draft_id = self.text = self.thought = self.finish_reason = ""
        self.prompt_tokens = self.completion_tokens = 0
        self.log_probabilities: tuple[TokenLogProbability, ...] = ()
        self.moment = time.time()
        self._replies = replies
        self._cancel = cancel
        self._first: Any = None

    def begin(self) -> "ForwardedAnswer":
        """Wait for the first reply, so that an error is raised before anything is answered."""
        with handing_back():
            self._first = next(iter(self._replies))
            self.draft_id = self._first.draft_id
        return self

    def __iter__(self) -> Iterator[AnswerPiece]:
        yield self._read(self._first)
        with handing_back():
            for reply in self._replies:
                yield self._read(reply)

    def cancel(self) -> None:
        self._cancel()

    def close(self) -> None:
        """Stop the generation."""
        self._cancel()

    def _read(self, reply: Any) -> AnswerPiece:
        tokens = tuple(decode(TokenLogProbability, token) for token in reply.log_probabilities)
        self.text += reply.text
        self.thought += reply.thought
        self.log_probabilities += tokens
        self.finish_reason = reply.finish_reason
        self.prompt_tokens, self.completion_tokens = reply.usage.prompt_tokens, reply.usage.completion_tokens
        return AnswerPiece(reply.text, self.completion_tokens, reply.finish_reason, tokens, thought=reply.thought)


@contextmanager
def handing_back(context: grpc.ServicerContext | None = None, call: Any = None) -> Iterator[None]:
    """Raise a call's failure as the other replica's TailorError, and hand the end of the incoming call on to it."""
    if context is not None and not context.add_callback(call.cancel):
        call.cancel()
    try:
        with wire_errors("inference"):
            yield
    except grpc.FutureCancelledError:
        raise DeadlineExceeded(Reason.CALL_ENDED, "The caller went away, or its deadline passed.") from None
