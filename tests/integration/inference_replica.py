"""A replica of inference with a slow fake engine, as a process: prints its port and serves until it is killed."""

import sys
import time
from collections.abc import Iterator

from services.inference.domain import AnswerPiece, Sampling
from services.inference.generation import ReadinessGate
from services.inference.ports import Stream
from services.inference.rpc import InferenceServicer
from tailor.api.inference.v1 import inference_pb2_grpc
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.identity import Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tests.unit.inference.fakes import FakeEngine, FakeStream, forwarder, make_world

WORD_SECONDS = 0.01


class SlowStream(FakeStream):
    def __iter__(self) -> Iterator[AnswerPiece]:
        for piece in super().__iter__():
            time.sleep(WORD_SECONDS)
            yield piece


class SlowEngine(FakeEngine):
    def generate(self, prompt: tuple[int, ...], adapter: str, sampling: Sampling) -> Stream:
        return SlowStream(adapter, sampling, self.gate)


def main() -> None:
    world = make_world(max_concurrent=32, max_queued=64, engine=SlowEngine())
    gate = ReadinessGate()
    gate.open(world.inference)
    authenticator = Authenticator(
        "inference", Trust({}), lambda _: Caller("key", "team", "ROLE_CALLER", key_id="key_1")
    )
    add = inference_pb2_grpc.add_InferenceServiceServicer_to_server
    servicers = [(add, InferenceServicer(gate, forwarder()))]
    server = RpcServer(
        ServiceSettings(rpc_port=0), "inference", servicers=servicers, authenticator=authenticator, max_workers=112
    )
    server.start()
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
