"""From documents on a topic to an adapter that answers, while every service is killed on the way. The tests depend on their order."""

import contextlib
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import grpc
import pytest

from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2, evaluation_pb2_grpc
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.api.registry.v1 import registry_pb2
from tailor.api.synthetic.v1 import imports_pb2, imports_pb2_grpc, synthetic_pb2, synthetic_pb2_grpc
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.producer import KafkaRecordProducer
from tailor.cli.publish import publish_all
from tailor.cli.records import Record
from tailor.cli.submissions import Description, FileSubmission, collect
from tailor.client import TailorClient
from tailor.errors import InvalidArgument, NotFound, TailorError, Unauthenticated
from tailor.local import processes
from tailor.rounds import is_held_out
from tailor.rpc.channel import wire_errors
from tailor.wire import to_ref
from tests.e2e import gold
from tests.e2e.conftest import SAMPLE, Installation, ask_until
from tests.e2e.expert import Expert
from tests.e2e.reach import Names, answers
from tests.e2e.training import Datasets, Training

pytestmark = pytest.mark.e2e

NAME = "tiny-reports"
SPECIALIST = models_pb2.SpecialistChanged(
    name=NAME,
    base="tiny",
    recipe="tiny",
    stages=["sft", "dpo"],
    recipes={"dpo": "tiny-dpo"},
    rebuild=models_pb2.RebuildPolicy(min_ranked_prompts=8),
    keep_drafts=True,
    house_terms=["control envelope", "friction ledger", "evidence pack"],
    sampling=models_pb2.SamplingDefaults(max_tokens=24),
    evaluation=models_pb2.EvaluationPolicy(max_rows=12, max_answers=6, max_suite_items=4),
    gate=models_pb2.Gate(
        min_rows=2, beat=["base"], primary=models_pb2.PrimaryMetric(metric="perplexity", min_gain=0.5)
    ),
)
# Each step has all pairs: with several batches the loss of the last one may be above the first by chance.
PREFERENCES = """\
method = "dpo"
[adapter]
kind = "lora"
r = 4
alpha = 8
[optimizer]
learning_rate = 5e-3
[batch]
tokens = 8192
max_length = 256
[limit]
epochs = 20
max_steps = 16
"""
PREFIXES = ("board-", "memo-", "note-", "example-")


def _kill(installation: Installation, component: str) -> None:
    if installation.restart_own_store(component):
        return
    pid = installation.pid(component)
    os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        state = installation.stack.snapshot().components[component]
        return state.state == "ready" and state.process is not None and state.process.pid != pid

    ask_until(back, f"{component} after kill -9", 180)


