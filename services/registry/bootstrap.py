"""The one place that chooses the registry's real adapters."""

from pathlib import Path

from sqlalchemy import Engine

from services.registry import keys, wire
from services.registry.adapters.queries import Queries
from services.registry.adapters.remote import RemoteBarrier, RemoteEvaluator
from services.registry.adapters.sql import begin
from services.registry.adapters.tables import outbox as outbox_rows
from services.registry.canaries import Watch
from services.registry.consumers import Consumers
from services.registry.domain import ErasureReceipt
from services.registry.erasures import Sign
from services.registry.handlers import Begin
from services.registry.rpc import RegistryServicer
from services.registry.settings import Settings
from tailor.api.registry.v1.registry_pb2_grpc import add_RegistryServiceServicer_to_server
from tailor.events.consumer import Consumer
from tailor.events.erased import ERASED
from tailor.events.outbox import Outbox
from tailor.events.producer import KafkaProducer
from tailor.events.topics import load_topics
from tailor.rpc.auth import Authenticator, Caller, VerifyKey
from tailor.rpc.channel import service_channel
from tailor.rpc.identity import Identity, Trust
from tailor.rpc.keys import to_caller
from tailor.rpc.server import RpcServer
from tailor.runtime import Runtime
from tailor.sql import connect, migrate

NAME = "registry"
MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"


def build(runtime: Runtime, settings: Settings) -> None:
    """Connect, then serve and listen."""
    engine = _database(runtime, settings)
    producer = runtime.wait_for("kafka", lambda: KafkaProducer.from_settings(settings, NAME))
    runtime.on_stop(producer.close)
    outbox = Outbox(engine, outbox_rows, producer)
    opened = begin(engine, outbox)
    if settings.bootstrap_operator_key_sha256:
        keys.install_operator_key(opened, settings.bootstrap_operator_key_sha256)
    barrier = RemoteBarrier(service_channel(settings, "anonymization", settings.anonymization_address, service=NAME))
    evaluator = RemoteEvaluator(service_channel(settings, "evaluation", settings.evaluation_address, service=NAME))
    runtime.serve(
        RpcServer(
            settings,
            NAME,
            servicers=[
                (
                    add_RegistryServiceServicer_to_server,
                    RegistryServicer(opened, Queries(engine), barrier, tuple(load_topics()[ERASED].consumers)),
                )
            ],
            authenticator=Authenticator(NAME, Trust.load(settings.trust_file), key_verifier(opened)),
        )
    )
    runtime.spawn("outbox", outbox.run)
    runtime.spawn("canaries", Watch(opened, evaluator).run)
    topics = Consumers(opened, evaluator, signer(Identity.load(NAME, settings.identity_key_file))).topics()
    consumer = Consumer(settings, service=NAME, topics=topics, producer=producer)
    runtime.spawn("consumer", consumer.run)
    runtime.ready()


def _database(runtime: Runtime, settings: Settings) -> Engine:
    engine = connect(settings.database_url.get_secret_value())
    runtime.wait_for("database", lambda: migrate(engine, MIGRATIONS))
    runtime.on_stop(engine.dispose)
    return engine


def signer(identity: Identity) -> Sign:
    """Signs receipts with the registry's own key."""
    return lambda body: ErasureReceipt(body, identity.sign(body.encode()), identity.public_key)


def key_verifier(opened: Begin) -> VerifyKey:
    """Verifies keys by the catalogue itself, as other services do by VerifyKey."""

    def verify(secret_sha256: str) -> Caller:
        return to_caller(wire.from_key(keys.verify_key(opened, secret_sha256)))

    return verify
