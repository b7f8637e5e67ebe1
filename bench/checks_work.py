"""The work of `bench.checks`: each function yields pieces of work as (name, with checks, without), where a side returns its CPU seconds."""

import hashlib
import io
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
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
from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.domain import NO_LABELS
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise import budget
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.recognise.detectors.definition import load_detectors
from services.anonymization.surrogates.surrogates import Surrogates
from services.inference.adapters.model_store import VerifiedLibrary, fetch_base
from services.inference.domain import AdapterRef, ChatMessage, Sampling
from services.inference.engines import transformers_engine
from services.inference.engines.transformers_engine import TransformersEngine
from services.ingestion.adapters.worker import read_frame, write_frame
from tailor.api.anonymization.v1 import anonymization_pb2 as pb
from tailor.api.anonymization.v1 import anonymization_pb2_grpc
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
CALLS = 20
FILES = 100
MEMORY_BYTES = 2 << 30
UNCONFINED = "import services.ingestion.adapters.worker as w; w.confine = lambda folders: None; w.main({})"
CONFINED = "import services.ingestion.adapters.worker as w; w.main({})"


def timed(work: Callable[[], object]) -> float:
    """The CPU seconds of this process for the work, all threads together."""
    started = time.process_time()
    work()
    return time.process_time() - started


def read_anonymizer() -> TextAnonymizer:
    """The default barrier without a memory of passages, so that each text is read."""
    analyzer = Analyzer.load(load_detectors(), load_policy()).with_policy(load_policy(), cache_size=0)
    return TextAnonymizer(analyzer, Surrogates(MemoryVault(), analyzer.lexicon, b"s" * 32))


def barrier(folder: Path, running: ExitStack) -> Iterator[Parts]:
    """A document: its limit of time, and the look whether its caller has gone."""
    anonymizer, text = read_anonymizer(), read_sample()[0].text

    def checked() -> None:
        with budget.limit(600, lambda: False):
            anonymizer.anonymize((text,))

    def bare() -> None:
        anonymizer._anonymize((text,), NO_LABELS)

    yield "a document through the barrier: limit of time, cancellation", partial(timed, checked), partial(timed, bare)


class Servicer(anonymization_pb2_grpc.AnonymizationServiceServicer):
    """Anonymises for a caller of a bench."""

    def __init__(self, anonymizer: TextAnonymizer) -> None:
        self._anonymizer = anonymizer

    def Anonymize(self, request: pb.AnonymizeRequest, context: grpc.ServicerContext) -> pb.AnonymizeResponse:
        del context
        return pb.AnonymizeResponse(text=self._anonymizer.anonymize((request.text,)).texts[0])


def calls(folder: Path, running: ExitStack) -> Iterator[Parts]:
    """A call with 2,000 characters for the barrier: credentials, access, rates, limits and the wait for its message; against gRPC alone."""
    servicer, text = Servicer(read_anonymizer()), read_sample()[0].text[:2_000]  # type: ignore[abstract]  # only what is called
    add = anonymization_pb2_grpc.add_AnonymizationServiceServicer_to_server
    identity, trust = _identity(folder)
    key = "tlr_" + "k" * 43
    holder = Caller("key", "bench", "ROLE_DATA_PROTECTION", key_id="key_1")
    settings = ServiceSettings(rpc_port=0)
    server = RpcServer(
        settings,
        "anonymization",
        servicers=[(add, servicer)],
        authenticator=Authenticator("anonymization", trust, lambda _: holder),
    )
    server.start()
    running.callback(server.stop, 0)
    plain = grpc.server(ThreadPoolExecutor(8))
    add(servicer, plain)
    port = plain.add_insecure_port("127.0.0.1:0")
    plain.start()
    running.callback(plain.stop, 0)
    bare = running.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))
    for name, token in (("a service", lambda: identity.token("anonymization")), ("a key", lambda: key)):
        checked = running.enter_context(open_channel(f"127.0.0.1:{server.port}", token))
        yield (
            f"a call of {name} with 2,000 characters: credentials, limits",
            _caller(checked, text),
            _caller(bare, text),
        )


