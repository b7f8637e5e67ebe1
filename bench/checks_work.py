"""The work of `bench.checks`: each function yields pieces of work as (name, with checks, without), where a side returns its CPU seconds."""

import hashlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast
from unittest.mock import patch

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from minio import Minio

from bench.children import cpu_seconds
from bench.gold import SAMPLE, read_sample
from bench.inference_adapters import make_adapters
from bench.training_house import BASE, build
from services.anonymization.adapters.children.child_analyzer import ChildAnalyzer
from services.anonymization.adapters.children.messages import Installation
from services.anonymization.adapters.detectors import MAKERS
from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.domain import NO_LABELS, Anonymized
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise import budget
from services.anonymization.recognise.analyzer import DEFAULT_REGIONS, Analyzer
from services.anonymization.recognise.detectors.definition import load_detectors
from services.anonymization.recognise.languages.detection import LanguageDetector
from services.anonymization.recognise.languages.loading import load_section_analyzer
from services.anonymization.recognise.ports import TextAnalyzer
from services.anonymization.surrogates.surrogates import Surrogates
from services.inference.adapters.model_store import VerifiedLibrary, fetch_base
from services.inference.domain import AdapterRef, ChatMessage, Sampling
from services.inference.engines import transformers_engine
from services.inference.engines.transformers_engine import TransformersEngine
from tailor.api.anonymization.v1 import anonymization_pb2 as pb
from tailor.api.anonymization.v1 import anonymization_pb2_grpc
from tailor.frames import read_frame, write_frame
from tailor.local import processes
from tailor.local import store as local_store
from tailor.local.layout import STORE, Layout
from tailor.local.ports import Ports, reserve
from tailor.local.secrets import ADMIN, Secrets, ensure
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.channel import open_channel
from tailor.rpc.identity import Identity, Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tailor.storage.buckets import MODELS
from tests.unit.anonymization.fakes import MemoryVault
from tests.waiting import wait_until

Side = Callable[[], float]
Parts = tuple[str, Side, Side]

ANSWER_TOKENS = 64
# A second thread would wait for the first one busily, which counts as CPU time.
THREADS = 1
CALLS = 300
EMPTY_CALLS = {kind: f"an empty call of a {kind}" for kind in ("key", "service")}
PROMPT_CHARS = 2_000
KEY = "tlr_" + "k" * 43
SAMPLE_TEXT = read_sample()[0].text
# The sample's files without those that are damaged on purpose.
DOCUMENTS = [path for path in sorted((SAMPLE / "documents").iterdir()) if path.name.startswith("board-")]
MEMORY_BYTES = 2 << 30
UNCONFINED = "import services.ingestion.adapters.worker as w; w.confine = lambda folders: None; w.main({})"
CONFINED = "import services.ingestion.adapters.worker as w; w.main({})"


def timed(work: Callable[[], object]) -> float:
    """The CPU seconds of this process for the work, all threads together."""
    started = time.process_time()
    work()
    return time.process_time() - started


def read_anonymizer() -> TextAnonymizer:
    """The default barrier without a memory of passages, so that each text is read, however long that takes."""
    analyzer = Analyzer.load(load_detectors(), load_policy()).with_policy(load_policy(), cache_size=0)
    return TextAnonymizer(analyzer, Surrogates(MemoryVault(), analyzer.lexicon, b"s" * 32), seconds_per_text=math.inf)


class Servicer(anonymization_pb2_grpc.AnonymizationServiceServicer):
    """Answers one method with what `work` makes of its text."""

    def __init__(self, work: Callable[[str], str]) -> None:
        self._work = work

    def Anonymize(self, request: pb.AnonymizeRequest, context: grpc.ServicerContext) -> pb.AnonymizeResponse:
        del context
        return pb.AnonymizeResponse(text=self._work(request.text))


def make_servicer(work: Callable[[str], str]) -> Servicer:
    """A servicer of that work; its other methods are never called."""
    return Servicer(work)  # type: ignore[abstract]


def calls(folder: Path) -> Iterator[Parts]:
    """An empty call: credentials, access, rates, limits and the wait for its message; compared with plain gRPC."""
    servicer = make_servicer(lambda text: "")
    with ExitStack() as servers:
        checked, bare = _serve(folder, servers, servicer)
        for kind, name in EMPTY_CALLS.items():
            yield name, _caller(checked[kind], "", CALLS), _caller(bare, "", CALLS)


