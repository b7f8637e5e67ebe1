"""Builds the service: the one place that chooses its real adapters and connects them to handlers, topics and gRPC."""

from functools import partial
from pathlib import Path

from services.anonymization import handlers
from services.anonymization.adapters.children.child_analyzer import ChildAnalyzer
from services.anonymization.adapters.kafka import KafkaOutcomes, KafkaPolicies
from services.anonymization.adapters.objects import StoredCorpus, StoredTexts
from services.anonymization.adapters.policies import SqlPolicies
from services.anonymization.assembly import make_parts
from services.anonymization.consumers import INGESTED, on_ingested
from services.anonymization.ledger import SqlAuditLog, SqlLedger
from services.anonymization.policy.detectors import detectors_digest
from services.anonymization.policy.installed import LOOK_SECONDS, CurrentPolicy, install_from_settings
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.policy_rpc import PolicyServicer, SubjectServicer
from services.anonymization.recognise.detectors.definition import DEFAULT as DEFAULT_DETECTORS
from services.anonymization.recognise.detectors.definition import load_detectors
from services.anonymization.recognise.languages.detection import LanguageDetector
from services.anonymization.replaced_rpc import ReplacedServicer
from services.anonymization.review_bootstrap import build_review
from services.anonymization.rpc import AnonymizationServicer
from services.anonymization.settings import Settings
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.keyring import DRAW, Keyring
from services.anonymization.vault.subjects import SubjectIndex
from services.anonymization.vault.vault import SqlVault
from tailor.api.anonymization.v1.anonymization_pb2_grpc import add_AnonymizationServiceServicer_to_server
from tailor.api.anonymization.v1.policy_pb2_grpc import add_PolicyServiceServicer_to_server
from tailor.api.anonymization.v1.replaced_pb2_grpc import add_ReplacedServiceServicer_to_server
from tailor.api.anonymization.v1.subject_pb2_grpc import add_SubjectServiceServicer_to_server
from tailor.api.events.v1 import documents_pb2
from tailor.events.erased import ERASED, LIFT_SECONDS, forgetting
from tailor.events.expired import reject_gap
from tailor.keys import decode_key
from tailor.runtime import Runtime, Servicers
from tailor.storage.s3 import S3Store

MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"


def build(runtime: Runtime, settings: Settings) -> None:
    """Load the language model, connect to the stores, then serve and consume."""
    engine, producer = runtime.database(settings, MIGRATIONS), runtime.producer(settings)
    policies = SqlPolicies(engine, Keyring(*settings.vault_keys))
    file = settings.detectors_file or DEFAULT_DETECTORS
    detectors = load_detectors(file)
    digest = detectors_digest(settings, [detector.model for detector in detectors], [file])
    install_from_settings(policies, settings, digest)
    language_of = LanguageDetector()
    analyzer = ChildAnalyzer.from_settings(settings, detectors, load_policy())
    vault = SqlVault(engine, *settings.vault_keys)
    subjects = SubjectIndex(engine, vault, analyzer.lexicon)
    surrogates = Surrogates(vault, analyzer.lexicon, vault.secret(DRAW), subjects.suppressed)
    review = build_review(engine, vault, analyzer.lexicon)
    parts = make_parts(
        analyzer, surrogates, vault, engine=engine, settings=settings, detectors=digest, terms=review.terms
    )
    current = CurrentPolicy(policies, parts, KafkaPolicies(producer), digest)
    runtime.every("policy", LOOK_SECONDS, current.look)
    ledger, audit = SqlLedger(engine), SqlAuditLog(engine)
    servicer = AnonymizationServicer(
        anonymizer=current, prompts=current.prompts, previewer=current, vault=vault, subjects=subjects,
        true_values=current, audit=audit,
    )  # fmt: skip
    store = S3Store.from_settings(settings)
    quarantine, corpus = StoredTexts(store, decode_key(settings.quarantine_key)), StoredCorpus(store)
    publish = KafkaOutcomes(producer)
    replaced = review.replaced(ledger, corpus, vault, audit, current.allow)
    servicers: Servicers = [
        (add_AnonymizationServiceServicer_to_server, servicer),
        (add_PolicyServiceServicer_to_server, PolicyServicer(current, policies, ledger)),
        (add_SubjectServiceServicer_to_server, SubjectServicer(subjects, ledger, audit)),
        review.servicer(settings, current.policy, ledger, corpus, audit),
        (add_ReplacedServiceServicer_to_server, ReplacedServicer(replaced, current)),
    ]
    runtime.rpc(settings, servicers)
    forget = partial(
        handlers.forget,
        quarantine=quarantine,
        corpus=corpus,
        subjects=subjects,
        ledger=ledger,
        recorder=review.recorder,
    )
    supersede = partial(handlers.supersede, corpus=corpus, ledger=ledger)
    pass_document = partial(
        handlers.pass_document, quarantine=quarantine, corpus=corpus, subjects=subjects, ledger=ledger,
        publisher=publish, anonymizer=current, recorder=review.recorder, language_of=language_of
    )  # fmt: skip
    ingested = on_ingested(pass_document, quarantine, runtime.erased_documents(settings, LIFT_SECONDS))
    topics = {INGESTED: ingested, ERASED: forgetting("anonymization", forget, producer, supersede=supersede)}
    expired = reject_gap(producer, runtime.name, documents_pb2.STAGE_ANONYMIZATION, (INGESTED,))
    runtime.consume(settings, topics, producer, expired)
    runtime.ready()
