"""Builds the service: the one place that chooses its real adapters and connects them to handlers, topics and gRPC."""

from functools import partial
from pathlib import Path

from services.anonymization import handlers
from services.anonymization.adapters.detectors import MAKERS
from services.anonymization.adapters.kafka import KafkaOutcomes
from services.anonymization.adapters.objects import StoredCorpus, StoredTexts
from services.anonymization.adapters.sql import SqlAuditLog, SqlLedger
from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.consumers import INGESTED, on_ingested
from services.anonymization.policy.policy_file import DEFAULT, load_policy
from services.anonymization.policy.preview import Preview
from services.anonymization.prompts import EphemeralPromptAnonymizer
from services.anonymization.recognise.detectors.definition import DEFAULT as DEFAULT_DETECTORS
from services.anonymization.recognise.detectors.definition import load_detectors
from services.anonymization.recognise.languages.detection import LanguageDetector
from services.anonymization.recognise.languages.loading import load_section_analyzer
from services.anonymization.review_bootstrap import build_review
from services.anonymization.rpc import AnonymizationServicer
from services.anonymization.settings import Settings
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.keyring import DRAW
from services.anonymization.vault.subjects import SubjectIndex
from services.anonymization.vault.true_values import TrueValueFinder
from services.anonymization.vault.vault import SqlVault
from tailor.api.anonymization.v1.anonymization_pb2_grpc import add_AnonymizationServiceServicer_to_server
from tailor.api.events.v1 import documents_pb2
from tailor.events.erased import ERASED, LIFT_SECONDS, forgetting
from tailor.events.gaps import reject_gap
from tailor.keys import decode_key
from tailor.runtime import Runtime
from tailor.storage.s3 import S3Store

MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"


def build(runtime: Runtime, settings: Settings) -> None:
    """Load the language model, connect to the stores, then serve and consume."""
    policy = load_policy(settings.policy_file or DEFAULT)
    detectors = load_detectors(settings.detectors_file or DEFAULT_DETECTORS)
    language_of = LanguageDetector()
    analyzer = load_section_analyzer(
        detectors, policy, language_of, languages=settings.languages, phone_regions=settings.phone_regions, makers=MAKERS,
        is_held=settings.uncovered_languages == "hold",
    )  # fmt: skip
    engine, producer = runtime.database(settings, MIGRATIONS), runtime.producer(settings)
    vault = SqlVault(engine, *settings.vault_keys)
    subjects = SubjectIndex(engine, vault, analyzer.lexicon)
    surrogates = Surrogates(vault, analyzer.lexicon, vault.secret(DRAW), subjects.suppressed)
    review = build_review(engine, vault, analyzer.lexicon)
    anonymizer = TextAnonymizer(analyzer, surrogates, settings.seconds_per_text, review.terms)
    audit = SqlAuditLog(engine)
    servicer = AnonymizationServicer(
        anonymizer=anonymizer,
        prompts=EphemeralPromptAnonymizer(analyzer, review.terms),
        previewer=Preview(analyzer, surrogates, vault, review.terms),
        vault=vault,
        subjects=subjects,
        true_values=TrueValueFinder(engine, vault, analyzer),
        audit=audit,
    )
    store = S3Store.from_settings(settings)
    quarantine, corpus = StoredTexts(store, decode_key(settings.quarantine_key)), StoredCorpus(store)
    ledger, publish = SqlLedger(engine), KafkaOutcomes(producer)
    reviews = review.servicer(settings, policy, ledger, corpus, audit)
    runtime.rpc(settings, [(add_AnonymizationServiceServicer_to_server, servicer), reviews])
    forget = partial(
        handlers.forget,
        quarantine=quarantine,
        corpus=corpus,
        subjects=subjects,
        ledger=ledger,
        recorder=review.recorder,
    )
    pass_document = partial(
        handlers.pass_document, quarantine=quarantine, corpus=corpus, subjects=subjects, ledger=ledger,
        publisher=publish, anonymizer=anonymizer, recorder=review.recorder, language_of=language_of
    )  # fmt: skip
    ingested = on_ingested(pass_document, quarantine, runtime.erased_documents(settings, LIFT_SECONDS))
    topics = {INGESTED: ingested, ERASED: forgetting("anonymization", forget, producer)}
    expired = reject_gap(producer, runtime.name, documents_pb2.STAGE_ANONYMIZATION, (INGESTED,))
    runtime.consume(settings, topics, producer, expired)
    runtime.ready()
