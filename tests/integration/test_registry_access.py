"""Every role's key against specialists, drafts and keys that it may not use: the answer is the same as for unknown ones."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from services.registry.adapters.compared_texts import StoredComparedTexts
from services.registry.adapters.datasets import StoredDatasetDocuments
from services.registry.adapters.sql import transactions
from services.registry.adapters.tables import outbox as outbox_rows
from services.registry.bootstrap import MIGRATIONS, key_verifier, signer
from services.registry.consumers import Consumers
from services.registry.domain import Gate, KeyTerms, PrimaryMetric, Specialist
from services.registry.handlers import keys, specialists
from services.registry.queries import Queries
from services.registry.rpc import RegistryServicer
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.registry.v1 import audit_pb2, registry_pb2, registry_pb2_grpc
from tailor.errors import InvalidArgument, NotFound, PermissionDenied, Reason, TailorError, Unauthenticated
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.auth import Authenticator, Caller, set_caller
from tailor.rpc.channel import open_channel, wire_errors
from tailor.rpc.identity import Identity, Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tailor.storage.memory import MemoryStore
from tailor.values import Labels
from tailor.wire import from_datetime
from tests.conftest import migrated
from tests.datasets import built
from tests.evaluations import make_evaluated, make_figures

pytestmark = pytest.mark.integration

OWN, OTHER, UNKNOWN = "memos", "reports", "never-created"
DIGESTS = {OWN: "aa" + "0" * 62, OTHER: "bb" + "0" * 62, UNKNOWN: "cc" + "0" * 62}
Stub = registry_pb2_grpc.RegistryServiceStub


def anonymize(text: str, labels: Labels) -> str:
    raise AssertionError


def request_evaluation(adapter_digest: str, request_id: str) -> None:
    raise AssertionError


def check_pipeline(base: str, recipes: Sequence[str]) -> None:
    if base != "tiny":
        raise NotFound(Reason.UNKNOWN_BASE, "There is no base 'llama-9'. Known bases: tiny.")
    if recipes != ["lora"]:
        raise InvalidArgument(Reason.UNKNOWN_RECIPE, "There is no recipe 'nope'. Known recipes: lora.")


class World:
    """A registry with two specialists, each with a dataset, a serving adapter and a draft. Its clock is so fast that no key is cached."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.begin = transactions(engine, Outbox(engine, outbox_rows, MemoryProducer("registry")))
        self.store = MemoryStore()
        identity = Identity("registry", Ed25519PrivateKey.generate())
        self._consumers = Consumers(
            self.begin,
            StoredDatasetDocuments(self.store),
            StoredComparedTexts(self.store),
            request_evaluation,
            signer(identity),
        )
        (folder / "trust.json").write_text(json.dumps({}))
        moments = iter(range(0, 10**9, 1000))
        self.servicer = RegistryServicer(
            self.begin, Queries(engine), anonymize, ("training",), check_pipeline=check_pipeline
        )
        self.server = RpcServer(
            ServiceSettings(rpc_port=0),
            "registry",
            servicers=[
                (
                    registry_pb2_grpc.add_RegistryServiceServicer_to_server,
                    self.servicer,
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
        for name in (OWN, OTHER):
            self._fill(name)

    def _fill(self, name: str) -> None:
        specialists.create_specialist(
            self.begin, Specialist(name, "tiny", "lora", gate=Gate(PrimaryMetric("rougeL"), min_rows=1))
        )
        figures = make_figures("rougeL", base=0.1, few_shot=0.1, candidate=0.2)
        facts: list[tuple[str, Any]] = [
            ("dataset.built.v1", built(self.store, DIGESTS[name], name, [f"doc_{name}"])),
            (
                "adapter.trained.v1",
                models_pb2.AdapterTrained(
                    digest=DIGESTS[name],
                    kind=models_pb2.ADAPTER_KIND_POLICY,
                    specialist=name,
                    dataset_digest=DIGESTS[name],
                ),
            ),
            (
                "adapter.evaluated.v1",
                make_evaluated(DIGESTS[name], name, figures, evaluation_id=f"e-{name}", rows=4),
            ),
            (
                "draft.created.v1",
                drafts_pb2.DraftCreated(draft_id=f"drf_{name}", specialist=name, adapter_digest=DIGESTS[name]),
            ),
            (
                "document.anonymized.v1",
                documents_pb2.DocumentAnonymized(document_id=f"doc_{name}", submission_id=f"sub_{name}"),
            ),
        ]
        for topic, message in facts:
            self.receive(topic, message)

    def receive(self, topic: str, message: Any) -> None:
        self._consumers.topics()[topic](Event(topic, "key", message.SerializeToString(), {}))

    def key(self, role: str, *specialists: str, **terms: Any) -> str:
        """The secret of a new key."""
        key_terms = KeyTerms("test", f"ROLE_{role}", specialists, **terms)
        return keys.create_key(self.begin, key_terms, lambda _: True, "key_1")[1]

    def stub(self, secret: str) -> Stub:
        return Stub(open_channel(f"127.0.0.1:{self.server.port}", lambda: secret))


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        world = World(engine, tmp_path)
        yield world
        world.server.stop(0)


def answer(call: Callable[[], Any]) -> tuple[str, str, str] | Any:
    """The response, or the code, reason and message of the error that the caller sees."""
    try:
        with wire_errors("registry"):
            return call()
    except TailorError as error:
        return error.code.name, error.reason, error.message


@dataclass(frozen=True)
class CallCase:
    """A call about a specialist, or about something that belongs to one; and the roles that may call it."""

    method: str
    request: Callable[[str], Any]
    roles: tuple[str, ...]


def _definition(name: str) -> models_pb2.SpecialistChanged:
    gate = models_pb2.Gate(primary=models_pb2.PrimaryMetric(metric="rougeL"))
    return models_pb2.SpecialistChanged(name=name, revision=7, base="tiny", recipe="lora", gate=gate)


CALLS = [
    CallCase("GetSpecialist", lambda n: registry_pb2.GetSpecialistRequest(name=n), ("ENGINEER", "OPERATOR", "EXPERT")),
    CallCase(
        "CreateSpecialist", lambda n: registry_pb2.CreateSpecialistRequest(specialist=_definition(n)), ("OPERATOR",)
    ),
    CallCase(
        "UpdateSpecialist", lambda n: registry_pb2.UpdateSpecialistRequest(specialist=_definition(n)), ("OPERATOR",)
    ),
    CallCase(
        "PlanEvaluation",
        lambda n: registry_pb2.PlanEvaluationRequest(specialist=n, dataset_digests=[DIGESTS[n]]),
        ("ENGINEER", "OPERATOR"),
    ),
    CallCase(
        "ListDocuments",
        lambda n: registry_pb2.ListDocumentsRequest(specialist=n),
        ("ENGINEER", "OPERATOR", "DATA_PROTECTION"),
    ),
    CallCase(
        "GetAudit", lambda n: audit_pb2.GetAuditRequest(specialist=n), ("ENGINEER", "OPERATOR", "DATA_PROTECTION")
    ),
    CallCase("ListDatasets", lambda n: registry_pb2.ListDatasetsRequest(specialist=n), ("ENGINEER", "OPERATOR")),
    CallCase("GetDataset", lambda n: registry_pb2.GetDatasetRequest(digest=DIGESTS[n]), ("ENGINEER", "OPERATOR")),
    CallCase(
        "GetAdapter", lambda n: registry_pb2.GetAdapterRequest(digest=DIGESTS[n]), ("ENGINEER", "OPERATOR", "EXPERT")
    ),
    CallCase(
        "ListAdapters", lambda n: registry_pb2.ListAdaptersRequest(specialist=n), ("ENGINEER", "OPERATOR", "EXPERT")
    ),
    CallCase(
        "Promote",
        lambda n: registry_pb2.PromoteRequest(specialist=n, adapter_digest=DIGESTS[n], expected_generation=1),
        ("OPERATOR",),
    ),
    CallCase("Rollback", lambda n: registry_pb2.RollbackRequest(specialist=n, expected_generation=1), ("OPERATOR",)),
    CallCase(
        "StartCanary",
        lambda n: registry_pb2.StartCanaryRequest(specialist=n, adapter_digest=DIGESTS[n], expected_generation=1),
        ("OPERATOR",),
    ),
    CallCase(
        "StopCanary", lambda n: registry_pb2.StopCanaryRequest(specialist=n, expected_generation=1), ("OPERATOR",)
    ),
    CallCase("DeleteSpecialist", lambda n: registry_pb2.DeleteSpecialistRequest(name=n), ("OPERATOR",)),
    CallCase(
        "ListApprovals", lambda n: registry_pb2.ListApprovalsRequest(specialist=n), ("ENGINEER", "OPERATOR", "EXPERT")
    ),
    CallCase("ApproveAdapter", lambda n: registry_pb2.ApproveAdapterRequest(adapter_digest=DIGESTS[n]), ("OPERATOR",)),
    CallCase(
        "DeclineAdapter",
        lambda n: registry_pb2.DeclineAdapterRequest(adapter_digest=DIGESTS[n], reason="too long"),
        ("OPERATOR",),
    ),
    CallCase(
        "ListDecisions",
        lambda n: registry_pb2.ListDecisionsRequest(specialist=n),
        ("ENGINEER", "OPERATOR", "DATA_PROTECTION"),
    ),
    CallCase(
        "GetLeaderboard", lambda n: registry_pb2.GetLeaderboardRequest(specialist=n), ("ENGINEER", "OPERATOR", "EXPERT")
    ),
    CallCase(
        "PinEntry", lambda n: registry_pb2.PinEntryRequest(specialist=n, entry="base", pinned=True), ("OPERATOR",)
    ),
    CallCase(
        "Trace",
        lambda n: registry_pb2.TraceRequest(draft_id=f"drf_{n}"),
        ("CALLER", "EXPERT", "ENGINEER", "OPERATOR", "DATA_PROTECTION"),
    ),
    CallCase(
        "RecordJudgement",
        lambda n: registry_pb2.RecordJudgementRequest(
            ranking=[f"drf_{n}"], rubric=drafts_pb2.Rubric(accuracy=3, style=3, usefulness=3)
        ),
        ("EXPERT", "OPERATOR"),
    ),
    CallCase(
        "CreateKey",
        lambda n: registry_pb2.CreateKeyRequest(name="more", role=common_pb2.ROLE_CALLER, specialists=[OWN, n]),
        ("OPERATOR",),
    ),
]


def test_other_specialists_are_answered_like_unknown_ones(world: World) -> None:
    for case in CALLS:
        for role in case.roles:
            call = getattr(world.stub(world.key(role, OWN)), case.method)
            other = answer(partial(call, case.request(OTHER), timeout=60))
            unknown = answer(partial(call, case.request(UNKNOWN), timeout=60))
            assert other[:2] == unknown[:2], (case.method, role)
            assert other[2].replace(DIGESTS[OTHER], "") == unknown[2].replace(DIGESTS[UNKNOWN], ""), (case.method, role)
            assert other[0] == "NOT_FOUND", (case.method, role)


def test_the_same_calls_succeed_for_own_specialists(world: World) -> None:
    changing = {
        *("CreateSpecialist", "UpdateSpecialist", "DeleteSpecialist", "CreateKey"),
        *("Promote", "Rollback", "StartCanary", "StopCanary", "ApproveAdapter", "DeclineAdapter"),
    }
    for case in CALLS:
        for role in case.roles:
            # A caller sees only drafts that its key requested.
            if case.method not in changing and role != "CALLER":
                call = getattr(world.stub(world.key(role, OWN)), case.method)
                response = answer(partial(call, case.request(OWN), timeout=60))
                assert not isinstance(response, tuple), (case.method, role, response)


def test_lists_contain_only_own_specialists(world: World) -> None:
    operator = world.stub(world.key("OPERATOR", OWN))
    assert [d.specialist for d in operator.ListDatasets(registry_pb2.ListDatasetsRequest()).datasets] == [OWN]
    assert [a.adapter.specialist for a in operator.ListAdapters(registry_pb2.ListAdaptersRequest()).adapters] == [OWN]
    listed = operator.ListSpecialists(registry_pb2.ListSpecialistsRequest()).specialists
    assert [item.specialist.name for item in listed] == [OWN]
    calls: tuple[tuple[Any, Any], ...] = (
        (operator.ListDocuments, registry_pb2.ListDocumentsRequest()),
        (operator.ListDocuments, registry_pb2.ListDocumentsRequest(page_token="r:")),
        (operator.ListDocuments, registry_pb2.ListDocumentsRequest(specialist=OWN, page_token="r:")),
        (operator.GetAudit, audit_pb2.GetAuditRequest()),
    )
    for call, request in calls:
        with pytest.raises(PermissionDenied), wire_errors("registry"):
            call(request, timeout=60)


def test_a_deletion_is_recorded_with_the_callers_own_key(world: World) -> None:
    secret = world.key("OPERATOR", OWN)
    with world.begin() as tx:
        key = tx.keys.find(secret_sha256=hashlib.sha256(secret.encode()).hexdigest())
    assert key is not None
    operator = world.stub(secret)
    request = registry_pb2.DeleteSpecialistRequest(name=OWN, decided_by="key_of_somebody_else")
    assert [operator.DeleteSpecialist(request).deleted for _ in range(2)] == [True, False]
    (decision,) = operator.ListDecisions(registry_pb2.ListDecisionsRequest()).decisions
    assert (decision.kind, decision.key_id) == (registry_pb2.OPERATOR_DECISION_KIND_DELETION, key.key_id)
    with pytest.raises(InvalidArgument), wire_errors("registry"):
        operator.DeclineAdapter(registry_pb2.DeclineAdapterRequest(adapter_digest=DIGESTS[OWN]))


def test_a_caller_cannot_see_drafts_of_other_keys(world: World) -> None:
    caller = world.stub(world.key("CALLER", OWN))
    answers = [answer(partial(caller.Trace, registry_pb2.TraceRequest(draft_id=d))) for d in (f"drf_{OWN}", "drf_none")]
    assert answers[0] == answers[1]


def test_an_operator_of_some_specialists_manages_only_keys_for_those(world: World) -> None:
    operator = world.stub(world.key("OPERATOR", OWN))
    wide = [
        keys.create_key(world.begin, KeyTerms("wide", "ROLE_CALLER", names), lambda _: True, "key_1")[0]
        for names in ((), (OTHER,), (OWN, OTHER))
    ]
    with pytest.raises(InvalidArgument), wire_errors("registry"):
        operator.CreateKey(registry_pb2.CreateKeyRequest(name="all", role=common_pb2.ROLE_CALLER))
    created = operator.CreateKey(
        registry_pb2.CreateKeyRequest(name="own", role=common_pb2.ROLE_CALLER, specialists=[OWN], methods=["Trace"])
    ).key
    assert created.methods == ["tailor.api.registry.v1.RegistryService/Trace"]
    listed = {key.key_id for key in operator.ListKeys(registry_pb2.ListKeysRequest()).keys}
    assert created.key_id in listed
    unknown = answer(lambda: operator.RevokeKey(registry_pb2.RevokeKeyRequest(key_id="key_none")))
    for key in wide:
        assert key.key_id not in listed
        assert answer(partial(operator.RevokeKey, registry_pb2.RevokeKeyRequest(key_id=key.key_id))) == unknown
    assert operator.RevokeKey(registry_pb2.RevokeKeyRequest(key_id=created.key_id)).key.revoked


@pytest.mark.parametrize("giver", ["CALLER", "EXPERT", "ENGINEER", "OPERATOR", "DATA_PROTECTION"])
def test_nobody_gives_a_role_above_their_own(world: World, giver: str) -> None:
    stub, given = world.stub(world.key(giver)), set()
    for role in ("CALLER", "EXPERT", "ENGINEER", "OPERATOR", "DATA_PROTECTION"):
        request = registry_pb2.CreateKeyRequest(name="given", role=common_pb2.Role.Value(f"ROLE_{role}"))
        found = answer(partial(stub.CreateKey, request))
        if isinstance(found, tuple):
            assert found[0] == "PERMISSION_DENIED"
        else:
            given.add(role)
    expected = {"OPERATOR": {"CALLER", "EXPERT", "ENGINEER", "OPERATOR"}, "DATA_PROTECTION": {"DATA_PROTECTION"}}
    assert given == expected.get(giver, set())


def test_a_key_names_the_key_that_created_it(world: World) -> None:
    first = world.stub(world.key("OPERATOR"))
    request = registry_pb2.CreateKeyRequest(name="second", role=common_pb2.ROLE_OPERATOR)
    second = first.CreateKey(request)
    third = world.stub(second.secret).CreateKey(
        registry_pb2.CreateKeyRequest(name="third", role=common_pb2.ROLE_CALLER)
    )
    assert third.key.created_by == second.key.key_id
    claimed = first.CreateKey(
        registry_pb2.CreateKeyRequest(name="x", role=common_pb2.ROLE_CALLER, created_by="key_other")
    )
    assert claimed.key.created_by == second.key.created_by
    listed = {key.key_id: key.created_by for key in first.ListKeys(registry_pb2.ListKeysRequest()).keys}
    assert listed[third.key.key_id] == second.key.key_id and listed[second.key.key_id] == second.key.created_by != ""


@pytest.mark.parametrize(("visitor", "creator"), [("key_anna", "console:key_anna"), ("", "console")])
def test_a_key_from_the_console_names_the_key_that_was_signed_in(world: World, visitor: str, creator: str) -> None:
    set_caller(Caller("service", "console"))
    request = registry_pb2.CreateKeyRequest(name="erp", role=common_pb2.ROLE_CALLER, created_by=visitor)
    assert world.servicer.CreateKey(request, None).key.created_by == creator  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        world.servicer.CreateKey(registry_pb2.CreateKeyRequest(name="x", role=1, created_by="a name"), None)  # type: ignore[arg-type]


def test_data_protection_sees_and_revokes_its_own_keys_only(world: World) -> None:
    stub = world.stub(world.key("DATA_PROTECTION"))
    other = keys.create_key(world.begin, KeyTerms("erp", "ROLE_CALLER"), lambda _: True, "key_1")[0]
    listed = stub.ListKeys(registry_pb2.ListKeysRequest()).keys
    assert listed and {key.role for key in listed} == {common_pb2.ROLE_DATA_PROTECTION}
    with pytest.raises(NotFound), wire_errors("registry"):
        stub.RevokeKey(registry_pb2.RevokeKeyRequest(key_id=other.key_id))


def test_a_limited_key_creates_only_keys_within_its_limits(world: World) -> None:
    registry = "tailor.api.registry.v1.RegistryService"
    creator = world.stub(world.key("OPERATOR", methods=(f"{registry}/CreateKey", f"{registry}/Trace")))
    wider: tuple[list[str], ...] = ([], ["Promote"], ["Trace", "RevokeKey"])
    for methods in wider:
        with pytest.raises(InvalidArgument) as refused, wire_errors("registry"):
            creator.CreateKey(
                registry_pb2.CreateKeyRequest(name="wider", role=common_pb2.ROLE_OPERATOR, methods=methods)
            )
        assert set(refused.value.field_violations) == {"methods"}
    slow = world.stub(world.key("OPERATOR", calls_per_minute=60))
    for often in (0, 61):
        with pytest.raises(InvalidArgument) as refused, wire_errors("registry"):
            slow.CreateKey(
                registry_pb2.CreateKeyRequest(name="quick", role=common_pb2.ROLE_CALLER, calls_per_minute=often)
            )
        assert set(refused.value.field_violations) == {"calls_per_minute"}
    created = creator.CreateKey(
        registry_pb2.CreateKeyRequest(name="own", role=common_pb2.ROLE_CALLER, methods=["Trace"])
    )
    assert created.key.methods == [f"{registry}/Trace"]


def test_a_key_that_expires_creates_none_that_outlives_it(world: World) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    secret = world.key("OPERATOR", expire_time=end)
    temporary = world.stub(secret)

    def request(expire_time: datetime | None) -> registry_pb2.CreateKeyRequest:
        return registry_pb2.CreateKeyRequest(
            name="next", role=common_pb2.ROLE_OPERATOR, expire_time=from_datetime(expire_time)
        )

    for later in (None, end + timedelta(seconds=1)):
        with pytest.raises(InvalidArgument) as refused, wire_errors("registry"):
            temporary.CreateKey(request(later))
        assert set(refused.value.field_violations) == {"expire_time"}
    assert temporary.CreateKey(request(end)).secret
    # The holder of the key signs in to the console, which calls with its own identity.
    with world.begin() as tx:
        known = tx.keys.find(secret_sha256=hashlib.sha256(secret.encode()).hexdigest())
    assert known is not None
    set_caller(Caller("service", "console"))
    by_console = registry_pb2.CreateKeyRequest(name="x", role=common_pb2.ROLE_CALLER, created_by=known.key_id)
    with pytest.raises(InvalidArgument):
        world.servicer.CreateKey(by_console, None)  # type: ignore[arg-type]


def test_the_registry_refuses_revoked_expired_and_limited_keys(world: World) -> None:
    request = registry_pb2.TraceRequest(draft_id="drf_none")
    revoked = world.key("ENGINEER")
    with world.begin() as tx:
        known = tx.keys.find(secret_sha256=hashlib.sha256(revoked.encode()).hexdigest())
    assert known is not None
    keys.revoke_key(world.begin, known.key_id, lambda _: True, "key_1")
    expired = world.key("ENGINEER", expire_time=datetime.now(UTC) - timedelta(seconds=1))
    for secret in (revoked, expired):
        with pytest.raises(Unauthenticated), wire_errors("registry"):
            world.stub(secret).Trace(request, timeout=60)
    limited = world.stub(world.key("ENGINEER", methods=("tailor.api.registry.v1.RegistryService/GetFlow",)))
    limited.GetFlow(registry_pb2.GetFlowRequest(), timeout=60)
    with pytest.raises(PermissionDenied), wire_errors("registry"):
        limited.Trace(request, timeout=60)


def test_no_client_can_define_a_specialist_with_a_base_or_recipe_that_training_does_not_have(world: World) -> None:
    operator = world.stub(world.key("OPERATOR"))
    known = operator.GetSpecialist(registry_pb2.GetSpecialistRequest(name=OWN)).specialist

    def define(**fields: str) -> list[tuple[str, str, str]]:
        new, changed = models_pb2.SpecialistChanged(), models_pb2.SpecialistChanged()
        new.MergeFrom(known)
        new.MergeFrom(models_pb2.SpecialistChanged(name="new", **fields))  # type: ignore[arg-type]
        changed.MergeFrom(known)
        changed.MergeFrom(models_pb2.SpecialistChanged(**fields))  # type: ignore[arg-type]
        return [
            answer(lambda: operator.CreateSpecialist(registry_pb2.CreateSpecialistRequest(specialist=new))),
            answer(lambda: operator.UpdateSpecialist(registry_pb2.UpdateSpecialistRequest(specialist=changed))),
        ]

    assert (
        define(base="llama-9") == [("NOT_FOUND", "UNKNOWN_BASE", "There is no base 'llama-9'. Known bases: tiny.")] * 2
    )
    assert [refused[1] for refused in define(recipe="nope")] == ["UNKNOWN_RECIPE"] * 2
    with pytest.raises(NotFound), wire_errors("registry"):
        operator.GetSpecialist(registry_pb2.GetSpecialistRequest(name="new"))
    assert operator.GetSpecialist(registry_pb2.GetSpecialistRequest(name=OWN)).specialist == known


def test_a_dataset_or_adapter_is_found_by_the_beginning_of_its_digest(world: World) -> None:
    engineer = world.stub(world.key("ENGINEER"))
    digest = DIGESTS[OWN]
    for prefix in (digest, digest[:6]):
        assert engineer.GetDataset(registry_pb2.GetDatasetRequest(digest=prefix)).dataset.digest == digest
        entry = engineer.GetAdapter(registry_pb2.GetAdapterRequest(digest=prefix)).adapter
        assert (entry.adapter.digest, entry.serving) == (digest, True)


@pytest.mark.parametrize("prefix", ["", "aa000", "AA0000", "aa00%0", "g" * 6, "a" * 65])
def test_a_digest_needs_at_least_six_hexadecimal_digits(world: World, prefix: str) -> None:
    engineer = world.stub(world.key("ENGINEER"))
    calls = (
        lambda: engineer.GetDataset(registry_pb2.GetDatasetRequest(digest=prefix)),
        lambda: engineer.GetAdapter(registry_pb2.GetAdapterRequest(digest=prefix)),
    )
    assert [answer(call)[:2] for call in calls] == [("INVALID_ARGUMENT", "INVALID_REQUEST")] * 2


def test_an_ambiguous_digest_is_refused_unless_the_caller_may_see_only_one_match(world: World) -> None:
    twin = DIGESTS[OWN][:-1] + "1"
    world.receive("dataset.built.v1", built(world.store, twin, OTHER))
    world.receive(
        "adapter.trained.v1",
        models_pb2.AdapterTrained(digest=twin, kind=models_pb2.ADAPTER_KIND_POLICY, specialist=OTHER),
    )
    dataset, adapter = (
        registry_pb2.GetDatasetRequest(digest=twin[:6]),
        registry_pb2.GetAdapterRequest(digest=twin[:6]),
    )
    everyone = world.stub(world.key("ENGINEER"))
    assert answer(lambda: everyone.GetDataset(dataset))[:2] == ("INVALID_ARGUMENT", "AMBIGUOUS_DATASET")
    assert answer(lambda: everyone.GetDataset(dataset))[2].count(twin[:-1]) == 2
    assert answer(lambda: everyone.GetAdapter(adapter))[:2] == ("INVALID_ARGUMENT", "AMBIGUOUS_ADAPTER")
    assert everyone.GetAdapter(registry_pb2.GetAdapterRequest(digest=twin)).adapter.adapter.digest == twin
    for name, digest in ((OWN, DIGESTS[OWN]), (OTHER, twin)):
        stub = world.stub(world.key("ENGINEER", name))
        assert stub.GetDataset(dataset).dataset.digest == digest
        assert stub.GetAdapter(adapter).adapter.adapter.digest == digest


def test_a_draft_is_traced_by_the_first_digits_of_its_id_among_those_that_the_caller_may_see(world: World) -> None:
    own, other, base = (f"drf_abcdef{number}{0:025x}" for number in range(3))
    for draft_id, name in ((own, OWN), (other, OTHER), (base, "")):
        message = drafts_pb2.DraftCreated(draft_id=draft_id, specialist=name, base="tiny", key_id="key_9")
        world.receive("draft.created.v1", message)

    def trace(stub: Stub, digits: str) -> str:
        return stub.Trace(registry_pb2.TraceRequest(draft_id=digits, draft_only=True)).draft.draft_id

    everyone, limited = world.stub(world.key("ENGINEER")), world.stub(world.key("ENGINEER", OTHER))
    assert [trace(everyone, draft_id) for draft_id in (own, other, base)] == [own, other, base]
    assert trace(everyone, own[:-1]) == own
    assert answer(lambda: trace(everyone, "drf_abcdef"))[:2] == ("INVALID_ARGUMENT", "AMBIGUOUS_ID")
    refused = answer(lambda: trace(limited, "drf_abcdef"))
    assert refused[1] == "AMBIGUOUS_ID" and other in refused[2] and base in refused[2] and own not in refused[2]
    assert trace(limited, other[:-1]) == other
    for stub, digits in (
        (limited, own[:-1]),
        (everyone, "drf_abcde"),
        (everyone, "drf_abcde%"),
        (world.stub(world.key("CALLER")), own[:-1]),
    ):
        assert answer(lambda stub=stub, digits=digits: trace(stub, digits))[:2] == ("NOT_FOUND", "UNKNOWN_DRAFT")  # type: ignore[misc]


def test_documents_are_found_by_the_first_digits_of_their_ids(world: World) -> None:
    ids = [f"doc_abcdef{number:026x}" for number in range(3)]
    for document_id in ids:
        world.receive("document.anonymized.v1", documents_pb2.DocumentAnonymized(document_id=document_id))
    engineer = world.stub(world.key("ENGINEER"))

    def find(digits: str) -> list[str]:
        answer = engineer.ListDocuments(registry_pb2.ListDocumentsRequest(document_id=digits))
        return [item.anonymized.document_id for item in answer.documents]

    assert find("doc_abcdef") == ids
    assert find(ids[1]) == find(ids[1][:-1] + "1") == [ids[1]]
    assert find("doc_abcdf0") == []


def test_the_documents_of_a_dataset_are_listed_only_for_callers_that_may_see_it(world: World) -> None:
    everyone, limited = world.stub(world.key("ENGINEER")), world.stub(world.key("ENGINEER", OWN))
    request = registry_pb2.ListDocumentsRequest(dataset=DIGESTS[OWN][:8], include_rejected=True)
    listed = everyone.ListDocuments(request)
    assert [item.anonymized.document_id for item in listed.documents] == [f"doc_{OWN}"]
    assert not listed.next_page_token
    foreign = registry_pb2.ListDocumentsRequest(specialist=OWN, dataset=DIGESTS[OTHER])
    assert answer(lambda: limited.ListDocuments(foreign))[:2] == ("NOT_FOUND", "UNKNOWN_DATASET")


def test_rejected_submissions_are_listed_alone_for_callers_of_all_specialists(world: World) -> None:
    for number in range(3):
        reason = documents_pb2.REJECTION_REASON_CORRUPT
        rejected = documents_pb2.DocumentRejected(
            document_id=f"doc_r{number}", submission_id=f"sub_r{number}", reason=reason
        )
        world.receive("document.rejected.v1", rejected)
    everyone, limited = world.stub(world.key("ENGINEER")), world.stub(world.key("ENGINEER", OWN))
    request = registry_pb2.ListDocumentsRequest(only_rejected=True, page_size=2)
    found = []
    for _ in range(2):
        page = everyone.ListDocuments(request)
        found += [item.rejected.document_id for item in page.documents]
        request.page_token = page.next_page_token
    assert (found, request.page_token) == (["doc_r0", "doc_r1", "doc_r2"], "")
    for specialist in ("", OWN):
        alone = registry_pb2.ListDocumentsRequest(only_rejected=True, specialist=specialist)
        assert answer(partial(limited.ListDocuments, alone))[0] == "PERMISSION_DENIED"


def test_a_dataset_that_two_specialists_share_is_not_ambiguous(world: World) -> None:
    world.receive("dataset.built.v1", built(world.store, DIGESTS[OWN], OTHER))
    request = registry_pb2.GetDatasetRequest(digest=DIGESTS[OWN])
    for names, expected in (((), OWN), ((OWN,), OWN), ((OTHER,), OTHER)):
        stub = world.stub(world.key("ENGINEER", *names))
        assert stub.GetDataset(request).dataset.specialist == expected
