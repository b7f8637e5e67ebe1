"""The one place that chooses anonymization's real adapters."""

from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from services.anonymization.adapters.language import Languages
from services.anonymization.adapters.objects import StoredCorpus, StoredQuarantine
from services.anonymization.adapters.sql import SqlAudit, SqlLedger
from services.anonymization.anonymizer import Engine as Barring
from services.anonymization.consumers import INGESTED, ProducedFacts, on_ingested
from services.anonymization.erasures import Holdings, forget
from services.anonymization.handlers import Barrier
from services.anonymization.policy.policy_file import DEFAULT, load_policy
from services.anonymization.policy.preview import Rehearsals
from services.anonymization.prompts import PromptBarrier
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.rpc import AnonymizationServicer
from services.anonymization.settings import Settings, decode_key, decode_keys
from services.anonymization.vault.keyring import DRAW, SUPPRESS, subkey
from services.anonymization.vault.subject_tables import SqlSubjects
from services.anonymization.vault.subjects import (
    NotedVault,
    NotingAnonymizer,
    RememberingSurrogates,
    SubjectIndex,
)
from services.anonymization.vault.vault import SqlVault
from tailor.api.anonymization.v1.anonymization_pb2_grpc import add_AnonymizationServiceServicer_to_server
from tailor.events.consumer import Consumer, Handler
from tailor.events.erased import ERASED, ErasedDocuments, forgetting
from tailor.events.producer import KafkaProducer, Producer
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
    analyzer = Analyzer.load(
        settings.spacy_model, policy, subkey(key, "cache"), settings.language, settings.phone_regions
    )
    engine = _database(runtime, settings)
    producer = runtime.wait_for("kafka", lambda: KafkaProducer.from_settings(settings, NAME))
    runtime.on_stop(producer.close)
    vault = SqlVault(engine, key, decode_keys(settings.vault_previous_keys))
    index = SubjectIndex(SqlSubjects(engine), vault, analyzer.lexicon, vault.secret(SUPPRESS))
    noted = NotedVault(vault)
    surrogates = RememberingSurrogates(noted, analyzer.lexicon, vault.secret(DRAW), index)
    barring = NotingAnonymizer(Barring(analyzer, surrogates), noted, index)
    store = S3Store.from_settings(settings)
    barrier = Barrier(
        quarantine=StoredQuarantine(store, decode_key(settings.quarantine_key)),
        corpus=StoredCorpus(store),
        ledger=SqlLedger(engine),
        facts=ProducedFacts(producer),
        anonymizer=barring,
        policy_digest=policy.digest,
        language_of=Languages(),
        subjects=index,
    )
    stage = Rehearsals(analyzer, surrogates, vault, index.refresh)
    servicer = AnonymizationServicer(
        barring,
        vault,
        SqlAudit(engine),
        policy_digest=policy.digest,
        subjects=index,
        stage=stage,
        prompts=PromptBarrier(analyzer),
    )
    servicers = [(add_AnonymizationServiceServicer_to_server, servicer)]
    runtime.serve(RpcServer(settings, NAME, servicers=servicers, authenticator=authenticator(settings, NAME)))
    topics = _topics(barrier, runtime.erased_documents(settings), producer)
    runtime.spawn("consumer", Consumer(settings, service=NAME, topics=topics, producer=producer).run)
    runtime.ready()


def _topics(barrier: Barrier, erased: ErasedDocuments, producer: Producer) -> dict[str, Handler]:
    holdings = Holdings(barrier.quarantine, barrier.corpus, barrier.ledger, barrier.subjects)
    return {
        INGESTED: on_ingested(barrier, erased),
        ERASED: forgetting(NAME, partial(forget, holdings), producer),
    }


def _database(runtime: Runtime, settings: Settings) -> Engine:
    engine = connect(settings.database_url.get_secret_value())
    runtime.on_stop(engine.dispose)
    runtime.wait_for("database", lambda: migrate(engine, MIGRATIONS))
    return engine
