"""Every kind of key against every specialist, draft and key of the registry that it was not given: the answer is that of what does not exist."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from services.registry import handlers, keys
from services.registry.adapters.queries import Queries
from services.registry.adapters.sql import begin
from services.registry.adapters.tables import outbox as outbox_rows
from services.registry.bootstrap import MIGRATIONS, key_verifier, signer
from services.registry.consumers import Consumers
from services.registry.domain import Specialist
from services.registry.gate import Gate, Threshold
from services.registry.rpc import RegistryServicer
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.registry.v1 import audit_pb2, registry_pb2, registry_pb2_grpc
from tailor.errors import InvalidArgument, PermissionDenied, TailorError, Unauthenticated
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.auth import Authenticator
from tailor.rpc.channel import open_channel, wire_errors
from tailor.rpc.identity import Identity, Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tests.conftest import migrated

pytestmark = pytest.mark.integration

MINE, OTHERS, NOBODYS = "memos", "reports", "never-made"
Stub = registry_pb2_grpc.RegistryServiceStub


class Nobody:
    """Neither a barrier nor an evaluator that is asked anything here."""

    def anonymize(self, text: str, labels: tuple[str, str, str]) -> str:
        raise AssertionError

    def evaluate(self, adapter_digest: str, request_id: str) -> None:
        raise AssertionError


class World:
    """A registry with two specialists, each with dataset, adapter, what serves, and a draft; its clock runs so that no key is remembered."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.begin = begin(engine, Outbox(engine, outbox_rows, MemoryProducer("registry")))
        identity = Identity("registry", Ed25519PrivateKey.generate())
        self._consumers = Consumers(self.begin, Nobody(), signer(identity))
        (folder / "trust.json").write_text(json.dumps({}))
        moments = iter(range(0, 10**9, 1000))
        self.server = RpcServer(
            ServiceSettings(rpc_port=0),
            "registry",
            servicers=[
                (
                    registry_pb2_grpc.add_RegistryServiceServicer_to_server,
                    RegistryServicer(self.begin, Queries(engine), Nobody(), ("training",)),
                )
            ],
            authenticator=Authenticator(
                "registry",
                Trust.load(folder / "trust.json"),
                key_verifier(self.begin),
                now=lambda: float(next(moments)),
            ),
        )
        self.server.start()
        for name in (MINE, OTHERS):
            self._fill(name)

    def _fill(self, name: str) -> None:
        handlers.create_specialist(self.begin, Specialist(name, "tiny", "lora", gate=Gate((Threshold("rougeL"),), 1)))
        tell = self._consumers.topics()
        scores = models_pb2.Scores(values={"rougeL": 0.2, "parity": 0.01})
        facts: list[tuple[str, Any]] = [
            ("dataset.built.v1", models_pb2.DatasetBuilt(digest=f"d-{name}", specialist=name)),
            (
                "adapter.trained.v1",
                models_pb2.AdapterTrained(digest=f"a-{name}", kind=1, specialist=name, dataset_digest=f"d-{name}"),
            ),
            (
                "adapter.evaluated.v1",
                models_pb2.AdapterEvaluated(
                    evaluation_id=f"e-{name}",
                    adapter_digest=f"a-{name}",
                    specialist=name,
                    base=scores,
                    candidate=scores,
                    rows=4,
                ),
            ),
            (
                "draft.created.v1",
                drafts_pb2.DraftCreated(draft_id=f"drf_{name}", specialist=name, adapter_digest=f"a-{name}"),
            ),
            (
                "document.anonymized.v1",
                documents_pb2.DocumentAnonymized(document_id=f"doc_{name}", submission_id=f"sub_{name}"),
            ),
        ]
        for topic, message in facts:
            tell[topic](Event(topic, name, message.SerializeToString(), {}))

    def key(self, role: str, *specialists: str, **terms: Any) -> str:
        """A new key's secret."""
        made = keys.KeyTerms("test", f"ROLE_{role}", specialists, **terms)
        return keys.create_key(self.begin, made, lambda _: True)[1]

    def stub(self, secret: str) -> Stub:
        return Stub(open_channel(f"127.0.0.1:{self.server.port}", lambda: secret))


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        made = World(engine, tmp_path)
        yield made
        made.server.stop(0)


def answer(call: Callable[[], Any]) -> tuple[str, str, str] | Any:
    """What a call is answered: the message, or the error as the caller sees it."""
    try:
        with wire_errors("registry"):
            return call()
    except TailorError as error:
        return error.code.name, error.reason, error.message


@dataclass(frozen=True)
class Ask:
    """A call about one specialist, or about what is named after one."""

    method: str
    request: Callable[[str], Any]
    roles: tuple[str, ...]


