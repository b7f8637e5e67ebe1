"""The service as a process, against the embedded stores."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.training.bases.capabilities import write_capabilities
from tailor.api.events.v1 import models_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.api.registry.v1 import registry_pb2
from tailor.errors import NotFound, Unavailable
from tailor.events.envelope import Event, decode
from tailor.events.producer import KafkaProducer
from tailor.events.table import tail
from tailor.rpc.channel import service_channel, wire_errors
from tailor.settings import KafkaSettings, ServiceSettings
from tailor.storage.buckets import MODELS
from tailor.storage.s3 import S3Store
from tests.conftest import Stores
from tests.integration.listening import listening
from tests.models import make_tiny_base
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BASE = "tiny-inference-test"


def publish_base(store: S3Store, folder: Path) -> None:
    write_capabilities(folder)
    files = []
    for path in sorted(folder.iterdir()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        ref = store.put_file(MODELS, f"bases/files/{digest}", path)
        files.append({"path": path.name, "sha256": digest, "size_bytes": ref.size_bytes, "key": ref.key})
    store.put(MODELS, f"bases/{BASE}/manifest.json", json.dumps({"name": BASE, "files": files}).encode())


def readiness(environment: dict[str, str]) -> dict[str, Any]:
    address = f"http://127.0.0.1:{environment['TAILOR_STATUS_PORT']}/readyz"
    try:
        with urllib.request.urlopen(address, timeout=60) as reply:
            return dict(json.load(reply))
    except urllib.error.HTTPError as error:
        return dict(json.load(error))
    except OSError:
        return {"ready": False, "waiting_for": None}


@pytest.fixture(autouse=True)
def registry(stores: Stores) -> Iterator[None]:
    """A registry that has published the first generation of one specialist."""
    published = registry_pb2.SpecialistRevision(name="tiny-reports", generation=1)
    answer = registry_pb2.ListRevisionsResponse(specialists=[published])
    method = grpc.unary_unary_rpc_method_handler(
        lambda request, context: answer,
        request_deserializer=registry_pb2.ListRevisionsRequest.FromString,
        response_serializer=registry_pb2.ListRevisionsResponse.SerializeToString,
    )
    service = grpc.method_handlers_generic_handler("tailor.api.registry.v1.RegistryService", {"ListRevisions": method})
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(stores.plan.ports.address("registry-rpc"))
    server.start()
    yield
    server.stop(None).wait()


@pytest.fixture
def process(stores: Stores, tmp_path: Path) -> Iterator[tuple[dict[str, str], subprocess.Popen[bytes]]]:
    environment = dict(os.environ) | stores.environment("inference")
    environment |= {"TAILOR_ENGINE": "transformers", "TAILOR_BASE": BASE, "TAILOR_DATA_DIR": str(tmp_path)}
    running = subprocess.Popen([sys.executable, "-m", "services.inference"], env=environment)
    yield environment, running
    if running.poll() is None:
        running.send_signal(signal.SIGTERM)
        running.wait(30)


def test_waits_for_its_base_then_serves_a_specialist_and_reports_it(
    stores: Stores, process: tuple[dict[str, str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    environment, running = process
    wait_until(lambda: readiness(environment)["waiting_for"] == f"base {BASE}", 120)
    settings = stores.settings("evaluation", ServiceSettings)
    channel = service_channel(settings, "inference", settings.inference_address, service="evaluation")
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    request = inference_pb2.GenerateRequest(model="base", prompt="Write it.")
    request.sampling.max_tokens = 5
    with pytest.raises(Unavailable) as early, wire_errors("inference"):
        stub.Generate(request, timeout=60)
    assert early.value.reason == "NO_MODEL_READY"

    publish_base(
        S3Store.from_settings(stores.settings("training", ServiceSettings)),
        make_tiny_base(tmp_path / "base", ["Write it."]),
    )
    decision = models_pb2.SpecialistServing(
        specialist="tiny-reports", generation=1, base=BASE, system_prompt="House style."
    )
    producer = KafkaProducer.from_settings(stores.settings("registry", ServiceSettings), "registry")
    forged = models_pb2.SpecialistServing(specialist="evil-specialist", generation=2**62, base=BASE)
    producer.send("specialist.serving.v1", "evil-specialist", forged, "evt_evil_1")
    producer.send("specialist.serving.v1", "tiny-reports", decision, "evt_tiny_1")
    wait_until(lambda: bool(readiness(environment)["ready"]), 120)

    request.model = "tiny-reports"
    reply = stub.Generate(request, timeout=60)
    assert reply.draft_id.startswith("drf_")
    assert (reply.provenance.specialist, reply.provenance.generation, reply.provenance.base) == (
        "tiny-reports",
        1,
        BASE,
    )
    assert reply.usage.completion_tokens >= 1
    request.model = "nothing"
    with pytest.raises(NotFound), wire_errors("inference"):
        stub.Generate(request, timeout=60)
    listed = stub.ListSpecialists(inference_pb2.ListSpecialistsRequest(), timeout=60).specialists
    # What the registry has not published does not serve.
    assert {"base", "tiny-reports"} <= {entry.name for entry in listed}
    assert "evil-specialist" not in {entry.name for entry in listed}
    reports = [decode(event, models_pb2.AdapterServed) for event in everything(stores.reader, "adapter.served.v1")]
    assert [(r.generation, r.serving, r.replica) for r in reports if r.specialist == "tiny-reports"] == [
        (1, True, "inference-0")
    ]
    expected = {int(environment[f"TAILOR_{server}_PORT"]) for server in ("RPC", "HTTP", "STATUS")}
    assert {int(address.rpartition(":")[2], 16) for address in listening(running.pid)} == expected
    running.send_signal(signal.SIGTERM)
    assert running.wait(30) == 0
    seen = [decode(event, models_pb2.ReplicaSeen) for event in everything(stores.reader, "replica.seen.v1")]
    assert {(event.replica, event.base) for event in seen} == {("inference-0", BASE)}
    assert [event.leaving for event in seen] == [False] * (len(seen) - 1) + [True]


def everything(settings: KafkaSettings, topic: str) -> list[Event]:
    """All events of a topic."""
    import threading

    stop = threading.Event()
    return list(tail(settings, [topic], stop, from_beginning=True, idle=stop.set))
