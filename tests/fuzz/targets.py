"""What reads bytes from outside, with examples to start from. Each target returns, or raises one of Tailor's own errors."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.testclient import TestClient
from google.protobuf.message import Message

from services.anonymization.policy.policy_file import DEFAULT as DEFAULT_POLICY
from services.anonymization.policy.policy_file import parse_policy
from services.console.web.review import read_marks
from services.console.web.sessions import BrowserSession, SessionCodec
from services.inference.adapters import verify
from services.inference.adapters.weights import read_header
from services.inference.generation import ReadinessGate
from services.inference.web.http import create_app
from services.ingestion.adapters.worker import answer
from services.ingestion.domain import File, Rejected
from services.ingestion.schema import KINDS
from services.ingestion.wire import to_submission
from services.registry import wire as registry_wire
from services.registry.rules.checks import check_specialist
from services.training.recipe import FOLDER as RECIPES
from services.training.recipe import parse_recipe
from tailor.cli.definitions import read_definition
from tailor.cli.events import message_type
from tailor.errors import TailorError
from tailor.events.envelope import Event, decode
from tailor.events.topics import load_topics
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.identity import Identity, Trust
from tests.unit.console.world import settings as console_settings
from tests.unit.inference.fakes import forwarder, make_world

ROOT = Path(__file__).parents[2]
MAX_SEED_BYTES = 20_000
MAX_CHARACTERS = 100_000
NAMES = ("a.md", "a.json", "a.csv", "a.html", "a.docx", "a.eml", "a.msg", "a.pdf", "a.xlsx", "a.pptx", "a", "a.txt")
OWN_ERRORS = (TailorError, Rejected)
KEY = Ed25519PrivateKey.generate()


@dataclass(frozen=True)
class Target:
    """A reader of bytes, and valid inputs of it. `slow` ones get fewer inputs."""

    name: str
    read: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    slow: bool = False


def read_file(data: bytes) -> object:
    """A published file, named by its first byte, as the confined worker parses it."""
    return answer(File(data[1:], NAMES[data[0] % len(NAMES)] if data else "a"), MAX_CHARACTERS)


def file_seeds() -> list[bytes]:
    """The small files of the sample, and some that are built here, each after a byte that chooses its name."""
    suffixes = [Path(name).suffix for name in NAMES]
    sample = [path for path in sorted(ROOT.glob("deploy/sample/**/*")) if path.suffix in suffixes[:-2]]
    small = [path for path in sample if path.stat().st_size <= MAX_SEED_BYTES]
    seeds = [bytes([suffixes.index(path.suffix)]) + path.read_bytes() for path in small]
    mail = b"From: a@example.org\r\nSubject: =?utf-8?q?A_memo?=\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    mail += b"--b\r\nContent-Type: text/plain\r\n\r\nThe findings.\r\n--b--\r\n"
    page = b"<html><body><h1>A memo</h1><table><tr><td>1</td><td>&shy;2</td></tr></table></body></html>"
    built = {
        ".eml": mail,
        ".html": page,
        ".csv": b"a;b\n1;2\n",
        ".json": b'{"a": [1, {"b": null}]}',
        ".pdf": b"%PDF-1.4\n%%EOF",
    }
    return seeds + [bytes([suffixes.index(suffix)]) + data for suffix, data in built.items()]


def read_submission(data: bytes) -> object:
    """An event of a publisher, on the topic that the first byte chooses: a file, if that byte is odd; otherwise JSON by the published schema."""
    topic = [*KINDS][data[0] // 2 % len(KINDS) if data else 0]
    headers = {"document-id": "memo-7", "content-type": "text/plain"} if data and data[0] % 2 else {}
    return to_submission(Event(topic, "memo-7", data[1:], headers))


def submission_seeds() -> list[bytes]:
    document = {"document_id": "memo-7", "text": "The findings follow.", "labels": {"source": "memos"}}
    example = {"document_id": "ex-1", "prompt": "Write it.", "answer": "It follows."}
    seeds = {
        b"\x00": document,
        b"\x02": example,
        b"\x04": {"document_id": "t-1", "prompt": "Write.", "reference": "So."},
    }
    return [first + json.dumps(content).encode() for first, content in seeds.items()] + [b"\x01# A memo"]


@cache
def _messages() -> list[type[Message]]:
    """The messages of all topics but those of outsiders, whose values are JSON or files."""
    schemas = sorted({topic.schema for topic in load_topics().values()} - {"raw"})
    return [message_type(schema) for schema in schemas]


def read_event(data: bytes) -> object:
    """An event of a type that the first byte chooses."""
    kind = _messages()[data[0] % len(_messages())] if data else _messages()[0]
    return decode(Event("any.topic.v1", "key", data[1:]), kind)


def event_seeds() -> list[bytes]:
    """A message of each type, with its texts set."""
    seeds = []
    for index, kind in enumerate(_messages()):
        message = kind()
        for field in message.DESCRIPTOR.fields:
            if field.type == field.TYPE_STRING and not field.is_repeated:
                setattr(message, field.name, "a" * 12)
        seeds.append(bytes([index]) + message.SerializeToString())
    return seeds


@cache
def _http() -> TestClient:
    gate = ReadinessGate()
    gate.open(make_world().inference)
    caller = Caller("key", "team", "ROLE_CALLER", key_id="key_1")
    app = create_app(gate, Authenticator("inference", Trust({}), lambda _: caller), forwarder(), 4)
    return TestClient(app, headers={"authorization": "Bearer tlr_caller", "content-type": "application/json"})


def read_body(data: bytes) -> object:
    """A body of the OpenAI-style API: the answer is never a fault of the server."""
    status = _http().post("/v1/chat/completions", content=data).status_code
    assert status < 500 or status in {503, 504}, status
    return status


def body_seeds() -> list[bytes]:
    message = {"role": "user", "content": "Write the findings."}
    bodies: list[dict[str, object]] = [
        {"model": "base", "messages": [message], "max_tokens": 4},
        {"model": "base", "messages": [message], "stream": True, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"]},
        {"model": "base", "messages": [message], "logprobs": True, "top_logprobs": 2, "seed": 7},
        {
            "model": "base",
            "messages": [message],
            "response_format": {"type": "json_schema", "json_schema": {"schema": {}}},
        },
    ]
    return [json.dumps(body).encode() for body in bodies]


def read_recipe(data: bytes) -> object:
    return parse_recipe(data.decode("utf-8", "replace"))


def read_specialist(data: bytes) -> object:
    """A definition, as the command line reads it and the registry checks it."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        definition = read_definition(Path(file.name))
    specialist = registry_wire.to_specialist(definition)
    check_specialist(specialist)
    return specialist