def _kill_worker(installation: Installation) -> bool:
    for pid in processes.find_marked(installation.root):
        if any("services.training.worker" in part for part in processes.command_of(pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
    return False


def _connections(installation: Installation) -> Connections:
    return Connections(Endpoints(installation.root))


def _submissions(directory: Path) -> list[FileSubmission]:
    sample = collect([SAMPLE / "documents"], Description())
    selected = [
        item
        for item in sample
        if item.path.name.startswith(PREFIXES) or item.path.name in ("corrupt-scan.pdf", "empty.txt")
    ]
    long = directory / "long.md"
    long.write_text(
        "# Engagement report: a long one\n\n" + "The control envelope holds, says the ledger. " * 115_000,
        encoding="utf-8",
    )
    assert long.stat().st_size > 5_000_000
    return [
        *selected,
        *collect([long], replace(Description(), source="archive", department="risk", confidentiality="internal")),
    ]


def _flow(installation: Installation) -> registry_pb2.GetFlowResponse:
    return installation.registry.GetFlow(registry_pb2.GetFlowRequest(), timeout=60)


def _accounted(installation: Installation, expected: int) -> registry_pb2.GetFlowResponse:
    def all_there() -> registry_pb2.GetFlowResponse | None:
        flow = _flow(installation)
        return flow if flow.anonymized + sum(flow.rejected.values()) >= expected else None

    return ask_until(all_there, f"{expected} submissions accounted for", 400)


def _runs(installation: Installation) -> list[training_pb2.Run]:
    stub = training_pb2_grpc.TrainingServiceStub(installation.channel("training"))
    return list(stub.ListRuns(training_pb2.ListRunsRequest(specialist=NAME), timeout=60).runs)


def test_every_document_is_accounted_for_although_the_first_services_are_killed(
    installation: Installation, tmp_path: Path
) -> None:
    registry = installation.registry
    installation.recipes.joinpath("tiny-dpo.toml").write_text(PREFERENCES, encoding="utf-8")
    assert registry.CreateSpecialist(registry_pb2.CreateSpecialistRequest(specialist=SPECIALIST)).created
    assert not registry.CreateSpecialist(registry_pb2.CreateSpecialistRequest(specialist=SPECIALIST)).created
    for field, value, message in (("base", "llama-9", "Known bases: tiny"), ("recipe", "nope", "Known recipes: ")):
        unknown = models_pb2.SpecialistChanged()
        unknown.MergeFrom(SPECIALIST)
        setattr(unknown, field, value)
        unknown.name = "unknown"
        with pytest.raises(TailorError, match=message), wire_errors("registry"):
            registry.CreateSpecialist(registry_pb2.CreateSpecialistRequest(specialist=unknown))
    submissions = _submissions(tmp_path)
    connections = _connections(installation)
    published = publish_all(connections, submissions)
    producer = KafkaRecordProducer(connections.kafka_publisher)
    producer.send(
        Record("document.submitted.v1", "poison", b"\xff\xfe not JSON", {"content-type": "application/json"})
    )()
    producer.close()
    for component in ("ingestion", "anonymization", "registry"):
        _kill(installation, component)
    expected = published.total + 1
    flow = _accounted(installation, expected)
    assert flow.anonymized + sum(flow.rejected.values()) == expected
    assert flow.rejected["CORRUPT"] == 1
    assert flow.rejected["EMPTY"] == 1
    assert flow.rejected["MALFORMED"] == 1
    assert flow.findings["PERSON"] > 50
    page = registry.ListDocuments(registry_pb2.ListDocumentsRequest(page_size=1000))
    assert len({document.anonymized.document_id for document in page.documents}) == flow.anonymized


def test_quarantine_is_empty_after_everything_is_anonymised(installation: Installation) -> None:
    from tailor.settings import ServiceSettings
    from tailor.storage.buckets import QUARANTINE
    from tailor.storage.s3 import S3Store
    from tests.conftest import Stores, plan_of

    store = S3Store.from_settings(Stores(plan_of(installation.stack)).settings("ingestion", ServiceSettings))
    assert ask_until(lambda: not store.list_keys(QUARANTINE, ""), "an empty quarantine", 30)
    assert store.list_keys(QUARANTINE, "") == []


def test_one_dataset_one_run_and_one_promotion_although_every_service_is_killed(installation: Installation) -> None:
    synthetic = synthetic_pb2_grpc.SyntheticServiceStub(installation.channel("synthetic"))
    _kill(installation, "synthetic")
    request = synthetic_pb2.BuildDatasetRequest(specialist=NAME, request_id="once")
    built = ask_until(lambda: synthetic.BuildDataset(request, timeout=120), "a dataset")
    assert built.dataset.train_rows > 20
    assert built.dataset.held_out_rows >= 2
    ask_until(lambda: any(run.progress.step >= 2 for run in _runs(installation)), "a run that trains")
    killed = _kill_worker(installation)
    _kill(installation, "training")
    adapters = ask_until(lambda: _adapters(installation), "an adapter", 400)
    assert killed
    evaluation = evaluation_pb2_grpc.EvaluationServiceStub(installation.channel("evaluation"))
    digest = adapters[0].adapter.digest

    def running() -> bool:
        response = evaluation.GetEvaluation(evaluation_pb2.GetEvaluationRequest(adapter_digest=digest), timeout=60)
        return response.state >= evaluation_pb2.EVALUATION_STATE_RUNNING

    with contextlib.suppress(grpc.RpcError):
        ask_until(running, "an evaluation", 60)
    _kill(installation, "evaluation")
    _kill(installation, "inference")
    newest = ask_until(lambda: _decided(installation), "a verdict on the adapter", 400)
    assert newest.decision == registry_pb2.DECISION_PASSED, newest
    ask_until(lambda: _adapters(installation)[0].serving, "a promotion", 60)
    _kill(installation, "console")
    assert [run.state for run in _runs(installation)] == [training_pb2.RUN_STATE_SUCCEEDED]
    assert _runs(installation)[0].epoch >= 2
    assert len(_adapters(installation)) == 1
    datasets = installation.registry.ListDatasets(registry_pb2.ListDatasetsRequest(specialist=NAME)).datasets
    assert [dataset.digest for dataset in datasets] == [built.dataset.digest]
    serving = installation.registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=NAME)).serving
    assert serving.decision.generation == 1