def _definition(name: str) -> models_pb2.SpecialistChanged:
    gate = models_pb2.Gate(thresholds=[models_pb2.Threshold(metric="rougeL")])
    return models_pb2.SpecialistChanged(name=name, revision=7, base="tiny", recipe="lora", gate=gate)


ASKS = [
    Ask("GetSpecialist", lambda n: registry_pb2.GetSpecialistRequest(name=n), ("ENGINEER", "OPERATOR", "EXPERT")),
    Ask(
        "CreateSpecialist",
        lambda n: registry_pb2.CreateSpecialistRequest(specialist=_definition(n)),
        ("OPERATOR",),
    ),
    Ask(
        "UpdateSpecialist",
        lambda n: registry_pb2.UpdateSpecialistRequest(specialist=_definition(n)),
        ("OPERATOR",),
    ),
    Ask(
        "ListDocuments",
        lambda n: registry_pb2.ListDocumentsRequest(specialist=n),
        ("ENGINEER", "OPERATOR", "DATA_PROTECTION"),
    ),
    Ask("GetAudit", lambda n: audit_pb2.GetAuditRequest(specialist=n), ("ENGINEER", "OPERATOR", "DATA_PROTECTION")),
    Ask("ListDatasets", lambda n: registry_pb2.ListDatasetsRequest(specialist=n), ("ENGINEER", "OPERATOR")),
    Ask("ListAdapters", lambda n: registry_pb2.ListAdaptersRequest(specialist=n), ("ENGINEER", "OPERATOR", "EXPERT")),
    Ask(
        "Promote",
        lambda n: registry_pb2.PromoteRequest(specialist=n, adapter_digest=f"a-{n}", expected_generation=1),
        ("OPERATOR",),
    ),
    Ask("Rollback", lambda n: registry_pb2.RollbackRequest(specialist=n, expected_generation=1), ("OPERATOR",)),
    Ask(
        "StartCanary",
        lambda n: registry_pb2.StartCanaryRequest(specialist=n, adapter_digest=f"a-{n}", expected_generation=1),
        ("OPERATOR",),
    ),
    Ask("StopCanary", lambda n: registry_pb2.StopCanaryRequest(specialist=n, expected_generation=1), ("OPERATOR",)),
    Ask(
        "Trace",
        lambda n: registry_pb2.TraceRequest(draft_id=f"drf_{n}"),
        ("CALLER", "EXPERT", "ENGINEER", "OPERATOR", "DATA_PROTECTION"),
    ),
    Ask(
        "RecordJudgement",
        lambda n: registry_pb2.RecordJudgementRequest(
            ranking=[f"drf_{n}"], rubric=drafts_pb2.Rubric(accuracy=3, style=3, usefulness=3)
        ),
        ("EXPERT", "OPERATOR"),
    ),
    Ask(
        "CreateKey",
        lambda n: registry_pb2.CreateKeyRequest(name="more", role=common_pb2.ROLE_CALLER, specialists=[MINE, n]),
        ("OPERATOR",),
    ),
]


def test_what_a_key_was_not_given_is_answered_like_what_does_not_exist(world: World) -> None:
    for ask in ASKS:
        for role in ask.roles:
            call = getattr(world.stub(world.key(role, MINE)), ask.method)
            others = answer(lambda call=call, ask=ask: call(ask.request(OTHERS), timeout=10))
            nobodys = answer(lambda call=call, ask=ask: call(ask.request(NOBODYS), timeout=10))
            assert others == nobodys, (ask.method, role)
            assert others[0] == "NOT_FOUND", (ask.method, role)


def test_the_same_calls_reach_what_a_key_was_given(world: World) -> None:
    changing = {"CreateSpecialist", "UpdateSpecialist", "Promote", "Rollback", "StartCanary", "StopCanary", "CreateKey"}
    for ask in ASKS:
        for role in ask.roles:
            # A caller sees the drafts that it asked for itself.
            if ask.method not in changing and role != "CALLER":
                call = getattr(world.stub(world.key(role, MINE)), ask.method)
                found = answer(lambda call=call, ask=ask: call(ask.request(MINE), timeout=10))
                assert not isinstance(found, tuple), (ask.method, role, found)


