"""A console of which every page has content: long ids, names without a place to break them, many columns, large numbers."""

from typing import Any

from services.console.domain import InvitationTerms, Role
from tailor.api.anonymization.v1 import replaced_pb2, review_pb2
from tailor.api.events.v1 import drafts_pb2
from tailor.api.ingestion.v1 import ingestion_pb2
from tailor.api.registry.v1 import audit_pb2, registry_pb2
from tests.evaluations import make_estimate, make_evaluated, make_figures
from tests.fakes.review import SHARE, report
from tests.unit.console.fake_models import text
from tests.unit.console.fake_rows import row, synthesis
from tests.unit.console.judging_fakes import FIRST, FOURTH, SECOND, THIRD
from tests.unit.console.messages import (
    ADAPTER,
    DATASET,
    DRAFT,
    LABELS,
    NAME,
    OLD_ADAPTER,
    PREFERENCES,
    STAMP,
    adapter,
    api_key,
    catalogued,
    dataset,
    edit,
    evaluated,
    log_line,
    progress,
    rejection,
    run,
    serving,
    specialist,
    staged,
    trained,
    update,
)
from tests.unit.console.world import World

# The longest name that a specialist can have, without a place to break it, and words without spaces.
LONG = "engagementreportsofthedepartmentforinfrastructureandmaintenance"
WORD = "Grundstuecksverkehrsgenehmigungszustaendigkeitsuebertragungsverordnung"
SENTENCE = f"The file of {WORD} cannot be read; publish it again as a text, a PDF with text, or DOCX. " * 3
OWN_ID = f"https://intranet.example.com/departments/infrastructure/{WORD}/2026/report-final-2.pdf"
MODELS: dict[str, Any] = {
    "base": 0.12,
    "few_shot": 0.18,
    "prompt": 0.17,
    "external:paid": 0.22,
    "incumbent": 0.2,
    "candidate": 0.23,
}
METRICS = ("log_likelihood", "rougeL", "key_insights_f1.recommendations", "fabrication.names")
REPORT = "| metric | base | few_shot | candidate | rows |\n|---|---:|---:|---:|---:|\n" + "".join(
    f"| metric_{number} | 0.1200 (0.1150 to 0.1250) | 0.1800 (0.1750 to 0.1850) | 0.2300 (0.2250 to 0.2350) | 48 |\n"
    for number in range(8)
)
DRAFTS = {
    FIRST: f"# Position of {WORD}\n\nThe cash holds.\n\n| item | figure | {WORD} |\n|---|---:|---|\n| a | 1,000,000,000 | b |\n",
    SECOND: "# Position\n\n" + "The cash falls, and nobody says why. " * 60,
    THIRD: f"The cash rises.\n\n    SELECT {', '.join(f'column_{number}' for number in range(30))} FROM ledger;\n",
    FOURTH: f"## Position\n\n1. The cash of `{OWN_ID}` is stable.\n",
}
PROMPT = ("user", f"Write the position of {WORD}. " + "Use the figures of the last quarter. " * 30)


def make_world() -> World:
    """Long content on every page."""
    world = World()
    world.synthetic.pages = [
        [row(1, row_id="row_" + "e" * 32, document_ids=["doc_" + "e" * 32] * 4), row(2, task=WORD)]
    ]
    _fill_documents(world)
    _fill_adapters(world)
    _fill_specialists(world)
    _fill_runs(world)
    _fill_audit(world)
    _fill_people(world)
    _fill_judging(world)
    _fill_review(world)
    return world