def _caller(channel: grpc.Channel, text: str) -> Side:
    stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)

    def call() -> None:
        for _ in range(CALLS):
            stub.Anonymize(pb.AnonymizeRequest(text=text), timeout=60)

    return lambda: timed(call) / CALLS


def _identity(folder: Path) -> tuple[Identity, Trust]:
    key, path, trust = Ed25519PrivateKey.generate(), folder / "registry.pem", folder / "trust.json"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    trust.write_text(json.dumps({"registry": public}))
    return Identity.load("registry", path), Trust.load(trust)


def files(folder: Path, running: ExitStack) -> Iterator[Parts]:
    """The sample's files in a child process with seccomp and Landlock, against one without; the child's start counts."""
    yield (
        f"{FILES} files parsed in a child: seccomp, Landlock",
        partial(_parse, CONFINED),
        partial(_parse, UNCONFINED),
    )


def _parse(program: str) -> float:
    paths = itertools.islice(itertools.cycle(sorted((SAMPLE / "documents").iterdir())), FILES)
    command = [sys.executable, "-c", program.format(MEMORY_BYTES)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    requests, parsed = cast(BinaryIO, child.stdin), cast(BinaryIO, child.stdout)
    for path in paths:
        head = {"name": path.name, "content_type": "", "cpu_seconds": 60, "max_chars": 6_000_000}
        write_frame(requests, json.dumps(head).encode())
        write_frame(requests, path.read_bytes())
        # Some of the sample's files are damaged on purpose; these are answered with a reason.
        if read_frame(parsed, 1 << 30) is None:
            raise RuntimeError(f"The child ended at {path.name}.")
    requests.close()
    used: resource.struct_rusage = os.wait4(child.pid, 0)[2]
    child.returncode = 0
    parsed.close()
    return used.ru_utime + used.ru_stime


def stores(folder: Path, running: ExitStack) -> Iterator[Parts]:
    """A document's requests to the embedded object store, and the barrier: TLS between the store's parts, against plain HTTP."""
    anonymizer, text = read_anonymizer(), read_sample()[0].text
    sides = []
    for name in ("encrypted", "plain"):
        client, process = _start_store(folder / name, running, is_encrypted=name == "encrypted")
        sides.append(partial(_take_document, client, process, anonymizer, text))
    yield "a document's way through the store and the barrier: the store's TLS", sides[0], sides[1]


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


def _take_document(client: Minio, process: subprocess.Popen[bytes], anonymizer: TextAnonymizer, text: str) -> float:
    """The CPU seconds of a document: into quarantine, out of it, through the barrier, into the corpus, out of it, and off quarantine."""
    before, started = cpu_seconds(process.pid), time.process_time()
    for number in range(CALLS):
        key, data = f"letter-{number}", text.encode()
        client.put_object("quarantine", key, io.BytesIO(data), len(data))
        read = client.get_object("quarantine", key).read().decode()
        passed = anonymizer.anonymize((read,)).texts[0].encode()
        client.put_object("corpus", key, io.BytesIO(passed), len(passed))
        client.get_object("corpus", key).read()
        client.remove_object("quarantine", key)
    return (cpu_seconds(process.pid) - before + time.process_time() - started) / CALLS


def answers(folder: Path, running: ExitStack) -> Iterator[Parts]:
    """An answer of 64 tokens by SmolLM2-135M: the look whether each logit is finite."""
    engine = TransformersEngine(build(folder / "house").base_folder, context_length=2048, threads=THREADS)

    def bare() -> None:
        with patch.object(transformers_engine, "check_logits", lambda logits: None):
            _answer(engine, "")

    yield (
        f"an answer of {ANSWER_TOKENS} tokens: finite logits",
        partial(timed, partial(_answer, engine, "")),
        partial(timed, bare),
    )


def _answer(engine: TransformersEngine, adapter: str) -> None:
    prompt = engine.encode([ChatMessage("user", "Write a long memo about the quarter.")])
    sampling = Sampling(max_tokens=ANSWER_TOKENS, temperature=0.0)
    for _ in engine.generate(prompt, adapter, sampling):
        pass


def adapters(folder: Path, running: ExitStack) -> Iterator[Parts]:
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
    engine = TransformersEngine(base.folder, context_length=2048, threads=THREADS)

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
