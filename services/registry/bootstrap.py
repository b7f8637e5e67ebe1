"""Builds the service: the one place that chooses its real adapters and connects them to handlers, topics and gRPC."""

from functools import partial
from pathlib import Path

from services.registry import wire
from services.registry.adapters.canaries import CANARY, DEFERRED
from services.registry.adapters.clients import AnonymizationClient, EvaluationClient, PipelineClient
from services.registry.adapters.compared_texts import StoredComparedTexts
from services.registry.adapters.datasets import StoredDatasetDocuments
from services.registry.adapters.sql import Begin, transactions
from services.registry.adapters.tables import jobs
from services.registry.adapters.tables import outbox as outbox_rows
from services.registry.consumers import Consumers
from services.registry.domain import ErasureReceipt
from services.registry.feedback_rpc import FeedbackServicer
from services.registry.handlers import keys
from services.registry.handlers.canaries import decide_canary, evaluate_deferred
from services.registry.judging_rpc import JudgingServicer
from services.registry.lineage_rpc import LineageServicer
from services.registry.object_rpc import ObjectServicer
from services.registry.outcome_rpc import OutcomeServicer
from services.registry.panel_rpc import PanelServicer
from services.registry.people_rpc import PeopleServicer
from services.registry.ports import Sign
from services.registry.queries import Queries
from services.registry.report_rpc import ReportServicer
from services.registry.rpc import RegistryServicer
from services.registry.settings import Settings
from tailor.api.registry.v1.feedback_pb2_grpc import add_FeedbackServiceServicer_to_server
from tailor.api.registry.v1.judging_pb2_grpc import add_JudgingServiceServicer_to_server
from tailor.api.registry.v1.lineage_pb2_grpc import add_LineageServiceServicer_to_server
from tailor.api.registry.v1.objects_pb2_grpc import add_ObjectServiceServicer_to_server
from tailor.api.registry.v1.outcomes_pb2_grpc import add_OutcomeServiceServicer_to_server
from tailor.api.registry.v1.panel_pb2_grpc import add_PanelServiceServicer_to_server
from tailor.api.registry.v1.people_pb2_grpc import add_PeopleServiceServicer_to_server
from tailor.api.registry.v1.registry_pb2_grpc import add_RegistryServiceServicer_to_server
from tailor.api.registry.v1.reports_pb2_grpc import add_ReportServiceServicer_to_server
from tailor.events.erased import ERASED
from tailor.events.topics import load_topics
from tailor.jobs import JobKind
from tailor.rpc.auth import Authenticator, Caller, VerifyKey
from tailor.rpc.identity import Identity, Trust
from tailor.rpc.keys import to_caller
from tailor.runtime import Runtime, Servicers
from tailor.storage.s3 import S3Store

NAME = "registry"
MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"


def build(runtime: Runtime, settings: Settings) -> None:
    """Connect, then serve and consume."""
    engine = runtime.database(settings, MIGRATIONS)
    producer = runtime.producer(settings)
    begin = transactions(engine, runtime.outbox(engine, outbox_rows, producer))
    for digest, name, role in (
        (settings.bootstrap_operator_key_sha256, "bootstrap operator", keys.OPERATOR),
        (settings.bootstrap_protection_key_sha256, "bootstrap data protection", keys.DATA_PROTECTION),
    ):
        if digest:
            keys.install_key(begin, digest, name, role)
    anonymize = AnonymizationClient(runtime.channel(settings, "anonymization", settings.anonymization_address))
    request_evaluation = EvaluationClient(runtime.channel(settings, "evaluation", settings.evaluation_address))
    awaits = tuple(load_topics()[ERASED].consumers)
    queries = Queries(engine)
    store = S3Store.from_settings(settings)
    texts = StoredComparedTexts(store)
    check_pipeline = PipelineClient(runtime.channel(settings, "training", settings.training_address))
    servicer = RegistryServicer(begin, queries, anonymize, awaits, check_pipeline=check_pipeline)
    authenticator = Authenticator(NAME, Trust.load(settings.trust_file), key_verifier(begin))
    servicers: Servicers = [
        (add_RegistryServiceServicer_to_server, servicer),
        (add_LineageServiceServicer_to_server, LineageServicer(begin)),
        (add_ObjectServiceServicer_to_server, ObjectServicer(store, queries)),
        (add_FeedbackServiceServicer_to_server, FeedbackServicer(begin, queries, anonymize, texts)),
        (add_OutcomeServiceServicer_to_server, OutcomeServicer(begin, queries)),
        (add_PeopleServiceServicer_to_server, PeopleServicer(begin, queries)),
        (add_PanelServiceServicer_to_server, PanelServicer(begin, queries)),
        (add_ReportServiceServicer_to_server, ReportServicer(begin, queries, settings.unit_prices())),
        (add_JudgingServiceServicer_to_server, JudgingServicer(begin)),
    ]
    runtime.rpc(settings, servicers, authenticator)
    kinds = [
        JobKind(CANARY, partial(decide_canary, begin)),
        JobKind(DEFERRED, partial(evaluate_deferred, request_evaluation)),
    ]
    runtime.jobs(engine, jobs, kinds)
    sign = signer(Identity.load(NAME, settings.identity_key_file))
    consumers = Consumers(begin, StoredDatasetDocuments(store), texts, request_evaluation, sign, awaits=awaits)
    runtime.consume(settings, consumers.topics(), producer)
    runtime.ready()


def signer(identity: Identity) -> Sign:
    """Signs receipts with the registry's identity key."""
    return lambda body: ErasureReceipt(body, identity.sign(body.encode()), identity.public_key)


def key_verifier(begin: Begin) -> VerifyKey:
    """Verifies keys in the registry's own database, as other services do by the VerifyKey RPC."""

    def verify(secret_sha256: str) -> Caller:
        return to_caller(wire.from_key(keys.verify_key(begin, secret_sha256)))

    return verify