def _adapters(installation: Installation) -> list[registry_pb2.CatalogueAdapter]:
    return list(
        installation.registry.ListAdapters(registry_pb2.ListAdaptersRequest(specialist=NAME), timeout=60).adapters
    )


def _decided(installation: Installation) -> registry_pb2.CatalogueAdapter | None:
    """The newest adapter once the gate has decided. Fails if its evaluation failed."""
    newest = _adapters(installation)[0]
    if newest.decision != registry_pb2.DECISION_UNSPECIFIED:
        return newest
    evaluation = evaluation_pb2_grpc.EvaluationServiceStub(installation.channel("evaluation"))
    request = evaluation_pb2.GetEvaluationRequest(adapter_digest=newest.adapter.digest)
    with contextlib.suppress(NotFound), wire_errors("evaluation"):
        found = evaluation.GetEvaluation(request, timeout=60)
        assert found.state != evaluation_pb2.EVALUATION_STATE_FAILED, found.reason
    return None


def _client(installation: Installation) -> TailorClient:
    return TailorClient(installation.connection.service_addresses["inference"], installation.operator_key)


def test_the_specialist_answers_and_its_draft_is_traced_to_its_documents(installation: Installation) -> None:
    with _client(installation) as client:
        ask_until(lambda: NAME in {item.name for item in client.specialists()}, "the specialist in inference", 60)
        pieces = list(client.stream(NAME, "Write a memo.", max_tokens=12))
    draft_id = pieces[-1].draft_id
    traced = ask_until(lambda: _trace(installation, draft_id), "a traced draft", 30)
    assert traced.adapter.digest == _adapters(installation)[0].adapter.digest
    assert traced.dataset.digest == traced.adapter.dataset_digest
    request = registry_pb2.ListDocumentsRequest(dataset=traced.dataset.digest, page_size=1000)
    listed = [
        item.anonymized.document_id for item in installation.registry.ListDocuments(request, timeout=60).documents
    ]
    assert len(listed) == traced.dataset.documents > 0
    assert [document.document_id for document in traced.documents] == listed[:100]


def test_draft_texts_are_stored_anonymised_and_a_ranking_becomes_a_pair(installation: Installation) -> None:
    prompt = f"Write a memo for {gold.TYPED[0]} ({gold.TYPED[1]})."
    with _client(installation) as client:
        drawn = (client.generate(NAME, prompt, max_tokens=12, temperature=1.5, seed=seed) for seed in range(1, 20))
        # A blank answer has no text to store.
        drafts = [answer.draft_id for answer in islice((answer for answer in drawn if answer.text.strip()), 2)]
    inference = inference_pb2_grpc.InferenceServiceStub(installation.channel("inference"))

    seen: dict[str, str] = {}

    def find_text(draft_id: str) -> inference_pb2.GetDraftResponse | None:
        if _trace(installation, draft_id) is None:
            return None
        draft = inference.GetDraft(inference_pb2.GetDraftRequest(draft_id=draft_id), timeout=60)
        tokens, state = draft.usage.completion_tokens, inference_pb2.TextState.Name(draft.text_state)
        seen[draft_id] = f"{state}, {draft.finish_reason}, {tokens} tokens"
        return draft if draft.text_state == inference_pb2.TEXT_STATE_KEPT else None

    for draft_id in drafts:
        try:
            draft = ask_until(lambda draft_id=draft_id: find_text(draft_id), "a stored text", 60)  # type: ignore[misc]
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen}") from None
        (message,) = draft.messages
        assert message.role == "user" and message.content.startswith("Write a memo for ") and draft.answer, draft.answer
        assert not any(value in message.content + draft.answer for value in gold.TYPED)
    rubric = drafts_pb2.Rubric(style=4)
    installation.registry.RecordJudgement(
        registry_pb2.RecordJudgementRequest(ranking=drafts, rubric=rubric), timeout=60
    )
    synthetic = synthetic_pb2_grpc.SyntheticServiceStub(installation.channel("synthetic"))
    request = synthetic_pb2.BuildDatasetRequest(specialist=NAME, kind=models_pb2.DATASET_KIND_PREFERENCE)

    def one_pair() -> bool:
        with pytest.raises(grpc.RpcError) as refused:
            synthetic.BuildDataset(request, timeout=60)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        message = str(refused.value.details())
        return message.startswith("1 rankings") and ("give 1 train" in message or "and 1 held-out" in message)

    ask_until(one_pair, "a pair of the ranking", 60)


