"""Every example for callers, run against inference's gRPC server and its OpenAI-style HTTP server."""

import json
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.inference.domain import Draft, DraftRecord, PromptRecord, Sampling
from services.inference.generation import ReadinessGate
from services.inference.ports import Stream
from services.inference.rpc import InferenceServicer
from services.inference.web.http import Address, UvicornServer, create_app
from tailor.api.inference.v1 import inference_pb2_grpc
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.identity import Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tests.unit.inference.fakes import FakeEngine, apply_serving, forwarder, make_world, served
from tests.waiting import wait_for_port

ROOT = Path(__file__).parents[3]
FINDING = '{"title":"Bird strikes","grade":"high"}'


def blocks(path: str, language: str) -> list[str]:
    text = (ROOT / path).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


PYTHON = [block for path in ("docs/call.md", "tailor/client/README.md") for block in blocks(path, "python")]


class OwnDrafts(dict[str, DraftRecord]):
    """Every draft exists, and is the caller's own."""

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, draft_id: str) -> DraftRecord:
        model = served("engagement-reports", 3, "a")
        return DraftRecord(Draft(draft_id, model, "key_1", PromptRecord("p"), "q", 4, 3, "stop", 0.1, 0.5), "tiny")


class GradingEngine(FakeEngine):
    def generate(self, prompt: tuple[int, ...], adapter: str, sampling: Sampling) -> Stream:
        self.say = FINDING if sampling.schema else ""
        return super().generate(prompt, adapter, sampling)


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """The addresses in the examples, and the addresses of the servers here."""
    world = make_world(engine=GradingEngine(context_length=2048), max_queued=16)
    apply_serving(world, served("engagement-reports", 3, "a"))
    world.archive.records = OwnDrafts()
    gate = ReadinessGate()
    gate.open(world.inference)
    authenticator = Authenticator(
        "inference", Trust({}), lambda _: Caller("key", "team", "ROLE_CALLER", key_id="key_1")
    )
    add = inference_pb2_grpc.add_InferenceServiceServicer_to_server
    servicers = [(add, InferenceServicer(gate, forwarder()))]
    settings = ServiceSettings(rpc_port=0, rpc_reflection=True)
    server = RpcServer(settings, "inference", servicers=servicers, authenticator=authenticator)
    server.start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stop = threading.Event()
    app = create_app(gate, authenticator, forwarder(), 16)
    thread = threading.Thread(target=UvicornServer(app, Address("127.0.0.1", port)).run, args=(stop,))
    thread.start()
    wait_for_port(port)
    yield {
        "localhost:50057": f"127.0.0.1:{server.port}",
        # The second replica is absent.
        "localhost:50058": "127.0.0.1:1",
        "localhost:8000": f"127.0.0.1:{port}",
    }
    stop.set()
    thread.join(60)
    server.stop(0)


def with_real_addresses(text: str, addresses: dict[str, str]) -> str:
    for example, real in addresses.items():
        text = text.replace(example, real)
    return text


def test_the_examples_cover_every_way_to_call() -> None:
    text = "".join(PYTHON)
    for way in (
        "TailorClient(",
        "AsyncTailorClient(",
        "openai.OpenAI(",
        "json_schema",
        "log_probabilities",
        "replicas",
        "record_feedback",
        "report_outcome",
    ):
        assert way in text


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.strip().splitlines()[-1].strip()[:40])
def test_an_example_in_python_runs(
    code: str, addresses: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAILOR_API_KEY", "tlr_test")
    monkeypatch.setenv("TAILOR_INFERENCE_ADDRESS", addresses["localhost:50057"])
    monkeypatch.setenv("TAILOR_OPENAI_URL", f"http://{addresses['localhost:8000']}/v1")
    exec(compile(with_real_addresses(code, addresses), "example", "exec"), {"__name__": "__main__"})
    output = capsys.readouterr().out
    assert "no replica" not in output and "no such" not in output
    assert re.search(r"word|high|\[\d+, \d+\]", output)


def test_the_grpcurl_example_calls_a_method_of_the_contract(addresses: dict[str, str]) -> None:
    """`buf curl` stands in for grpcurl, which the package index does not have: same reflection, header, data and method."""
    (command,) = [block for block in blocks("docs/call.md", "sh") if "grpcurl" in block]
    known = {
        "$TAILOR_API_KEY": "tlr_test",
        "$TAILOR_INFERENCE_ADDRESS": addresses["localhost:50057"],
        "\\\n": " ",
    }
    words = shlex.split(with_real_addresses(command, known))
    flags = {words[place]: words[place + 1] for place in range(2, 6, 2)}
    assert words[:2] == ["grpcurl", "-plaintext"] and set(flags) == {"-H", "-d"}
    address, method = words[6:]
    buf = [str(Path(sys.executable).with_name("buf")), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    arguments = ["-H", flags["-H"], "-d", flags["-d"], f"http://{address}/{method}"]
    reply = subprocess.run([*buf, *arguments], capture_output=True, text=True, check=True)
    assert json.loads(reply.stdout)["provenance"]["specialist"] == "engagement-reports"