def _serve(folder: Path, running: ExitStack, servicer: "Servicer") -> tuple[dict[str, grpc.Channel], grpc.Channel]:
    """Channels to a servicer behind all checks, by the kind of caller, and one to it behind none."""
    add = anonymization_pb2_grpc.add_AnonymizationServiceServicer_to_server
    identity, trust = _identity(folder)
    holder = Caller("key", "bench", "ROLE_DATA_PROTECTION", key_id="key_1")
    authenticator = Authenticator("anonymization", trust, lambda _: holder)
    server = RpcServer(
        ServiceSettings(rpc_port=0), "anonymization", servicers=[(add, servicer)], authenticator=authenticator
    )
    server.start()
    running.callback(server.stop, 0)
    plain = grpc.server(ThreadPoolExecutor(8))
    add(servicer, plain)
    port = plain.add_insecure_port("127.0.0.1:0")
    plain.start()
    running.callback(plain.stop, 0)
    tokens: dict[str, Callable[[], str]] = {"key": lambda: KEY, "service": lambda: identity.token("anonymization")}
    address = f"127.0.0.1:{server.port}"
    checked = {kind: running.enter_context(open_channel(address, token)) for kind, token in tokens.items()}
    return checked, running.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))


def _caller(channel: grpc.Channel, text: str, count: int = 1) -> Side:
    stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)

    def call() -> None:
        for _ in range(count):
            stub.Anonymize(pb.AnonymizeRequest(text=text), timeout=600)

    return lambda: timed(call) / count


def _identity(folder: Path) -> tuple[Identity, Trust]:
    key, path, trust = Ed25519PrivateKey.generate(), folder / "registry.pem", folder / "trust.json"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    trust.write_text(json.dumps({"registry": public}))
    return Identity.load("registry", path), Trust.load(trust)


def documents(folder: Path) -> Iterator[Parts]:
    """A document's way: a file is parsed, put into quarantine, read, anonymised and put into the corpus.

    With checks, the parser is confined (seccomp, Landlock), the store's parts speak TLS, and the barrier reads in a child with limits.
    """
    with ExitStack() as running:
        known = set(processes.children_of(os.getpid()))
        reader = _start_reader()
        running.callback(reader.parent.close)
        (group,) = set(processes.children_of(os.getpid())) - known
        in_process = _load_reader()
        sides = [
            Way(
                _anonymizer(reader if is_checked else in_process),
                group if is_checked else 0,
                *_start_store(folder / name, running, is_encrypted=is_checked),
                _start_parser(running, CONFINED if is_checked else UNCONFINED),
                is_checked=is_checked,
            )
            for name, is_checked in (("checked", True), ("bare", False))
        ]
        yield (
            "a document parsed, stored and anonymised: sandbox, TLS, a child with limits",
            sides[0].take,
            sides[1].take,
        )


# Hardly any paragraph is remembered. With a cache of 0, as for prompts, a child also forgets what its functions remember of words.
CACHE_SIZE = 1
INSTALLATION = Installation(load_detectors(), load_policy(), ("en",), DEFAULT_REGIONS, is_held=False)


def _start_reader() -> ChildAnalyzer:
    """The barrier's analyzer, which reads every text in a child."""
    return ChildAnalyzer.start(INSTALLATION, CACHE_SIZE)


def _load_reader() -> TextAnalyzer:
    """The same analyzer in this process."""
    it = INSTALLATION
    detector = LanguageDetector()
    analyzer = load_section_analyzer(
        it.detectors, it.policy, detector, languages=it.languages, phone_regions=it.phone_regions, makers=MAKERS,
        is_held=it.is_held,
    )  # fmt: skip
    return analyzer.with_policy(it.policy, CACHE_SIZE)


def _anonymizer(reader: TextAnalyzer) -> TextAnonymizer:
    return TextAnonymizer(reader, Surrogates(MemoryVault(), reader.lexicon, b"s" * 32), seconds_per_text=math.inf)


@dataclass(frozen=True)
class Way:
    """One side's processes. `readers` is the group of those that read texts."""

    anonymizer: TextAnonymizer
    readers: int
    client: Minio
    store: subprocess.Popen[bytes]
    parser: subprocess.Popen[bytes]
    is_checked: bool

    def take(self) -> float:
        """The CPU seconds of a document, by this process, the store, the parser and the children that read texts."""
        before = self._used()
        for path in DOCUMENTS:
            self._take(path)
        return (self._used() - before) / len(DOCUMENTS)

    def _used(self) -> float:
        readers = processes.group_members(self.readers) if self.is_checked else []
        return time.process_time() + sum(map(cpu_seconds, (self.store.pid, self.parser.pid, *readers)))

    def _take(self, path: Path) -> None:
        text = self._parse(path).encode()
        self.client.put_object("quarantine", path.name, io.BytesIO(text), len(text))
        read = self.client.get_object("quarantine", path.name).read().decode()
        passed = self._anonymize(read).texts[0].encode()
        self.client.put_object("corpus", path.name, io.BytesIO(passed), len(passed))
        self.client.remove_object("quarantine", path.name)

    def _anonymize(self, text: str) -> Anonymized:
        if not self.is_checked:
            return self.anonymizer._anonymize((text,), NO_LABELS)
        with budget.limit(600, lambda: False):
            return self.anonymizer.anonymize((text,))

    def _parse(self, path: Path) -> str:
        requests, parsed = cast(BinaryIO, self.parser.stdin), cast(BinaryIO, self.parser.stdout)
        head = {"name": path.name, "content_type": "", "cpu_seconds": 60, "max_chars": 6_000_000}
        write_frame(requests, json.dumps(head).encode())
        write_frame(requests, path.read_bytes())
        answer = json.loads(read_frame(parsed, 1 << 30) or b"{}")
        return str(answer["text"])