def _fill_documents(world: World) -> None:
    labels = edit(LABELS, source=WORD, department=WORD, confidentiality="strictly-confidential")
    findings = {f"PERSONAL_VALUE_OF_KIND_{number}": 1_000_000 for number in range(9)}
    world.registry.documents = [
        catalogued(labels=labels, format=WORD, findings=findings, char_count=10**9),
        catalogued(2, rules_only_languages=["is", "fi"]),
        rejection(SENTENCE),
    ]
    world.registry.documents[-1].rejected.labels.CopyFrom(labels)
    world.registry.documents[-1].rejected.duplicate_of = "doc_" + "9" * 32
    world.registry.datasets = [dataset(specialist=LONG, base=WORD, train_rows=10**9, held_out_rows=10**8), dataset()]
    world.registry.erasures[0] = edit(
        world.registry.erasures[0], reason=WORD, document_ids=[f"doc_{number:032x}" for number in range(9)]
    )
    refused = ingestion_pb2.Submission(
        submission_id="sub_" + "4" * 32,
        document_id="doc_" + "4" * 32,
        format=WORD,
        labels=labels,
        rejection_stage="ingestion",
        rejection_reason="UNSUPPORTED_FORMAT",
        hint=SENTENCE,
        create_time=STAMP,
    )
    world.ingestion.submissions[OWN_ID] = [refused]
    world.registry.flow.findings.update(dict.fromkeys(findings, 10**6))
    world.registry.flow.rejected[WORD.upper()] = 10**6
    world.syntheses.syntheses = [synthesis(reason=SENTENCE)]
    world.syntheses.syntheses[0].spec.specialist = LONG
    world.syntheses.syntheses[0].spec.task = WORD
    world.syntheses.samples[0].prompt = SENTENCE


def _fill_adapters(world: World) -> None:
    """One that waits for approval, measured against all kinds of models, and one of an earlier evaluation."""
    evaluation = make_evaluated(ADAPTER, LONG, *(make_figures(name, **MODELS) for name in METRICS))
    evaluation.not_measured["llm_judge"] = SENTENCE
    reasons = [SENTENCE, f"{WORD} gains too little"]
    weights = trained(specialist=LONG, base=WORD, parent_digest=OLD_ADAPTER)
    weights.metrics["held_out_loss"] = 2.5
    world.registry.adapters = [
        adapter(weights, reasons=reasons, evaluation=evaluation, advice="`tailor specialist diff NAME` shows it."),
        adapter(trained(OLD_ADAPTER), evaluation=evaluated(rougeL=0.2)),
    ]
    world.registry.adapters[0].state = registry_pb2.ADAPTER_STATE_WAITING_FOR_APPROVAL
    world.registry.waiting = world.registry.adapters[:1]
    answer = world.evaluation.answers[ADAPTER]
    answer.result.CopyFrom(evaluation)
    answer.report_markdown = REPORT
    world.registry.records = [
        registry_pb2.OperatorDecision(
            kind=registry_pb2.OPERATOR_DECISION_KIND_OVERRIDE,
            specialist=LONG,
            adapter_digest=ADAPTER,
            key_id="key_" + "1" * 16,
            reason=SENTENCE,
        )
    ]
    board = world.registry.leaderboard
    board.metric = "rougeL"
    for model, digest in ((WORD, ""), ("candidate", ADAPTER)):
        entry = board.entries.add(rank=1, model=model, adapter_digest=digest, dataset_digest=DATASET, rows=10**6)
        entry.scores["rougeL"].CopyFrom(make_estimate(0.2))
        entry.gains["rougeL"].CopyFrom(make_estimate(0.1))
    trace = world.registry.traces[DRAFT]
    trace.evaluation.CopyFrom(evaluation)
    trace.reasons.extend(reasons)
    trace.preference_dataset.CopyFrom(dataset(digest=PREFERENCES, judgements=70))
    world.inference.texts[DRAFT] = text("KEPT", PROMPT, answer=DRAFTS[SECOND])


def _fill_specialists(world: World) -> None:
    canary = registry_pb2.Canary(
        adapter_digest=ADAPTER, state=registry_pb2.CANARY_STATE_RUNNING, start_time=STAMP, reason=SENTENCE
    )
    replicas = [
        registry_pb2.ReplicaState(replica=f"inference-{WORD}", reason="BASE_DIFFERS"),
        registry_pb2.ReplicaState(),
    ]
    world.registry.specialists = [
        specialist(keep_drafts=True),
        edit(
            specialist(LONG, description=SENTENCE, base=WORD, keep_drafts=True),
            canary=canary,
            serving=serving(3, *replicas),
        ),
    ]
    world.registry.specialists[1].round.sentence = SENTENCE
    world.inference.names = ("base", NAME, LONG)


