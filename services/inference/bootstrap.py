"""Builds the service: the one place that chooses its real adapters and connects them to handlers, topics, gRPC and HTTP."""

from contextlib import nullcontext
from functools import partial

from services.inference import handlers, routing
from services.inference.adapter_cache import AdapterCache
from services.inference.adapters.anonymization import AnonymizationClient
from services.inference.adapters.drafts import DraftArchive
from services.inference.adapters.events import PRESENCE_SECONDS, DraftPublisher, Presence, ReportPublisher
from services.inference.adapters.forwarding import Forwarder
from services.inference.adapters.model_store import VerifiedLibrary, fetch_base
from services.inference.admission import Admission
from services.inference.compute_meter import ComputeMeter
from services.inference.consumers import (
    SEEN,
    SERVING,
    SPECIALISTS,
    ReplicaConsumer,
    ServingConsumer,
    SpecialistConsumer,
)
from services.inference.definitions import Definitions
from services.inference.deployments import Deployments
from services.inference.draft_texts import DraftTextStore
from services.inference.engines.choose import choose_engine, takes_quantised
from services.inference.generation import DraftRecorder, Inference, ModelServer, ReadinessGate
from services.inference.repeated_calls import SWEEP_SECONDS, RepeatedCalls
from services.inference.rpc import open_servers
from services.inference.serving_table import ServingTable
from services.inference.settings import Settings
from tailor.compute_lock import ComputeLock
from tailor.events.envelope import new_id
from tailor.events.erased import ERASED, forgetting
from tailor.rpc.channel import replica_channel
from tailor.runtime import Runtime
from tailor.storage.s3 import S3Store

# An engine that answers nothing for this long hangs. Loading an adapter, and compiling a kernel at the first call, take less.
ENGINE_SECONDS = 300.0


def build(runtime: Runtime, settings: Settings) -> None:
    """Accept calls, load the base and everything that serves, then let the calls through."""
    gate, definitions, deployments = ReadinessGate(), Definitions(), Deployments(settings.base)
    forwarder = Forwarder(deployments, partial(replica_channel, settings))
    table = ServingTable(open_servers(runtime, settings, gate, forwarder).set_known)
    store, producer = S3Store.from_settings(settings), runtime.producer(settings)
    runtime.read_published(settings, SPECIALISTS, SpecialistConsumer(definitions).apply)
    replicas = ReplicaConsumer(deployments)
    runtime.read_table(settings, SEEN, replicas.apply)
    make_engine = choose_engine(settings)
    fetch = partial(fetch_base, store, settings.base, settings.model_cache, quantised=takes_quantised(settings))
    base = runtime.wait_for(f"base {settings.base}", fetch)
    engine = make_engine(base.served, targets=base.layers.targets)
    runtime.on_stop(engine.close)
    beat = partial(runtime.heartbeats.beat, "engine", ENGINE_SECONDS)
    runtime.spawn("engine", partial(engine.watch, beat=beat))
    library = VerifiedLibrary(store, base, settings.model_cache, settings.max_lora_rank)
    cache = AdapterCache(engine, library, settings.max_loras, merged=base.merged)
    announce_call = ComputeLock(settings.compute_lock).hold if settings.compute_lock else nullcontext
    models = ModelServer(settings.base, engine, cache, table, announce_call, ComputeMeter(engine.device), base.merged)
    replicas.models = models
    anonymizer = AnonymizationClient(runtime.channel(settings, "anonymization", settings.anonymization_address))
    drafts = DraftPublisher.from_settings(settings, producer)
    archive = DraftArchive(runtime.channel(settings, "registry", settings.registry_address), store)
    texts = DraftTextStore(definitions, anonymizer, archive.texts.put, drafts.publish)
    runtime.spawn("drafts", drafts.run)
    runtime.spawn("texts", texts.run)
    recorder = DraftRecorder(drafts.publish, texts.keep, settings.digest_key_bytes, partial(new_id, "drf"))
    presence = Presence(
        producer, partial(routing.describe_replica, models, settings.replica, settings.advertised_address)
    )
    publish_report = ReportPublisher(producer, settings.replica, presence.refresh).publish
    runtime.read_published(
        settings, SERVING, ServingConsumer(models, deployments, publish_report, runtime.wait_for).apply
    )
    forget_models = partial(handlers.forget_erased, models)
    forget = forgetting(runtime.name, forget_models, producer, supersede=forget_models)
    runtime.read_table(settings, ERASED, lambda event: runtime.wait_for(ERASED, lambda: forget(event)), wait=False)
    repeated_calls = RepeatedCalls()
    runtime.every("repeated calls", SWEEP_SECONDS, repeated_calls.drop_expired)
    admission = Admission(settings.max_concurrent, settings.max_queued)
    gate.open(Inference(models, admission, definitions, anonymizer, recorder, archive, repeated_calls, deployments))
    runtime.ready()
    # Only now, when everything that serves is loaded and reported, does the replica count as ready.
    presence.publish()
    runtime.every("presence", PRESENCE_SECONDS, presence.publish)
    runtime.on_stop(partial(presence.publish, leaving=True))
