"""Builds the service: the one place that chooses its real adapters and connects them to handlers, topics and gRPC."""

from functools import partial
from pathlib import Path

from services.anonymization import handlers, wire
from services.anonymization.adapters.children.child_analyzer import ChildAnalyzer
from services.anonymization.adapters.policies import SqlPolicies
from services.anonymization.consumers import INGESTED, on_ingested
from services.anonymization.handlers import Barrier
from services.anonymization.ledger import SqlAuditLog, SqlLedger
from services.anonymization.policy.detectors import detectors_digest
from services.anonymization.policy.installed import LOOK_SECONDS, CurrentPolicy, install_from_settings, make_parts
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise.detectors.definition import DEFAULT as DEFAULT_DETECTORS
from services.anonymization.recognise.detectors.definition import load_detectors
from services.anonymization.recognise.languages.detection import LanguageDetector
from services.anonymization.review.handlers import Review
from services.anonymization.review.recorder import DocumentRecorder
from services.anonymization.review.terms import open_terms
from services.anonymization.review_rpc import ReplacedServicer, ReviewServicer
from services.anonymization.rpc import AnonymizationServicer, PolicyServicer, SubjectServicer
from services.anonymization.settings import Settings
from services.anonymization.stored_texts import StoredCorpus, StoredTexts
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.keyring import DRAW, Keyring
from services.anonymization.vault.subjects import SubjectIndex
from services.anonymization.vault.vault import SqlVault
from tailor.api.anonymization.v1.anonymization_pb2_grpc import add_AnonymizationServiceServicer_to_server
from tailor.api.anonymization.v1.policy_pb2_grpc import add_PolicyServiceServicer_to_server
from tailor.api.anonymization.v1.replaced_pb2_grpc import add_ReplacedServiceServicer_to_server
from tailor.api.anonymization.v1.review_pb2_grpc import add_ReviewServiceServicer_to_server
from tailor.api.anonymization.v1.subject_pb2_grpc import add_SubjectServiceServicer_to_server
from tailor.api.events.v1 import documents_pb2
from tailor.events.erased import ERASED, LIFT_SECONDS, forgetting
from tailor.events.expired import reject_gap
from tailor.keys import decode_key
from tailor.rpc.identity import Identity
from tailor.runtime import Runtime, Servicers
from tailor.storage.s3 import S3Store

MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"


def build(runtime: Runtime, settings: Settings) -> None:
    """Connect to the stores, start the processes that read texts, then serve and consume."""
    engine, producer = runtime.database(settings, MIGRATIONS), runtime.producer(settings)
    policies = SqlPolicies(engine, Keyring(*settings.vault_keys))
    file = settings.detectors_file or DEFAULT_DETECTORS
    detectors = load_detectors(file)
    digest = detectors_digest(settings, [detector.model for detector in detectors], [file])
    install_from_settings(policies, settings, digest)
    analyzer = ChildAnalyzer.from_settings(settings, detectors, load_policy())
    vault = SqlVault(engine, *settings.vault_keys)
    subjects, terms = SubjectIndex(vault, analyzer.lexicon), open_terms(vault)
    surrogates = Surrogates(vault, analyzer.lexicon, vault.secret(DRAW), subjects.suppressed)
    parts = make_parts(analyzer, surrogates, vault, settings=settings, terms=terms, detectors=digest)
    current = CurrentPolicy(policies, parts, partial(wire.announce, producer), digest)
    runtime.every("policy", LOOK_SECONDS, current.look)
    store = S3Store.from_settings(settings)
    barrier = Barrier(
        quarantine=StoredTexts(store, decode_key(settings.quarantine_key)),
        corpus=StoredCorpus(store),
        subjects=subjects,
        ledger=SqlLedger(engine),
        recorder=DocumentRecorder(vault, terms, analyzer.lexicon),
        anonymizer=current,
        language_of=LanguageDetector(),
        publish=partial(wire.publish, producer),
    )
    review = Review(
        vault,
        terms,
        barrier.corpus,
        policy=lambda: current.policy,
        allow_terms=current.allow,
        limit=settings.residual_limit,
    )
    identity = Identity.load("anonymization", settings.identity_key_file)
    servicers: Servicers = [
        (add_AnonymizationServiceServicer_to_server, AnonymizationServicer(current, vault, subjects)),
        (add_PolicyServiceServicer_to_server, PolicyServicer(current, policies, barrier.ledger)),
        (add_SubjectServiceServicer_to_server, SubjectServicer(subjects, barrier.ledger, SqlAuditLog(engine))),
        (add_ReviewServiceServicer_to_server, ReviewServicer(review, identity)),
        (add_ReplacedServiceServicer_to_server, ReplacedServicer(review, current)),
    ]
    runtime.rpc(settings, servicers)
    forget, supersede = partial(handlers.forget, barrier), partial(handlers.supersede, barrier)
    topics = {
        INGESTED: on_ingested(barrier, runtime.erased_documents(settings, LIFT_SECONDS)),
        ERASED: forgetting("anonymization", forget, producer, supersede=supersede),
    }
    expired = reject_gap(producer, runtime.name, documents_pb2.STAGE_ANONYMIZATION, (INGESTED,))
    runtime.consume(settings, topics, producer, expired)
    runtime.ready()