def _fill_runs(world: World) -> None:
    running = edit(staged("running"), specialist=LONG, base=WORD, recipe=f"{WORD}, lora")
    waiting = run(
        "queued",
        run_id="run_" + "7" * 32,
        specialist=LONG,
        reason="WAITS_FOR_ANOTHER_DATASET_OF_RANKINGS",
        message=SENTENCE,
    )
    world.training.runs = [running, waiting, run("succeeded", run_id="run_" + "8" * 32)]
    reports = [update(edit(running, progress=progress(step, stage=1, reward=0.2 + step / 100))) for step in range(1, 9)]
    world.training.updates = [*reports, update(running, log_line(SENTENCE, "error"), log_line(WORD * 3))]
    plan = running.plan
    plan.refusal, plan.nearest_recipe = SENTENCE, WORD


def _fill_audit(world: World) -> None:
    audit = world.registry.audit
    audit.totals.CopyFrom(audit_pb2.AuditTotals(documents=10**6, characters=10**9, findings=10**7))
    for dimension in audit.dimensions:
        dimension.groups.add(value=WORD, documents=10**6, characters=10**9, findings=10**7)
    audit.findings.add(
        entity_type="NATIONAL_IDENTIFICATION_NUMBER", values=10**7, documents=10**6, per_thousand_chars=0.01
    )
    audit.rejections.add(
        reason="LANGUAGE_NOT_COVERED_BY_DETECTORS", format=WORD, stage="anonymization", submissions=10**6
    )
    audit.datasets[0].specialist = LONG
    audit.datasets[0].skipped.add(
        reason=f"near_duplicate_of_{WORD.lower()}", documents=10**6, rows=10**7, characters=10**9
    )


def _fill_people(world: World) -> None:
    world.registry.keys = [
        api_key(name=WORD[:64], specialists=[LONG, NAME], methods=[f"/x.y/{WORD}"], calls_per_minute=10**6)
    ]
    terms = InvitationTerms(WORD[:64], Role.EXPERT, f"{'a' * 60}@example.com", (LONG, NAME))
    world.people.invite(terms, "key_0011223344556677")


def _fill_judging(world: World) -> None:
    world.judging.drafts = (FIRST, SECOND)
    for draft_id, answer in DRAFTS.items():
        world.inference.texts[draft_id] = text("KEPT", PROMPT, answer=answer)
        world.inference.texts[draft_id].draft_id = draft_id
        trace = edit(world.registry.traces[DRAFT])
        trace.draft.draft_id = draft_id
        world.registry.traces[draft_id] = trace
    world.judging.last_decision = "17"
    world.judging.own = [
        drafts_pb2.JudgementRecorded(
            ranking=[FIRST, SECOND],
            comment=SENTENCE,
            marks=[drafts_pb2.DraftMark(draft_id=FIRST, criterion=WORD[:40].lower(), mark=4)],
            create_time=STAMP,
        )
    ]
    examples = world.panel.answer.guidelines[0].examples
    examples.add(text=SENTENCE, judgement_id="jdg_" + "3" * 32)


def _fill_review(world: World) -> None:
    left = review_pb2.ResidualEstimate(
        source=WORD,
        language="en",
        passages=10**6,
        drawn=400,
        reviewed=400,
        any=SHARE,
        types={f"TYPE_{WORD.upper()}": SHARE},
    )
    world.review.report = report(strata=[left], rules_only_documents={"is": 10**6})
    world.replaced.strings.append(
        replaced_pb2.ReplacedString(
            entity_type=f"TYPE_{WORD.upper()}",
            surrogate=WORD,
            times=10**6,
            documents=10**6,
            departments=10**3,
            sources=9,
        )
    )
    world.registry.audit.datasets.add(specialist=NAME, dataset_digest=DATASET, documents=4)