def _trace(installation: Installation, draft_id: str) -> registry_pb2.TraceResponse | None:
    try:
        return installation.registry.Trace(registry_pb2.TraceRequest(draft_id=draft_id), timeout=60)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise


def test_invalid_requests_are_refused_and_the_next_one_is_answered(installation: Installation) -> None:
    with _client(installation) as client:
        with pytest.raises(NotFound):
            client.generate("nobody", "Write a memo.")
        with pytest.raises(NotFound):
            client.generate(f"adapter:{'0' * 64}", "Write a memo.")
        with pytest.raises(InvalidArgument):
            client.generate(NAME, "  ")
        with pytest.raises(InvalidArgument):
            client.generate(NAME, "memo " * 4000)
        stream = client.stream(NAME, "Write a memo.", max_tokens=1000)
        next(stream)
        stream.close()
        assert client.generate(NAME, "Write a memo.", max_tokens=4).usage.completion_tokens <= 4
    address = installation.connection.service_addresses["inference"]
    with TailorClient(address, "tlr_wrong") as stranger, pytest.raises(Unauthenticated):
        stranger.generate(NAME, "Write a memo.")


def test_a_key_for_another_specialist_does_not_see_this_one(installation: Installation) -> None:
    other = models_pb2.SpecialistChanged()
    other.CopyFrom(SPECIALIST)
    other.name = "other-reports"
    installation.registry.CreateSpecialist(registry_pb2.CreateSpecialistRequest(specialist=other))
    request = registry_pb2.CreateKeyRequest(name="other", role=common_pb2.ROLE_CALLER, specialists=["other-reports"])
    secret = installation.registry.CreateKey(request).secret
    address = installation.connection.service_addresses["inference"]
    with TailorClient(address, secret) as client:
        assert NAME not in {item.name for item in client.specialists()}
        with pytest.raises(NotFound):
            client.generate(NAME, "Write a memo.")


@pytest.mark.parametrize("role", ["CALLER", "EXPERT", "ENGINEER", "OPERATOR", "DATA_PROTECTION"])
def test_objects_outside_a_keys_reach_are_answered_like_missing_ones(installation: Installation, role: str) -> None:
    adapter = _adapters(installation)[0]
    with _client(installation) as client:
        draft_id = client.generate(NAME, "Write a memo.", max_tokens=2).draft_id
    ask_until(lambda: _trace(installation, draft_id), "a traced draft", 30)
    names = Names(
        specialist=NAME,
        adapter=adapter.adapter.digest,
        dataset=adapter.adapter.dataset_digest,
        run=adapter.adapter.run_id,
        evaluation=adapter.evaluation.evaluation_id,
        draft=draft_id,
        imported=import_chat(installation),
    )
    secret = installation.new_key(common_pb2.Role.Value(f"ROLE_{role}"), "other-reports")
    outcomes = answers(installation, secret, names)
    assert outcomes == answers(installation, secret, Names())
    assert {outcome.partition(" ")[0] for outcome in outcomes.values()} <= {"NOT_FOUND", "PERMISSION_DENIED"}


def import_chat(installation: Installation) -> str:
    """The name of an import for this specialist only."""
    header = imports_pb2.ImportHeader(
        name="walk-chat", licence="MIT", share_percent=1, specialists=[NAME], request_id="walk-chat"
    )
    messages = [imports_pb2.ImportMessage(role=role, content=f"A {role} speaks.") for role in ("user", "assistant")]
    chunk = imports_pb2.ImportChunk(rows=[imports_pb2.ImportRow(messages=messages)])
    requests = [imports_pb2.ImportDatasetRequest(header=header), imports_pb2.ImportDatasetRequest(chunk=chunk)]
    stub = imports_pb2_grpc.ImportServiceStub(installation.channel("synthetic"))
    answer = stub.ImportDataset(iter(requests), timeout=60)
    return str(getattr(answer, "import").name)