def _start_parser(running: ExitStack, program: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", program.format(MEMORY_BYTES)]
    parser = running.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    running.callback(parser.kill)
    return parser


def _start_store(root: Path, running: ExitStack, *, is_encrypted: bool) -> tuple[Minio, subprocess.Popen[bytes]]:
    layout = Layout(root)
    reservation = reserve(root)
    running.callback(reservation.close)
    secrets, directory = ensure(layout), layout.data(STORE)
    local_store._prepare(directory, reservation.ports, secrets)
    if not is_encrypted:
        settings = directory / "security.toml"
        parts = settings.read_text().partition("[grpc]")
        settings.write_text(parts[0])
    command = [local_store._binary(), "server", *local_store._arguments(reservation.ports)]
    with (root / "store.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=directory, stdout=log, stderr=log, env={**os.environ, "HOME": str(directory)}
        )
    running.callback(process.wait)
    running.callback(process.kill)
    wait_until(lambda: local_store._check(reservation.ports, secrets) is None, 60, "the store is ready")
    return _client(reservation.ports, secrets), process


def _client(ports: Ports, secrets: Secrets) -> Minio:
    key = secrets.s3(ADMIN)
    return Minio(
        ports.address("s3"), access_key=key.access_key, secret_key=key.secret_key, secure=False, region="us-east-1"
    )


def answers(folder: Path) -> Iterator[Parts]:
    """A caller's answer of 64 tokens by SmolLM2-135M, whose prompt passes the barrier in another call.

    With checks, both calls show credentials, limits count them, and each logit is looked at; without, gRPC is plain.
    """
    engine = TransformersEngine(build(folder / "house").base_folder, targets=(), context_length=2048, threads=THREADS)
    anonymizer, prompt = read_anonymizer(), SAMPLE_TEXT[:PROMPT_CHARS]
    with ExitStack() as servers:
        barrier, bare_barrier = _serve(
            folder, servers, make_servicer(lambda text: anonymizer.anonymize((text,)).texts[0])
        )
        ask_barrier = {True: _caller(barrier["service"], prompt), False: _caller(bare_barrier, prompt)}

        def answer(is_checked: bool) -> str:
            ask_barrier[is_checked]()
            _answer(engine, "")
            return ""

        def bare_answer(text: str) -> str:
            with patch.object(transformers_engine, "check_logits", lambda logits: None):
                return answer(False)

        checked, _ = _serve(folder, servers, make_servicer(lambda text: answer(True)))
        _, bare = _serve(folder, servers, make_servicer(bare_answer))
        name = f"an answer of {ANSWER_TOKENS} tokens, its prompt through the barrier: credentials, limits, logits"
        yield name, _caller(checked["key"], ""), _caller(bare, "")


def _answer(engine: TransformersEngine, adapter: str) -> None:
    prompt = engine.encode([ChatMessage("user", "Write a long memo about the quarter.")])
    sampling = Sampling(max_tokens=ANSWER_TOKENS, temperature=0.0)
    for _ in engine.generate(prompt, adapter, sampling):
        pass


def adapters(folder: Path) -> Iterator[Parts]:
    """An adapter of rank 16 that is fetched, loaded and answers once: digests, shapes, finite numbers, magnitudes; against a copy of its files."""
    house = build(folder / "house")
    base = fetch_base(house.store, BASE, folder / "cache")
    (source,) = make_adapters(house.base_folder, folder / "adapters", 1)
    listed = []
    for path in sorted(source.iterdir()):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        ref = house.store.put(MODELS, f"adapters/files/{digest}", data)
        listed.append({"path": path.name, "key": ref.key, "sha256": digest, "size_bytes": ref.size_bytes})
    manifest = json.dumps({"kind": "policy", "base_digest": base.digest, "files": listed}).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    adapter = AdapterRef(digest, house.store.put(MODELS, f"adapters/{digest}/manifest.json", manifest))
    library = VerifiedLibrary(house.store, base, folder / "cache", max_rank=64)
    engine = TransformersEngine(base.folder, targets=base.layers.targets, context_length=2048, threads=THREADS)

    def serve(fetched: Callable[[], Path]) -> None:
        engine.load("candidate", fetched())
        _answer(engine, "candidate")
        engine.unload("candidate")
        library.drop(digest)
        shutil.rmtree(folder / "copy", ignore_errors=True)

    checked = partial(serve, partial(library.fetch, adapter))
    bare = partial(serve, lambda: shutil.copytree(source, folder / "copy"))
    yield (
        "an adapter loaded, with its first answer: digests, shapes, magnitudes",
        partial(timed, checked),
        partial(timed, bare),
    )
