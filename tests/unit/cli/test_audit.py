"""Markdown reports: the audit of documents, and the month of a specialist."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import audit_pb2, outcomes_pb2, registry_pb2, reports_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.cli.audit import MAX_BARS, duration, facts, plots, report, sections
from tailor.cli.output import short
from tailor.errors import Aborted, DeadlineExceeded, Reason
from tests.evaluations import make_evaluated, make_figures
from tests.fakes.serving import ADAPTER
from tests.unit.cli.conftest import Services, Tailor


def audit() -> audit_pb2.GetAuditResponse:
    sources = [
        audit_pb2.AuditGroup(value="wiki", documents=60, characters=90_000, findings=180),
        audit_pb2.AuditGroup(value="a|b", documents=30, characters=10_000),
    ]
    languages = [audit_pb2.AuditGroup(value="en", documents=90, characters=99_000, findings=180)]
    languages.append(audit_pb2.AuditGroup(value="", documents=10, characters=1_000))
    return audit_pb2.GetAuditResponse(
        totals=audit_pb2.AuditTotals(documents=100, characters=100_000, findings=200, removed={"contents": 8_714}),
        dimensions=[
            audit_pb2.AuditDimension(field=audit_pb2.AUDIT_FIELD_SOURCE, groups=sources, more_values=4),
            audit_pb2.AuditDimension(field=audit_pb2.AUDIT_FIELD_LANGUAGE, groups=languages),
        ],
        lengths=audit_pb2.AuditLengths(
            min_chars=10,
            max_chars=700_000,
            mean_chars=1000,
            percentiles={5: 20, 50: 900, 95: 4000},
            histogram=[
                audit_pb2.AuditBin(from_chars=0, below_chars=250, documents=99),
                audit_pb2.AuditBin(from_chars=512_000, documents=1),
            ],
        ),
        findings=[audit_pb2.AuditFinding(entity_type="PERSON", values=200, documents=70, per_thousand_chars=2.0)],
        rejections=[
            audit_pb2.AuditRejection(reason="DUPLICATE", format="pdf", stage="ingestion", submissions=5),
            audit_pb2.AuditRejection(reason="CORRUPT", stage="ingestion", submissions=2),
        ],
        duplicates=5,
        datasets=[
            audit_pb2.AuditDataset(
                specialist="engagement-reports",
                adapter_digest="ad" * 32,
                dataset_digest="da" * 32,
                documents=95,
                figures=models_pb2.DatasetFigures(coverage=0.934, grounded=0.99, characters=90_000),
                skipped=[
                    audit_pb2.AuditSkipped(reason="no_words", documents=2, characters=5_000),
                    audit_pb2.AuditSkipped(reason="overlap", rows=12, characters=900),
                ],
            )
        ],
        imports=[audit_pb2.AuditImport(specialist="reports", name="chat", licence="MIT", share_percent=20, rows=1250)],
        estimate=audit_pb2.AuditEstimate(tokens=25_000, tokens_per_second=250, run_id="run_9", seconds=100),
    )


NEAR = synthetic_pb2.CountNearDuplicatesResponse(
    documents=100, compared=100, near_duplicates=7, groups=3, threshold=0.8
)


def fact(
    name: str, response: audit_pb2.GetAuditResponse, near: synthetic_pb2.CountNearDuplicatesResponse | None
) -> str:
    return dict(facts(response, near))[name]


def test_shows_counts_lengths_personal_data_rejections_and_the_estimate(tailor: Tailor, services: Services) -> None:
    services.registry.audit = audit()
    services.synthetic.documents = 250

    shown = tailor("audit")

    assert shown.code == 0
    for text in (
        "100, 100,000 characters",
        "2.00 per 1,000",
        "contents 8,714 characters",
        "7 documents in 3 groups",
        "By source",
        "4 others",
        "PERSON",
    ):
        assert text in shown.out
    assert (
        "2 minutes" not in shown.out and "100 seconds for one pass at 250 tokens/s, the speed of run run_9" in shown.out
    )
    assert services.synthetic.compared == 250
    assert "comparing documents: 100 of 250" in shown.err


def test_shows_the_datasets_behind_serving_adapters_and_the_newest_and_what_they_leave_out() -> None:
    response = audit()
    skipped = [audit_pb2.AuditSkipped(reason="max_train_tokens", rows=7, characters=70)]
    response.datasets.add(specialist="engagement-reports", dataset_digest="fe" * 32, documents=97, skipped=skipped)
    tables = {table.title: table for table in sections(response)}
    dataset, newest = tables["Datasets behind serving adapters, and newest ones"].rows
    assert newest[:4] == ("engagement-reports", "-", short("fe" * 32), "97")
    assert dataset[0] == "engagement-reports" and dataset[3:] == ("95", "93.4 %", "99.0 %", "0.0 %", "unknown")
    assert dataset[1] != "ad" * 32 and ("ad" * 32).startswith(dataset[1])
    assert tables["Left out of these datasets"].rows == (
        (f"engagement-reports {short('da' * 32)}: no words", "2", "0", "5,000"),
        (f"engagement-reports {short('da' * 32)}: overlap", "0", "12", "900"),
        (f"engagement-reports {short('fe' * 32)}: max train tokens", "0", "7", "70"),
    )


def test_gives_one_json_document(tailor: Tailor, services: Services) -> None:
    services.registry.audit = audit()

    document = tailor("audit", "--output=json", "--specialist", "engagement-reports").document

    assert document["audit"]["totals"] == {
        "documents": 100,
        "characters": 100_000,
        "findings": 200,
        "removed": {"contents": 8_714},
    }
    assert document["audit"]["dimensions"][0]["field"] == "AUDIT_FIELD_SOURCE"
    assert document["audit"]["lengths"]["percentiles"]["50"] == 900
    assert document["near_duplicates"]["near_duplicates"] == 7


def test_fails_for_an_unknown_specialist(tailor: Tailor) -> None:
    refused = tailor("audit", "--specialist", "nobody")

    assert (refused.code, refused.out) == (1, "")
    assert "UNKNOWN_SPECIALIST" in refused.err


def test_continues_without_near_duplicates_if_synthetic_does_not_answer(tailor: Tailor, services: Services) -> None:
    services.synthetic.down = True

    shown = tailor("audit", "--output=json")

    assert shown.code == 0 and shown.document["near_duplicates"] is None
    assert "near-duplicates are unknown" in shown.err


def test_writes_a_report_with_its_plots_next_to_it(tailor: Tailor, services: Services, tmp_path: Path) -> None:
    services.registry.audit = audit()
    file = tmp_path / "reports" / "audit.md"

    written = tailor("audit", "--markdown", str(file))

    assert written.code == 0
    text = file.read_text()
    assert "| reports | chat | MIT | 20 % |  | 1,250 |" in text
    assert text.startswith("# Audit\n") and "| PERSON | 200 | 70 | 2.000 |" in text and "| a\\|b | 30 |" in text
    images = sorted(path.name for path in file.parent.glob("*.png"))
    assert images == [f"audit-{name}.png" for name in ("findings", "language", "lengths", "rejections", "source")]
    assert all(f"]({name})" in text for name in images)
    assert all((file.parent / name).read_bytes().startswith(b"\x89PNG") for name in images)


def test_a_report_that_cannot_be_written_is_one_line(tailor: Tailor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    refused = tailor("audit", "--markdown", str(tmp_path / "file" / "audit.md"))

    assert refused.code == 1
    assert refused.err.splitlines()[-1].startswith("error: CANNOT_WRITE")


def test_an_empty_audit_divides_by_nothing() -> None:
    empty = audit_pb2.GetAuditResponse()
    assert fact("Documents", empty, NEAR) == "0, 0 characters"
    assert fact("Near-duplicates", empty, None) == "unknown"
    assert plots(empty) == []
    assert "None." in report("", empty, None, None, [])


def test_says_that_a_speed_is_assumed() -> None:
    response = audit()
    response.estimate.run_id = ""
    assert "an assumption until a run has reported" in fact("Training", response, NEAR)


def test_says_how_many_documents_are_not_compared_yet() -> None:
    part = synthetic_pb2.CountNearDuplicatesResponse(documents=100, compared=40, threshold=0.8)
    assert fact("Near-duplicates", audit(), part).endswith("40 of 100 documents compared so far")


def test_sums_up_groups_that_are_not_listed() -> None:
    source = sections(audit())[0]
    assert source.rows[-1] == ("4 others", "10", "10.0 %", "0", "", "")


def test_plots_have_few_bars_and_rejections_only_by_reason() -> None:
    response = audit()
    response.findings.extend(audit_pb2.AuditFinding(entity_type=f"T{number}", values=1) for number in range(40))
    response.rejections.append(audit_pb2.AuditRejection(reason="CORRUPT", format="docx", submissions=1))
    by_name = {name: bars for name, _, _, bars in plots(response)}
    assert len(by_name["findings"]) == MAX_BARS
    assert by_name["rejections"] == [("DUPLICATE", 5.0), ("CORRUPT", 3.0)]


@pytest.mark.parametrize(("seconds", "text"), [(30, "30 seconds"), (600, "10.0 minutes"), (90_000, "25.0 hours")])
def test_durations_are_in_the_largest_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_imports_matplotlib_only_to_draw() -> None:
    code = "import sys, tailor.cli.main; print('matplotlib' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )


def test_a_build_reports_what_it_skipped(tailor: Tailor, services: Services) -> None:
    services.synthetic.skipped = [
        synthetic_pb2.Skipped(reason="max_rows_per_document", rows=1200, characters=9000),
        synthetic_pb2.Skipped(reason="language", documents=3, characters=40_000),
    ]

    built = tailor("build", "engagement-reports")

    counted = "Left out: language 3 documents, 40,000 characters; max rows per document 1,200 rows, 9,000 characters."
    assert counted in " ".join(built.out.split())


def test_a_build_that_takes_longer_than_a_call_is_waited_for(tailor: Tailor, services: Services) -> None:
    services.synthetic.build_errors = [
        DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        Aborted(Reason.BUILD_RUNNING, "Another replica is building this specialist's dataset. Retry."),
    ]

    built = tailor("build", "engagement-reports")

    assert built.code == 0 and "200 rows" in built.out and built.err.count("still building") == 2
    assert len(services.synthetic.built) == 3 and len(set(services.synthetic.built)) == 1


def test_another_failure_of_a_build_is_shown_at_once(tailor: Tailor, services: Services) -> None:
    services.synthetic.build_errors = [Aborted(Reason.ABORTED, "An import was added during the build. Retry.")]
    assert "An import was added" in tailor("build", "engagement-reports").err
    assert len(services.synthetic.built) == 1


def test_a_specialist_takes_filters_from_toml_and_shows_them(
    tailor: Tailor, services: Services, tmp_path: Path
) -> None:
    file = tmp_path / "s.toml"
    file.write_text('name = "x"\nbase = "tiny"\n[filters]\nlanguages = ["en"]\nmax_source_percent = 40\n')

    filters = tailor("specialist", "create", str(file), "--output=json").document["specialist"]["filters"]
    services.registry.specialist.filters.languages.append("en")
    services.registry.specialist.filters.min_chars = 200

    assert (filters["languages"], filters["max_source_percent"], filters["min_chars"]) == (["en"], 40, 0)
    shown = " ".join(tailor("specialist", "show", "engagement-reports").out.split())
    assert '[filters] languages = [ "en", ] min_chars = 200' in shown


MAY = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
OTHER = "5e" * 32


def generation(number: int, adapter: str, month: int = 5) -> models_pb2.SpecialistServing:
    serving = models_pb2.SpecialistServing(generation=number, adapter_digest=adapter)
    serving.create_time.FromDatetime(MAY.replace(month=month))
    return serving


@pytest.fixture
def month(services: Services) -> Services:
    """A month with an evaluation, outcomes, costs, a promotion, a rollback and an override."""
    evaluated = make_evaluated(ADAPTER, "engagement-reports", make_figures("rougeL", base=0.1, candidate=0.3))
    evaluated.create_time.FromDatetime(MAY)
    services.registry.evaluated = evaluated
    minutes = outcomes_pb2.MedianEstimate(count=50, median=25, low=18, high=33)
    services.outcomes.answer = outcomes_pb2.GetOutcomesResponse(
        generations=[
            outcomes_pb2.OutcomeFigures(generation=3, adapter_digest=ADAPTER, minutes=minutes, deliverables=7),
            outcomes_pb2.OutcomeFigures(minutes=outcomes_pb2.MedianEstimate(count=1, median=90)),
        ]
    )
    inside, outside = outcomes_pb2.WeekOfDocuments(documents=120, knowledge_articles=31), outcomes_pb2.WeekOfDocuments()
    inside.week.FromDatetime(datetime(2026, 4, 27, tzinfo=UTC))
    outside.week.FromDatetime(datetime(2026, 4, 20, tzinfo=UTC))
    services.outcomes.answer.documents.extend([inside, outside])
    line = reports_pb2.LedgerLine(
        kind=reports_pb2.LEDGER_KIND_COMPUTE, device="1 x H100", quantity=2.5, runs=3, amount=10, currency="EUR"
    )
    serving = reports_pb2.LedgerLine(kind=reports_pb2.LEDGER_KIND_SERVING, device="1 x H100", quantity=0.25, runs=1200)
    storage = reports_pb2.LedgerLine(kind=reports_pb2.LEDGER_KIND_STORAGE, quantity=1.5)
    experts = reports_pb2.LedgerLine(kind=reports_pb2.LEDGER_KIND_EXPERT_MINUTES, quantity=95, runs=70)
    services.reports.ledger = reports_pb2.GetLedgerResponse(
        month="2026-05", lines=[line, serving, storage, experts], monthly_budget=8, budget_used=10
    )
    services.reports.ledger.start_time.FromDatetime(datetime(2026, 5, 1, tzinfo=UTC))
    services.reports.generations = reports_pb2.ListGenerationsResponse(
        generations=[
            generation(4, OTHER, month=6),
            generation(3, ""),
            generation(2, ADAPTER),
            generation(1, OTHER, month=4),
        ]
    )
    override = registry_pb2.OperatorDecision(
        kind=registry_pb2.OPERATOR_DECISION_KIND_OVERRIDE,
        adapter_digest=ADAPTER,
        key_id="key_1",
        reason="The board | <b>asked</b>.",
        generation=2,
    )
    override.create_time.FromDatetime(MAY)
    services.registry.decisions = [override]
    return services


def test_writes_quality_outcomes_cost_and_changes_as_markdown(tailor: Tailor, month: Services, tmp_path: Path) -> None:
    shown = tailor("specialist", "report", "engagement-reports", "--month", "2026-05", "--out", str(tmp_path))

    assert shown.code == 0, shown.err
    assert [path.name for path in tmp_path.iterdir()] == ["engagement-reports-2026-05.md"]
    text = (tmp_path / "engagement-reports-2026-05.md").read_text(encoding="utf-8")
    assert text.startswith("# engagement-reports in 2026-05\n")
    for title in ("Quality", "Outcomes", "Published", "Cost", "Changes"):
        assert f"\n## {title}\n" in text
    assert "| rougeL | 0.100 (0.095 to 0.105) | - | 0.300 (0.295 to 0.305) | +0.200" in text
    assert "25 (18 to 33), n = 50" in text and "| baseline | - | 90, n = 1 |" in text
    assert "2.50 device hours of 3 runs | 10.00 EUR" in text and "In all 10.00 EUR." in text
    assert "| serving on 1 x H100 | 0.25 device hours of 1,200 answers | - |" in text
    assert (
        "| storage | 1.500 gigabyte-months | - |" in text
        and "| expert minutes | 95 minutes of 70 judgements | - |" in text
    )
    assert "The monthly budget of 8.00 is exceeded by 2.00" in text
    assert "| 2026-04-27 | 120 | 31 | 0 |" in text and "2026-04-20" not in text
    assert "| 2026-05-04 09:30 | 2 | promotion |" in text and "| 3 | rollback | the base |" in text
    assert "The board \\| &lt;b&gt;asked&lt;/b&gt;." in text
    assert "| 4 |" not in text and "| 1 |" not in text
    assert (month.outcomes.asked[0].month, month.reports.asked[0].month) == ("2026-05", "2026-05")


def test_a_month_without_anything_says_so(tailor: Tailor, services: Services, tmp_path: Path) -> None:
    services.reports.ledger = reports_pb2.GetLedgerResponse(month="2020-01")
    services.reports.ledger.start_time.FromDatetime(datetime(2020, 1, 1, tzinfo=UTC))
    tailor("specialist", "report", "engagement-reports", "--out", str(tmp_path))

    text = (tmp_path / "engagement-reports-2020-01.md").read_text(encoding="utf-8")
    assert "No adapter was evaluated" in text and "No outcomes were reported" in text
    assert "Nothing was published" in text and "Nothing was used." in text and "did not change" in text


def test_a_folder_that_cannot_be_written_is_reported(tailor: Tailor, month: Services, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = tailor("specialist", "report", "engagement-reports", "--out", str(tmp_path / "file" / "below"))
    assert refused.code != 0 and "CANNOT_WRITE" in refused.err
