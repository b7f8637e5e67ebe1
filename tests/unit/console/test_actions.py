"""Commands, and who may give them."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import MethodDescriptor

from services.console.domain import ADMITTED, GivenMark, Judgement, Permission, Question, Role, Visitor
from services.console.web.streams import MAX_UNREAD, Streams
from tailor.api.anonymization.v1 import review_pb2
from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.inference.v1 import inference_pb2
from tailor.api.ingestion.v1 import ingestion_pb2
from tailor.api.registry.v1 import judging_pb2, people_pb2, registry_pb2
from tailor.api.synthetic.v1 import synthesis_pb2, synthetic_pb2
from tailor.api.training.v1 import training_pb2
from tailor.errors import InvalidArgument, Reason, ResourceExhausted, Unauthenticated, Unavailable
from tests.unit.console.messages import (
    ADAPTER,
    BASE_DRAFT,
    DATASET,
    DRAFT,
    NAME,
    RUN,
    SYNTHESIS_ID,
    EndlessStream,
    ListStream,
    edit,
    specialist,
)
from tests.unit.console.world import World
from tests.waiting import wait_until

ANNA, BEN = Visitor("anna", Role.ENGINEER, key_id="key_1"), Visitor("ben", Role.ENGINEER, key_id="key_2")

REGISTRY = registry_pb2.DESCRIPTOR.services_by_name["RegistryService"].methods_by_name
TRAINING = training_pb2.DESCRIPTOR.services_by_name["TrainingService"].methods_by_name
EVALUATION = evaluation_pb2.DESCRIPTOR.services_by_name["EvaluationService"].methods_by_name
INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].methods_by_name
PEOPLE = people_pb2.DESCRIPTOR.services_by_name["PeopleService"].methods_by_name
JUDGING = judging_pb2.DESCRIPTOR.services_by_name["JudgingService"].methods_by_name
SYNTHESIS = synthesis_pb2.DESCRIPTOR.services_by_name["SynthesisService"].methods_by_name
SYNTHETIC = synthetic_pb2.DESCRIPTOR.services_by_name["SyntheticService"].methods_by_name
REVIEW = review_pb2.DESCRIPTOR.services_by_name["ReviewService"].methods_by_name
INGESTION = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"].methods_by_name
METHODS: dict[Permission, list[MethodDescriptor]] = {
    Permission.SUBMISSIONS: [INGESTION["GetSubmission"]],
    Permission.FLOW: [REGISTRY["GetFlow"]],
    Permission.DOCUMENTS: [REGISTRY["ListDocuments"]],
    Permission.DATASETS: [
        *(REGISTRY[name] for name in ("ListDatasets", "GetDataset")),
        SYNTHETIC["ListRows"],
    ],
    Permission.RUNS: [TRAINING["ListRuns"], TRAINING["GetRun"], TRAINING["WatchRun"], SYNTHETIC["GetBuildState"]],
    Permission.ADAPTERS: [REGISTRY[name] for name in ("ListAdapters", "GetAdapter", "ListApprovals", "GetLeaderboard")],
    Permission.EVALUATIONS: [EVALUATION["GetEvaluation"], EVALUATION["CompareEvaluations"]],
    Permission.MANAGE_SPECIALISTS: [
        REGISTRY[name] for name in ("CreateSpecialist", "UpdateSpecialist", "DeleteSpecialist")
    ],
    Permission.BUILD: [SYNTHETIC[name] for name in ("BuildDataset", "ListOrigins", "AdmitOrigin")],
    Permission.MANAGE_RUNS: [TRAINING["PlanRun"], TRAINING["CreateRun"], TRAINING["CancelRun"], TRAINING["ApproveRun"]],
    Permission.EVALUATE: [EVALUATION["Evaluate"]],
    Permission.SPECIALISTS: [REGISTRY["ListSpecialists"]],
    Permission.ASK: [INFERENCE["StreamGenerate"], INFERENCE["ListSpecialists"]],
    Permission.TRACE: [REGISTRY["Trace"]],
    Permission.READ_DRAFT: [INFERENCE["GetDraft"]],
    Permission.JUDGE: [
        REGISTRY["RecordJudgement"],
        *(method for name, method in JUDGING.items() if name != "CountDrawnPrompts"),
        SYNTHETIC["DrawPrompt"],
        INFERENCE["RegenerateDraft"],
        INFERENCE["EditDraft"],
    ],
    Permission.PROMOTE: [
        REGISTRY[name]
        for name in (
            "Promote",
            "Rollback",
            "StartCanary",
            "StopCanary",
            "ApproveAdapter",
            "DeclineAdapter",
            "PinEntry",
        )
    ],
    Permission.KEYS: [REGISTRY["ListKeys"]],
    Permission.MANAGE_KEYS: [REGISTRY["CreateKey"], REGISTRY["RevokeKey"]],
    Permission.PEOPLE: [PEOPLE[name] for name in ("InvitePerson", "RenewInvitation", "ListPeople", "RemovePerson")],
    Permission.ERASURES: [REGISTRY["ListErasures"]],
    Permission.SYNTHESES: [SYNTHESIS[name] for name in ("ListSyntheses", "GetSynthesis", "ListSamples")],
    Permission.REVIEW_SAMPLES: [SYNTHESIS["ReviewSamples"]],
    Permission.REVIEW: [
        REVIEW[name]
        for name in ("DrawSample", "NextPassage", "DecidePassage", "UndoDecision", "GetPassage", "SignStatement")
    ],
    Permission.RESIDUAL: [REVIEW["GetResidualReport"], REVIEW["ListRareCombinations"]],
    Permission.AUDIT: [REGISTRY["GetAudit"], REGISTRY["ListDecisions"], SYNTHETIC["CountNearDuplicates"]],
}
# What data protection does by the command line only: the console lists all keys, and gives nobody that role.
BY_COMMAND_LINE = {
    action: {Role.DATA_PROTECTION} for action in (Permission.KEYS, Permission.MANAGE_KEYS, Permission.PEOPLE)
}
PROMOTION = {"specialist": NAME, "adapter_digest": ADAPTER, "expected_generation": "1"}


def events(text: str) -> list[tuple[str, dict[str, object]]]:
    """The Server-Sent Events of a response."""
    parsed = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        parsed.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return parsed


@pytest.mark.parametrize("action", METHODS)
def test_roles_match_the_access_options_of_the_contracts(action: Permission) -> None:
    here = {role for role in Role if action in ADMITTED[role]} | BY_COMMAND_LINE.get(action, set())
    for method in METHODS[action]:
        access = method.GetOptions().Extensions[common_pb2.access]
        admitted = {common_pb2.Role.Name(role).removeprefix("ROLE_").lower().replace("_", " ") for role in access.roles}
        assert here == admitted, method.name
        assert "console" in access.services, method.name


@pytest.mark.parametrize("role", list(Role))
def test_each_role_can_open_its_own_pages_only(role: Role) -> None:
    browser = World().signed_in(role)
    paths = {
        "/documents": Permission.DOCUMENTS,
        "/documents/own": Permission.SUBMISSIONS,
        "/audit": Permission.AUDIT,
        "/decisions": Permission.AUDIT,
        "/new-specialist": Permission.MANAGE_SPECIALISTS,
        f"/specialists/{NAME}": Permission.SPECIALISTS,
        f"/runs/compare?run={RUN}": Permission.RUNS,
        f"/runs/new?dataset={DATASET}": Permission.MANAGE_RUNS,
        "/datasets": Permission.DATASETS,
        "/syntheses": Permission.SYNTHESES,
        f"/syntheses/{SYNTHESIS_ID}": Permission.SYNTHESES,
        "/runs": Permission.RUNS,
        "/adapters": Permission.ADAPTERS,
        f"/evaluations/{ADAPTER}": Permission.EVALUATIONS,
        "/specialists": Permission.SPECIALISTS,
        "/judge": Permission.JUDGE,
        "/ask": Permission.ASK,
        "/drafts": Permission.TRACE,
        "/keys": Permission.KEYS,
        "/people": Permission.PEOPLE,
        "/erasures": Permission.ERASURES,
        "/review": Permission.REVIEW,
        "/residual": Permission.RESIDUAL,
        "/replaced": Permission.RESIDUAL,
        "/flow": Permission.FLOW,
        "/api/flow": Permission.FLOW,
    }
    for path, action in paths.items():
        assert browser.get(path).status_code == (200 if action in ADMITTED[role] else 403), path


def test_operator_promotes_with_the_generation_shown_on_the_page() -> None:
    world = World()
    browser = world.signed_in()
    assert 'action="/promote"' in browser.get("/adapters").text
    answer = browser.post("/promote", data=PROMOTION)
    assert answer.headers["location"] == f"/specialists/{NAME}?notice=promoted"
    assert world.registry.decisions == [("promote", NAME, ADAPTER, 1)]
    assert "The adapter now serves." in browser.get(f"/specialists/{NAME}?notice=promoted").text


def test_promotion_with_an_old_generation_is_refused() -> None:
    world = World()
    answer = world.signed_in().post("/promote", data=PROMOTION | {"expected_generation": "0"})
    assert answer.status_code == 409
    assert "GENERATION_MOVED" in answer.text
    assert world.registry.decisions == []


def test_operator_rolls_back() -> None:
    world = World()
    browser = world.signed_in()
    assert 'action="/rollback"' in browser.get(f"/specialists/{NAME}").text
    answer = browser.post("/rollback", data={"specialist": NAME, "expected_generation": "1"})
    assert answer.headers["location"] == f"/specialists/{NAME}?notice=rolled-back"
    assert world.registry.decisions == [("roll back", NAME, "", 1)]


def test_operator_starts_and_stops_a_canary() -> None:
    world = World()
    browser = world.signed_in()
    assert 'action="/canary/start"' in browser.get("/adapters").text
    answer = browser.post("/canary/start", data=PROMOTION)
    assert answer.headers["location"] == f"/specialists/{NAME}?notice=canary-started"
    assert world.registry.decisions == [("start canary", NAME, ADAPTER, 1)]
    assert "canary now serves" in browser.get(f"/specialists/{NAME}?notice=canary-started").text
    assert 'action="/canary/stop"' not in browser.get(f"/specialists/{NAME}").text
    canary = registry_pb2.Canary(adapter_digest=ADAPTER, state=registry_pb2.CANARY_STATE_RUNNING)
    world.registry.specialists = [edit(specialist(), canary=canary)]
    assert 'action="/canary/stop"' in browser.get(f"/specialists/{NAME}").text
    answer = browser.post("/canary/stop", data={"specialist": NAME, "expected_generation": "1"})
    assert answer.headers["location"] == f"/specialists/{NAME}?notice=canary-stopped"
    assert world.registry.decisions[1:] == [("stop canary", NAME, "", 1)]


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.OPERATOR])
def test_other_roles_cannot_promote_or_roll_back(role: Role) -> None:
    world = World()
    browser = world.signed_in(role)
    assert browser.post("/promote", data=PROMOTION).status_code == 403
    assert browser.post("/canary/start", data=PROMOTION).status_code == 403
    for path in ("/rollback", "/canary/stop"):
        assert browser.post(path, data={"specialist": NAME, "expected_generation": "1"}).status_code == 403
    assert not world.registry.decisions
    if Permission.ADAPTERS in ADMITTED[role]:
        assert 'action="/promote"' not in browser.get("/adapters").text
        assert 'action="/canary/start"' not in browser.get("/adapters").text
        assert 'action="/rollback"' not in browser.get(f"/specialists/{NAME}").text


def test_answer_is_streamed_with_its_draft() -> None:
    world = World()
    browser = world.signed_in(Role.EXPERT)
    answer = browser.post("/api/ask", json={"model": NAME, "prompt": "Write.", "max_tokens": 64})
    assert answer.headers["content-type"].startswith("text/event-stream")
    sent = events(answer.text)
    assert [name for name, _ in sent] == ["piece", "piece", "end"]
    assert "".join(str(data["text"]) for name, data in sent if name == "piece") == "The findings follow."
    assert sent[1][1]["draft_id"] == DRAFT
    assert sent[1][1]["finish_reason"] == "stop"
    assert [data["thought"] for name, data in sent if name == "piece"] == ["They ask.", ""]
    assert world.inference.asked == [Question(NAME, "Write.", 64)]
    assert world.inference.ended[0].wait(60)


def test_error_in_the_middle_of_a_stream_reaches_the_browser() -> None:
    world = World()
    world.inference.error = ResourceExhausted(Reason.QUEUE_FULL, "Retry in a moment.")
    sent = events(world.signed_in().post("/api/ask", json={"model": "base", "prompt": "x"}).text)
    assert sent[-1] == ("failure", {"reason": "QUEUE_FULL", "message": "Retry in a moment."})


@pytest.mark.parametrize(
    ("question", "field"),
    [
        ({"model": "adapter:abc", "prompt": "x"}, "model"),
        ({"model": NAME, "prompt": " "}, "prompt"),
        ({"model": NAME, "prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"model": NAME, "prompt": "x", "temperature": 3}, "temperature"),
        ({"model": NAME, "prompt": "x" * 20_001}, "prompt"),
    ],
)
def test_invalid_question_is_refused_with_its_field(question: dict[str, object], field: str) -> None:
    world = World()
    answer = world.signed_in().post("/api/ask", json=question)
    assert answer.status_code == 400
    assert field in answer.json()["fields"]
    assert world.inference.asked == []


def test_key_can_ask_only_its_own_specialists() -> None:
    world = World()
    browser = world.signed_in(Role.CALLER, "another")
    assert browser.post("/api/ask", json={"model": NAME, "prompt": "x"}).status_code == 404
    assert browser.post("/api/ask", json={"model": "base", "prompt": "x"}).status_code == 200
    assert [question.model for question in world.inference.asked] == ["base"]


def test_expert_ranks_two_drafts_once() -> None:
    world = World()
    browser = world.signed_in(Role.EXPERT, NAME)
    marks = [{"draft_id": DRAFT, "criterion": "style", "mark": 5}]
    sent = {"ranking": [DRAFT, BASE_DRAFT], "marks": marks, "comment": " good "}
    for _ in range(2):
        answer = browser.post("/api/judgements", json=sent)
        assert answer.json()["judgement_id"].startswith("jdg_")
        assert answer.json()["round"] == "9 ranked prompts; a round needs 42: 33 to go."
    assert list(world.registry.judgements.values()) == [
        Judgement((DRAFT, BASE_DRAFT), (GivenMark(DRAFT, "style", 5),), "good")
    ]
    assert len(set(world.registry.judged_by)) == 1 and world.registry.judged_by[0].startswith("key_")


@pytest.mark.parametrize("outcome", ["tie", "both_bad"])
def test_expert_may_prefer_none(outcome: str) -> None:
    world = World()
    browser = world.signed_in(Role.EXPERT, NAME)
    assert browser.post("/api/judgements", json={"ranking": [DRAFT, BASE_DRAFT], "outcome": outcome}).status_code == 200
    assert list(world.registry.judgements.values()) == [Judgement((DRAFT, BASE_DRAFT), outcome=outcome)]
    assert browser.post("/api/judgements", json={"ranking": [DRAFT], "outcome": "meh"}).status_code == 400


@pytest.mark.parametrize("role", [Role.CALLER, Role.ENGINEER, Role.DATA_PROTECTION])
def test_other_roles_cannot_judge(role: Role) -> None:
    world = World()
    browser = world.signed_in(role)
    assert browser.post("/api/judgements", json={"ranking": [DRAFT]}).status_code == 403
    assert world.registry.judgements == {}


def test_drafts_of_other_specialists_cannot_be_seen_or_judged() -> None:
    world = World()
    browser = world.signed_in(Role.EXPERT, "another")
    assert browser.post("/api/judgements", json={"ranking": [DRAFT, BASE_DRAFT]}).status_code == 404
    assert browser.get(f"/drafts/{DRAFT}").status_code == 404
    assert world.registry.judgements == {}


@pytest.mark.parametrize(
    "judgement",
    [
        {"ranking": [DRAFT, DRAFT]},
        {"ranking": [DRAFT], "marks": [{"draft_id": DRAFT, "criterion": "style", "mark": 6}]},
        {"ranking": [DRAFT], "marks": [{"draft_id": DRAFT, "criterion": "style", "mark": 5}] * 41},
        {"ranking": [DRAFT], "comment": "x" * 4001},
    ],
)
def test_invalid_judgement_is_refused(judgement: dict[str, object]) -> None:
    assert World().signed_in(Role.EXPERT).post("/api/judgements", json=judgement).status_code == 400


def test_expert_sees_no_documents_behind_a_draft() -> None:
    text = World().signed_in(Role.EXPERT).get(f"/drafts/{DRAFT}").text
    assert "Documents in its dataset" not in text


def test_run_is_streamed_from_its_first_report() -> None:
    sent = events(World().signed_in(Role.ENGINEER).get(f"/api/runs/{RUN}/events").text)
    steps = [data["progress"]["step"] for name, data in sent if name == "run"]  # type: ignore[index]
    assert steps == [1, 2, 3]
    assert sent[-1] == ("end", {})


def test_unknown_run_has_no_stream() -> None:
    assert World().signed_in().get("/api/runs/run_x/events").json()["reason"] == "UNKNOWN_RUN"


def test_streams_are_limited() -> None:
    streams = Streams(limit=1)
    streams.respond(ANNA, ListStream([]), lambda _: ("x", {}), lambda: None)
    refused: ListStream[object] = ListStream([])
    with pytest.raises(ResourceExhausted):
        streams.respond(BEN, refused, lambda _: ("x", {}), lambda: None)
    assert refused.closed


def test_one_visitor_leaves_streams_for_others() -> None:
    streams = Streams(limit=4, per_visitor=3)

    def read(visitor: Visitor) -> None:
        streams.respond(visitor, ListStream([]), lambda _: ("x", {}), lambda: None)

    async def read_whole() -> None:
        async for _ in streams.respond(ANNA, ListStream([1]), lambda _: ("x", {}), lambda: None).body_iterator:
            pass

    for _ in range(5):
        asyncio.run(read_whole())
    for _ in range(3):
        read(ANNA)
    with pytest.raises(ResourceExhausted):
        read(ANNA)
    read(BEN)


def test_stream_closes_when_the_browser_disconnects() -> None:
    endless = EndlessStream(1, 10)

    async def read_one() -> None:
        body = Streams().respond(ANNA, endless, lambda item: ("x", {"item": item}), lambda: None).body_iterator
        assert "item" in str(await anext(aiter(body)))
        await body.aclose()  # type: ignore[attr-defined]

    asyncio.run(read_one())
    assert endless.closed.is_set()


def test_a_browser_that_reads_slowly_slows_the_stream_down() -> None:
    sent: list[int] = []

    class Counting(ListStream[int]):
        def __iter__(self) -> Iterator[int]:
            for number in range(10 * MAX_UNREAD):
                sent.append(number)
                yield number

    async def read() -> int:
        body = aiter(
            Streams().respond(ANNA, Counting([]), lambda item: ("x", {"item": item}), lambda: None).body_iterator
        )
        await anext(body)
        await asyncio.to_thread(wait_until, lambda: len(sent) >= MAX_UNREAD)
        await asyncio.sleep(0.1)
        waiting = len(sent)
        rest = [text async for text in body]
        assert len(rest) == 10 * MAX_UNREAD and "end" in str(rest[-1])
        return waiting

    assert asyncio.run(read()) <= MAX_UNREAD + 2


@pytest.mark.parametrize("pause", [0.05, 600.0])
def test_stream_ends_within_seconds_once_its_visitor_is_signed_out(pause: float) -> None:
    endless, is_over = EndlessStream(1, pause), threading.Event()

    def still_signed_in() -> None:
        if is_over.is_set():
            raise Unauthenticated(Reason.UNKNOWN_KEY, "The API key has been revoked or has expired.")

    async def read() -> list[str]:
        response = Streams().respond(ANNA, endless, lambda item: ("x", {"item": item}), still_signed_in)
        texts = []
        async for text in response.body_iterator:
            texts.append(str(text))
            is_over.set()
        return texts

    started = time.monotonic()
    texts = asyncio.run(read())
    assert time.monotonic() - started < 60
    assert "UNKNOWN_KEY" in texts[-1] and endless.closed.is_set()


def test_running_stream_continues_while_the_registry_does_not_answer() -> None:
    endless, asked = EndlessStream(1), []

    def still_signed_in() -> None:
        asked.append(1)
        raise Unavailable(Reason.UNAVAILABLE, "registry does not answer.")

    async def read() -> None:
        body = Streams().respond(ANNA, endless, lambda item: ("x", {"item": item}), still_signed_in).body_iterator
        async for text in body:
            assert "item" in str(text)
            if len(asked) == 2:
                break
        await body.aclose()  # type: ignore[attr-defined]

    asyncio.run(read())


def test_a_revoked_keys_answer_ends_on_the_page() -> None:
    world = World()
    browser = world.signed_in(Role.ENGINEER)
    world.inference.endless = True
    threading.Timer(0.5, world.registry.visitors.clear).start()
    sent = events(browser.post("/api/ask", json={"model": "base", "prompt": "x"}).text)
    assert sent[-1][0] == "failure" and sent[-1][1]["reason"] == "UNKNOWN_SESSION"


def test_question_and_judgement_check_their_limits() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Question("UPPER", "", 5000, -1)
    assert set(caught.value.field_violations) == {"model", "prompt", "max_tokens", "temperature"}
    with pytest.raises(InvalidArgument):
        Judgement(())


def test_generation_zero_offers_no_rollback() -> None:
    world = World()
    world.registry.specialists = [specialist(generation=0)]
    assert 'action="/rollback"' not in world.signed_in().get(f"/specialists/{NAME}").text
