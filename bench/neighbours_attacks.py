"""The attacks of `bench.neighbours`, each with the plain work of the same amount that it is compared with."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import grpc
from google.protobuf.message import Message

from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.api.events.v1 import models_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.cli.connections import Connections
from tailor.cli.producer import KafkaRecordProducer
from tailor.cli.records import SUBMITTED, Record
from tailor.events.producer import KafkaProducer
from tailor.local import secrets, stack
from tailor.local.layout import Layout
from tailor.rpc.channel import open_channel
from tailor.rpc.identity import Identity

PLAIN = "The committee met Dr Ngozi Okafor of Aldermoor Ltd on 3 May and agreed the budget of the second quarter. "
DOCUMENT_CHARACTERS, SHORT_CHARACTERS = 60_000, 3_000
DOCUMENTS = 2
CALL_SECONDS, ABANDONED_SECONDS = 60.0, 10.0
STREAM_TOKENS, SHORT_TOKENS = 600, 4
# Three quarters of the 32 places of an installation without settings, and all callers at once that a key could try.
SHARE, MANY = 24, 64
STRINGS = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
COUNTED = {"allOf": [{"type": "string", "pattern": f"^[ab]*a[ab]{{{number}}}$"} for number in range(10, 40)]}
NESTED = {"type": "string", "pattern": "^(([ab]{1,60}){1,60}c){1,60}$"}
# It is not refused by its form, and takes the library long.
WIDE = {"type": "string", "pattern": "^" + "(a|b)*a" + "(a|b)" * 24 + "$"}


class Sender:
    """One sender with the means of a publisher, a caller and, because the embedded broker has no users, of a writer of events."""

    def __init__(self, connections: Connections, state: Path, key: str) -> None:
        place = stack.connection(state)
        self._numbers = count()
        self._publisher = KafkaRecordProducer(lambda topic: place.publisher)
        self._events = KafkaProducer.from_settings(place.publisher, "evaluation")
        self.inference = inference_pb2_grpc.InferenceServiceStub(
            open_channel(place.service_addresses["inference"], key)
        )
        self.preview = connections.anonymization
        identity = Identity.load("inference", secrets.ensure(Layout(state)).identity_key_file("inference"))
        barrier = open_channel(place.service_addresses["anonymization"], lambda: identity.token("anonymization"))
        self.barrier = anonymization_pb2_grpc.AnonymizationServiceStub(barrier)

    def publish(self, text: str) -> None:
        """Publish a document."""
        headers = {"content-type": "text/plain", "label-source": "neighbours", "document-id": f"n{next(self._numbers)}"}
        self._publisher.send(Record(SUBMITTED, headers["document-id"], text.encode(), headers))()

    def write(self, topic: str, value: bytes) -> None:
        """Write an event's bytes."""
        self._publisher.send(Record(topic, "n", value, {}))()

    def send(self, topic: str, message: Message) -> None:
        """Publish an event."""
        self._events.send(topic, "n", message, f"evt_{next(self._numbers)}")


Work = Callable[[Sender, float], object]


@dataclass(frozen=True)
class Attack:
    """An attack, and the same amount of plain work. Both end by themselves after the given seconds, or soon afterwards."""

    name: str
    attack: Work
    plain: Work