def read_adapter(data: bytes) -> object:
    """An adapter's manifest with its probes, and the header of its weights."""
    manifest = verify.read_manifest(data)
    verify.check_adapter_manifest(manifest, "b" * 64)
    return verify.read_probes(manifest)


def adapter_seeds() -> list[bytes]:
    files = [
        {"path": name, "sha256": "a" * 64, "size_bytes": 10, "key": f"adapters/{'a' * 64}/{name}"}
        for name in (verify.WEIGHTS, verify.CONFIG)
    ]
    probes = [{"tokens": [1, 2, 3], "prompt_length": 1, "log_probability": -1.0}]
    manifest = {"kind": "policy", "base_digest": "b" * 64, "files": files, "probes": probes}
    return [json.dumps(manifest).encode()]


def read_weights(data: bytes) -> object:
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(data)
        file.flush()
        return read_header(Path(file.name))


def weight_seeds() -> list[bytes]:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return [len(header).to_bytes(8, "little") + header + b"\0" * 4]


def read_token(data: bytes) -> object:
    return Trust({"console": KEY.public_key()}).verify(data.decode("latin-1"), "registry")


def read_cookie(data: bytes) -> object:
    return SessionCodec(console_settings().session_secret).read(data.decode("latin-1"))


def _cookie() -> bytes:
    session = BrowserSession.new("session_1", by_password=True)
    return SessionCodec(console_settings().session_secret).write(session).encode()


def _files(*patterns: str) -> Iterator[bytes]:
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            yield path.read_bytes()


TARGETS = {
    target.name: target
    for target in (
        Target("file", read_file, file_seeds, slow=True),
        Target("submission", read_submission, submission_seeds),
        Target("event", read_event, event_seeds),
        Target("http-body", read_body, body_seeds, slow=True),
        Target("recipe", read_recipe, lambda: [path.read_bytes() for path in sorted(RECIPES.glob("*.toml"))]),
        Target(
            "specialist",
            read_specialist,
            lambda: [*_files("deploy/sample/*.toml", "docs/**/*.toml")] or [b'name = "memos"'],
        ),
        Target("policy", parse_policy, lambda: [DEFAULT_POLICY.read_bytes(), b'extends = "hipaa-safe-harbor"\n']),
        Target("adapter-manifest", read_adapter, adapter_seeds),
        Target("weights-header", read_weights, weight_seeds),
        Target("service-token", read_token, lambda: [Identity("console", KEY).token("registry").encode()]),
        Target("cookie", read_cookie, lambda: [_cookie()]),
        Target("marks", lambda data: read_marks(data.decode("utf-8", "replace")), lambda: [b'[[0, 4, "PERSON"]]']),
    )
}