def test_lists_hold_nothing_that_a_key_was_not_given(world: World) -> None:
    operator = world.stub(world.key("OPERATOR", MINE))
    assert [d.specialist for d in operator.ListDatasets(registry_pb2.ListDatasetsRequest()).datasets] == [MINE]
    assert [a.adapter.specialist for a in operator.ListAdapters(registry_pb2.ListAdaptersRequest()).adapters] == [MINE]
    listed = operator.ListSpecialists(registry_pb2.ListSpecialistsRequest()).specialists
    assert [item.specialist.name for item in listed] == [MINE]
    for call, request in (
        (operator.ListDocuments, registry_pb2.ListDocumentsRequest()),
        (operator.ListDocuments, registry_pb2.ListDocumentsRequest(page_token="r:")),
        (operator.GetAudit, audit_pb2.GetAuditRequest()),
    ):
        with pytest.raises(PermissionDenied), wire_errors("registry"):
            call(request, timeout=10)


def test_a_caller_sees_the_drafts_of_no_other_key(world: World) -> None:
    caller = world.stub(world.key("CALLER", MINE))
    seen = [answer(lambda d=d: caller.Trace(registry_pb2.TraceRequest(draft_id=d))) for d in ("drf_memos", "drf_none")]
    assert seen[0] == seen[1]


def test_an_operator_of_some_specialists_gives_sees_and_ends_no_more_than_those(world: World) -> None:
    operator = world.stub(world.key("OPERATOR", MINE))
    wide = [
        keys.create_key(world.begin, keys.KeyTerms("wide", "ROLE_CALLER", names), lambda _: True)[0]
        for names in ((), (OTHERS,), (MINE, OTHERS))
    ]
    with pytest.raises(InvalidArgument), wire_errors("registry"):
        operator.CreateKey(registry_pb2.CreateKeyRequest(name="all", role=common_pb2.ROLE_CALLER))
    made = operator.CreateKey(
        registry_pb2.CreateKeyRequest(name="mine", role=common_pb2.ROLE_CALLER, specialists=[MINE], methods=["Trace"])
    ).key
    assert made.methods == ["tailor.api.registry.v1.RegistryService/Trace"]
    listed = {key.key_id for key in operator.ListKeys(registry_pb2.ListKeysRequest()).keys}
    assert made.key_id in listed
    unknown = answer(lambda: operator.RevokeKey(registry_pb2.RevokeKeyRequest(key_id="key_none")))
    for key in wide:
        assert key.key_id not in listed
        assert answer(lambda key=key: operator.RevokeKey(registry_pb2.RevokeKeyRequest(key_id=key.key_id))) == unknown
    assert operator.RevokeKey(registry_pb2.RevokeKeyRequest(key_id=made.key_id)).key.revoked


def test_a_key_of_some_methods_or_a_rate_gives_no_more_than_those(world: World) -> None:
    registry = "tailor.api.registry.v1.RegistryService"
    maker = world.stub(world.key("OPERATOR", methods=(f"{registry}/CreateKey", f"{registry}/Trace")))
    wider: tuple[list[str], ...] = ([], ["Promote"], ["Trace", "RevokeKey"])
    for methods in wider:
        with pytest.raises(InvalidArgument) as refused, wire_errors("registry"):
            maker.CreateKey(registry_pb2.CreateKeyRequest(name="wider", role=common_pb2.ROLE_OPERATOR, methods=methods))
        assert set(refused.value.field_violations) == {"methods"}
    slow = world.stub(world.key("OPERATOR", calls_per_minute=60))
    for often in (0, 61):
        with pytest.raises(InvalidArgument) as refused, wire_errors("registry"):
            slow.CreateKey(
                registry_pb2.CreateKeyRequest(name="quick", role=common_pb2.ROLE_CALLER, calls_per_minute=often)
            )
        assert set(refused.value.field_violations) == {"calls_per_minute"}
    made = maker.CreateKey(registry_pb2.CreateKeyRequest(name="own", role=common_pb2.ROLE_CALLER, methods=["Trace"]))
    assert made.key.methods == [f"{registry}/Trace"]


def test_a_revoked_an_expired_and_a_limited_key_are_refused_by_the_registry_itself(world: World) -> None:
    ask = registry_pb2.TraceRequest(draft_id="drf_none")
    revoked = world.key("ENGINEER")
    with world.begin() as tx:
        held = tx.key_by_hash(hashlib.sha256(revoked.encode()).hexdigest())
    assert held is not None
    keys.revoke_key(world.begin, held.key_id, lambda _: True)
    expired = world.key("ENGINEER", expire_time=datetime.now(UTC) - timedelta(seconds=1))
    for secret in (revoked, expired):
        with pytest.raises(Unauthenticated), wire_errors("registry"):
            world.stub(secret).Trace(ask, timeout=10)
    limited = world.stub(world.key("ENGINEER", methods=("tailor.api.registry.v1.RegistryService/GetFlow",)))
    limited.GetFlow(registry_pb2.GetFlowRequest(), timeout=10)
    with pytest.raises(PermissionDenied), wire_errors("registry"):
        limited.Trace(ask, timeout=10)