def _fill(unit: str, characters: int) -> str:
    return (unit * (characters // len(unit) + 1))[:characters]


def _documents(unit: str) -> Work:
    """Some long documents at once."""

    def work(sender: Sender, seconds: float) -> None:
        del seconds
        for number in range(DOCUMENTS):
            sender.publish(f"Note {time.time_ns()} {number}.\n\n{_fill(unit, DOCUMENT_CHARACTERS)}")

    return work


def _again(call: Callable[[Sender], object], threads: int = 1) -> Work:
    """A call again and again, in some threads. It counts for nothing whether it is answered."""

    def work(sender: Sender, seconds: float) -> None:
        end = time.monotonic() + seconds

        def repeat(_: int) -> None:
            while time.monotonic() < end:
                with suppress(grpc.RpcError):
                    call(sender)
                time.sleep(0.1)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(repeat, range(threads)))

    return work


def _preview(unit: str) -> Work:
    """Previews that the caller gives up."""
    text = _fill(unit, SHORT_CHARACTERS)
    request = anonymization_pb2.PreviewAnonymizationRequest(text=text)
    return _again(lambda sender: sender.preview.PreviewAnonymization(request, timeout=3.0), 2)


def _prompt(unit: str) -> Work:
    request = anonymization_pb2.AnonymizePromptRequest(texts=[_fill(unit, SHORT_CHARACTERS)])
    return _again(lambda sender: sender.barrier.AnonymizePrompt(request, timeout=CALL_SECONDS))


def _schema(schema: object) -> Work:
    """Answers by a schema that the caller gives up."""
    sampling = inference_pb2.Sampling(max_tokens=SHORT_TOKENS)
    request = inference_pb2.GenerateRequest(
        model="base", prompt="Write one.", sampling=sampling, json_schema=json.dumps(schema)
    )
    return _again(lambda sender: sender.inference.Generate(request, timeout=ABANDONED_SECONDS), 2)


def _stream() -> inference_pb2.StreamGenerateRequest:
    request = inference_pb2.GenerateRequest(
        model="base",
        prompt="Write a long report.",
        sampling=inference_pb2.Sampling(max_tokens=STREAM_TOKENS, temperature=1.0),
        log_probabilities=True,
        top_log_probabilities=20,
    )
    return inference_pb2.StreamGenerateRequest(request=request)


def _read_stream(*, reads: bool) -> Work:
    """One stream after another: read to its end, or opened and never read."""

    def work(sender: Sender, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pieces = sender.inference.StreamGenerate(_stream(), timeout=CALL_SECONDS)
            if not reads:
                time.sleep(min(45.0, max(0.0, end - time.monotonic())))
            with suppress(grpc.RpcError):
                for _ in pieces:
                    if time.monotonic() > end:
                        pieces.cancel()  # type: ignore[no-untyped-call]

    return work


def _many(callers: int) -> Work:
    """Long answers, all at once."""
    sampling = inference_pb2.Sampling(max_tokens=64, temperature=1.0)
    request = inference_pb2.GenerateRequest(model="base", prompt="Write a long report.", sampling=sampling)
    return _again(lambda sender: sender.inference.Generate(request, timeout=CALL_SECONDS), callers)


def _unknown_adapter(sender: Sender, seconds: float) -> None:
    """Evaluations of adapters that nobody trained."""
    del seconds
    for number in range(5):
        digest = f"{number:064x}"
        sender.send(
            "adapter.evaluated.v1",
            models_pb2.AdapterEvaluated(evaluation_id=f"evl_{number:032x}", adapter_digest=digest, specialist="none"),
        )


def _odd_erasures(sender: Sender, seconds: float) -> None:
    """Erasures of no document."""
    del seconds
    for value in (b"", b"\x00" * 8, b"{}"):
        sender.write("document.erased.v1", value)


def _rest(sender: Sender, seconds: float) -> None:
    del sender
    threading.Event().wait(seconds)


ATTACKS = (
    Attack("a document of one repeated name", _documents("St. "), _documents(PLAIN)),
    Attack("a document of initials", _documents("A.A.A."), _documents(PLAIN)),
    Attack("previews of a repeated company", _preview("Ltd Ltd "), _preview(PLAIN)),
    Attack("prompts of a repeated name", _prompt("St. "), _prompt(PLAIN)),
    Attack("prompts of post boxes", _prompt("PO Box 1 "), _prompt(PLAIN)),
    Attack("a schema of thirty counted patterns", _schema(COUNTED), _schema(STRINGS)),
    Attack("a schema of nested counts", _schema(NESTED), _schema(STRINGS)),
    Attack("a schema with a wide pattern", _schema(WIDE), _schema(STRINGS)),
    Attack("a stream that nobody reads", _read_stream(reads=False), _read_stream(reads=True)),
    Attack("more answers at once than a key's share", _many(MANY), _many(SHARE)),
    Attack("evaluations of unknown adapters", _unknown_adapter, _rest),
    Attack("erasures of nothing", _odd_erasures, _rest),
)
