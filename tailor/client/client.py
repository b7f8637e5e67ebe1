"""A typed client of the inference API."""

from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Self

from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.client.answers import Answer, Message, Piece, ServedSpecialist, to_answer, to_piece, to_specialist
from tailor.client.channel import Tls, open_channel
from tailor.errors import InvalidArgument
from tailor.rpc.status import wire_errors

SERVICE = "inference"
TIMEOUT_SECONDS = 300.0
LIST_TIMEOUT_SECONDS = 15.0


class TailorClient:
    """Asks specialists.

    UNAVAILABLE and RESOURCE_EXHAUSTED are retried up to four times with growing pauses (0.3 s to 5 s, with jitter) by gRPC's own
    retry policy, as long as nothing of the answer has come. What still fails is raised as a TailorError of `tailor.errors`: NotFound
    for an unknown specialist, InvalidArgument for a prompt that cannot be answered, Unauthenticated for a wrong key,
    DeadlineExceeded after `timeout_seconds`. Thread-safe.

        with TailorClient("127.0.0.1:50057", api_key) as client:
            print(client.generate("engagement-reports", "Write the Position section of ...").text)
    """

    def __init__(self, address: str, api_key: str, tls: Tls | None = None) -> None:
        self._channel = open_channel(address, api_key, tls)
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)

    def generate(
        self,
        model: str,
        prompt: str | None = None,
        *,
        messages: Sequence[Message] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        max_tokens: int = 256,
        stop: Sequence[str] = (),
        repetition_penalty: float = 1.0,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Answer:
        """One whole answer of a specialist (or `base`) to a prompt, or to the messages of a chat."""
        request = _request(
            model,
            prompt,
            messages,
            _sampling(temperature, top_p, seed, max_tokens, stop=stop, repetition_penalty=repetition_penalty),
        )
        with wire_errors(SERVICE):
            return to_answer(self._stub.Generate(request, timeout=timeout_seconds))

    def stream(
        self,
        model: str,
        prompt: str | None = None,
        *,
        messages: Sequence[Message] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        max_tokens: int = 256,
        stop: Sequence[str] = (),
        repetition_penalty: float = 1.0,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Generator[Piece, None, None]:
        """The answer as it is written. The call begins with the first `next`; closing the iterator cancels it, and the generation."""
        request = _request(
            model,
            prompt,
            messages,
            _sampling(temperature, top_p, seed, max_tokens, stop=stop, repetition_penalty=repetition_penalty),
        )
        return self._pieces(request, timeout_seconds)

    def _pieces(self, request: inference_pb2.GenerateRequest, timeout_seconds: float) -> Generator[Piece, None, None]:
        with wire_errors(SERVICE):
            call = self._stub.StreamGenerate(
                inference_pb2.StreamGenerateRequest(request=request), timeout=timeout_seconds
            )
            try:
                for response in call:
                    yield to_piece(response)
            finally:
                call.cancel()  # type: ignore[no-untyped-call]

    def specialists(self) -> list[ServedSpecialist]:
        """What this key may ask, the base included, by name."""
        with wire_errors(SERVICE):
            response = self._stub.ListSpecialists(inference_pb2.ListSpecialistsRequest(), timeout=LIST_TIMEOUT_SECONDS)
        return [to_specialist(served) for served in response.specialists]

    def close(self) -> None:
        """Disconnect; running calls are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _sampling(
    temperature: float, top_p: float, seed: int, max_tokens: int, *, stop: Sequence[str], repetition_penalty: float
) -> inference_pb2.Sampling:
    return inference_pb2.Sampling(
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        max_tokens=max_tokens,
        stop=list(stop),
        repetition_penalty=repetition_penalty,
    )


def _request(
    model: str, prompt: str | None, messages: Sequence[Message], sampling: inference_pb2.Sampling
) -> inference_pb2.GenerateRequest:
    if (prompt is None) == (not messages):
        raise InvalidArgument("PROMPT_OR_MESSAGES", "Give either a prompt or messages.")
    turns = [inference_pb2.Message(role=message.role, content=message.content) for message in messages]
    return inference_pb2.GenerateRequest(model=model, prompt=prompt or "", messages=turns, sampling=sampling)