def test_publishing_the_same_corpus_again_creates_nothing_new(installation: Installation, tmp_path: Path) -> None:
    before = _flow(installation)
    connections = _connections(installation)
    published = publish_all(connections, _submissions(tmp_path))
    expected = before.anonymized + sum(before.rejected.values()) + published.total
    after = _accounted(installation, expected)
    new_rejections = Counter(after.rejected)
    new_rejections.subtract(before.rejected)
    assert after.anonymized == before.anonymized
    assert +new_rejections == Counter({"DUPLICATE": published.total - 2, "CORRUPT": 1, "EMPTY": 1})
    synthetic = synthetic_pb2_grpc.SyntheticServiceStub(installation.channel("synthetic"))
    built = synthetic.BuildDataset(synthetic_pb2.BuildDatasetRequest(specialist=NAME, request_id="twice"), timeout=120)
    assert not built.created
    assert len(_runs(installation)) == 1


@pytest.mark.release
@pytest.mark.parametrize("store", ["store", "database", "broker"])
def test_killing_a_store_during_the_flow_loses_nothing(installation: Installation, tmp_path: Path, store: str) -> None:
    before = _flow(installation)
    folder = tmp_path / f"new-{store}"
    folder.mkdir()
    for number in range(6):
        text = f"# Memo {store} {number}\n\nThe operating rhythm of site {store} number {number} continues on Monday, says the ledger.\n"
        (folder / f"{number}.md").write_text(text, encoding="utf-8")
    labels = replace(Description(), source="wiki", department="risk", confidentiality="internal")
    publish_all(_connections(installation), collect([folder], labels))
    if store == "broker":
        # The embedded broker writes to disk once per second, and `tailor publish` does not resend (docs/decisions/0006).
        time.sleep(2.5)
    _kill(installation, store)
    expected = before.anonymized + sum(before.rejected.values()) + 6
    after = _accounted(installation, expected)
    assert after.anonymized == before.anonymized + 6
    assert after.rejected == before.rejected


def test_rankings_on_the_console_become_a_dataset_and_an_adapter_based_on_the_compared_one(
    installation: Installation,
) -> None:
    # The texts of the drafts wait until it is back.
    os.kill(installation.pid("anonymization"), signal.SIGKILL)
    (compared,) = _adapters(installation)
    judged = _rank(Expert(installation), compared.adapter.digest)
    synthetic = synthetic_pb2_grpc.SyntheticServiceStub(installation.channel("synthetic"))
    request = synthetic_pb2.BuildDatasetRequest(specialist=NAME, kind=models_pb2.DATASET_KIND_PREFERENCE)

    def build() -> models_pb2.DatasetBuilt | None:
        try:
            return synthetic.BuildDataset(request, timeout=60).dataset
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                print(error.details())
                return None
            raise

    dataset = ask_until(build, "a preference dataset", 60)
    assert dataset.train_rows >= 8 and dataset.held_out_rows >= 1
    assert len(judged & Datasets(installation).judgement_ids(to_ref(dataset.manifest))) >= 8
    assert [*dataset.draft_adapter_digests] == [compared.adapter.digest]
    training = Training(installation)

    def started() -> list[training_pb2.Run]:
        return [run for run in training.runs(NAME) if run.preference_dataset_digest == dataset.digest]

    (run,) = ask_until(started, "a run on the preferences", 60)
    assert (run.dataset_digest, run.round) == (compared.adapter.dataset_digest, 1)
    assert run.stages[0].adapter_digest == compared.adapter.digest
    run = training.wait_for_end(run.run_id)
    assert run.state == training_pb2.RUN_STATE_SUCCEEDED, run.message
    manifest = training.manifest(run.adapter_digest)
    assert manifest["dataset_digest"] == dataset.digest
    assert manifest["parent_digest"] == compared.adapter.digest

    def catalogued() -> list[models_pb2.AdapterTrained]:
        return [item.adapter for item in _adapters(installation) if item.adapter.digest == run.adapter_digest]

    (adapter,) = ask_until(catalogued, "the adapter in the catalogue", 30)
    assert adapter.last_loss < adapter.first_loss
    assert (adapter.sft_dataset_digest, adapter.preference_dataset_digest) == (run.dataset_digest, dataset.digest)
    definition = installation.registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=NAME), timeout=60)
    assert definition.round.prompts >= 9 and not definition.round.missing_prompts


