"""The one place that chooses anonymization's real adapters."""

from pathlib import Path

from sqlalchemy import Engine

from services.anonymization.adapters.analyzer import Analyzer
from services.anonymization.adapters.engine import Engine as Barring
from services.anonymization.adapters.objects import StoredCorpus, StoredQuarantine
from services.anonymization.adapters.policy import DEFAULT, load_policy
from services.anonymization.adapters.sql import SqlAudit, SqlLedger
from services.anonymization.adapters.surrogates import Surrogates
from services.anonymization.adapters.vault import SqlVault, subkey
from services.anonymization.consumers import INGESTED, ProducedFacts, on_ingested
from services.anonymization.handlers import Barrier
from services.anonymization.rpc import AnonymizationServicer
from services.anonymization.settings import Settings, decode_key
from tailor.api.anonymization.v1.anonymization_pb2_grpc import add_AnonymizationServiceServicer_to_server
from tailor.events.consumer import Consumer
from tailor.events.producer import KafkaProducer
from tailor.rpc.keys import authenticator
from tailor.rpc.server import RpcServer
from tailor.runtime import Runtime
from tailor.sql import connect, migrate
from tailor.storage.s3 import S3Store

NAME = "anonymization"
MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"


def build(runtime: Runtime, settings: Settings) -> None:
    """Load the language model, connect, then serve and listen."""
    policy = load_policy(settings.policy_file or DEFAULT)
    key = decode_key(settings.vault_key)
    analyzer = Analyzer.load(settings.language_model, policy, subkey(key, "cache"))
    engine = _database(runtime, settings)
    producer = runtime.wait_for("kafka", lambda: KafkaProducer.from_settings(settings, NAME))
    runtime.on_stop(producer.close)
    vault = SqlVault(engine, key)
    barring = Barring(analyzer, Surrogates(vault, analyzer.lexicon, subkey(key, "draw")))
    store = S3Store.from_settings(settings)
    barrier = Barrier(
        quarantine=StoredQuarantine(store, decode_key(settings.quarantine_key)),
        corpus=StoredCorpus(store),
        ledger=SqlLedger(engine),
        facts=ProducedFacts(producer),
        anonymizer=barring,
        policy_digest=policy.digest,
    )
    servicer = AnonymizationServicer(barring, vault, SqlAudit(engine), policy.digest)
    servicers = [(add_AnonymizationServiceServicer_to_server, servicer)]
    runtime.serve(RpcServer(settings, NAME, servicers=servicers, authenticator=authenticator(settings, NAME)))
    runtime.spawn(
        "consumer", Consumer(settings, service=NAME, topics={INGESTED: on_ingested(barrier)}, producer=producer).run
    )
    runtime.ready()


def _database(runtime: Runtime, settings: Settings) -> Engine:
    engine = connect(settings.database_url.get_secret_value())
    runtime.on_stop(engine.dispose)
    runtime.wait_for("database", lambda: migrate(engine, MIGRATIONS))
    return engine