@pytest.mark.release
def test_new_documents_make_a_run_of_all_stages_that_keeps_what_experts_taught(
    installation: Installation, tmp_path: Path
) -> None:
    training, before = Training(installation), _flow(installation)
    (ranked,) = [run for run in training.runs(NAME) if run.preference_dataset_digest]
    for number in range(12):
        text = f"# Harbour {number}\n\nCrane {number} of the harbour keeps the evidence pack of quay {number}, says the ledger of spring.\n"
        (tmp_path / f"{number}.md").write_text(text, encoding="utf-8")
    labels = replace(Description(), source="wiki", department="risk", confidentiality="internal")
    publish_all(_connections(installation), collect([tmp_path], labels))
    _accounted(installation, before.anonymized + sum(before.rejected.values()) + 12)
    synthetic = synthetic_pb2_grpc.SyntheticServiceStub(installation.channel("synthetic"))
    built = synthetic.BuildDataset(synthetic_pb2.BuildDatasetRequest(specialist=NAME), timeout=120)
    assert built.created

    def started() -> list[training_pb2.Run]:
        return [run for run in training.runs(NAME) if run.dataset_digest == built.dataset.digest]

    (run,) = ask_until(started, "a run on the new documents", 60)
    run = training.wait_for_end(run.run_id)
    assert run.state == training_pb2.RUN_STATE_SUCCEEDED, run.message
    assert [stage.method for stage in run.stages] == ["sft", "dpo"]
    assert (run.preference_dataset_digest, run.round) == (ranked.preference_dataset_digest, 1)

    def evaluated() -> list[registry_pb2.CatalogueAdapter]:
        found = [item for item in _adapters(installation) if item.adapter.digest == run.adapter_digest]
        return [item for item in found if item.HasField("evaluation")]

    (item,) = ask_until(evaluated, "the evaluation of the new adapter", 240)
    assert item.evaluation.pairs >= 1 and item.evaluation.rows > item.evaluation.pairs
    assert {"pair_margin", "win_rate"} <= {metric.metric for metric in item.evaluation.metrics}
    assert item.evaluation.preference_dataset_digest == ranked.preference_dataset_digest
    states = {item.adapter.digest: item.state for item in _adapters(installation)}
    assert states[run.stages[0].adapter_digest] == registry_pb2.ADAPTER_STATE_INTERMEDIATE


def _rank(expert: Expert, adapter: str) -> set[str]:
    """Prefer the shorter of two answers until there are 8 rows to train on and 1 to hold out. Returns the judgements' ids."""
    judged: set[str] = set()
    sides: Counter[bool] = Counter()
    asked = 0
    while sides[False] < 8 or sides[True] < 1:
        asked += 1
        assert asked <= 80, "none of eighty prompts is held out, or the samples do not differ"
        answers = sorted(expert.compare(NAME, f"Write memo {asked}.", 12), key=lambda answer: len(answer.text))
        if len({answer.text.strip() for answer in answers}) == 1:
            continue
        drafts = [expert.draft(answer.draft_id) for answer in answers]
        assert {draft.adapter_digest for draft in drafts} == {adapter}
        judged.add(expert.prefer(*answers))
        sides[is_held_out(drafts[0].prompt_digest, 12)] += 1
    return judged


def test_no_personal_data_of_the_sample_is_found_outside_the_raw_zone(
    installation: Installation, tmp_path: Path
) -> None:
    before = _flow(installation)
    published = gold.publish_sample(installation, tmp_path)
    _accounted(installation, before.anonymized + sum(before.rejected.values()) + published)
    judgement = gold.judge(installation, NAME).judgement
    assert judgement.comment and not any(value in judgement.comment for value in gold.TYPED)
    vault = gold.Vault(installation)
    leaks = gold.leaks(installation, vault)
    assert leaks.places > 200
    assert leaks.outside_texts == Counter()
    # A model finds most names, not all of them. Values with a format or a checksum are always found.
    assert set(leaks.by_type) <= {"CLIENT", "PERSON", "DATE_OF_BIRTH"}, leaks.by_artefact
    assert leaks.by_type.total() <= 0.02 * len(gold.gold_values()), leaks.by_artefact
    # The search leaves out only surrogates that the vault issued, never a true name.
    assert any(vault.is_anothers_surrogate("PERSON", name) for name in gold.drawn_names(installation))
    assert not vault.is_anothers_surrogate("PERSON", gold.TYPED[0])
