"""The audit page, its histogram, and a specialist's filters."""

import re

import pytest

from services.console.domain import Role
from services.console.rules import list_filters, list_row_limits
from services.console.web.charts import BASELINE, TOP, WIDTH, histogram
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import audit_pb2
from tailor.api.synthetic.v1.synthetic_pb2 import CountNearDuplicatesResponse
from tests.unit.console.messages import DATASET, NAME, RUN, specialist
from tests.unit.console.world import World


def test_shows_counts_lengths_personal_data_rejections_and_the_estimate() -> None:
    text = World().signed_in().get("/audit").text
    for part in (
        "100, 100,000 characters",
        "1.80 per 1,000",
        "7 documents in 3 groups",
        "50 % shorter than <b>900</b>",
        "person",
    ):
        assert part in text
    assert "1.500" in text and "<code>CORRUPT</code>" in text and "3 more" in text
    assert f'href="/runs/{RUN}"' in text and "100,000 s" not in text
    assert text.count("<rect ") == 3


def test_shows_the_dataset_behind_a_serving_adapter_with_what_it_leaves_out() -> None:
    text = World().signed_in().get("/audit").text
    for part in ("91.2 %", "no words", "5,000"):
        assert part in text
    assert f'href="/datasets/{DATASET}"' in text
    assert f'href="/datasets/{DATASET}"' not in World().signed_in(Role.DATA_PROTECTION).get("/audit").text


def test_shows_what_the_newest_dataset_leaves_out_before_an_adapter_serves() -> None:
    world = World()
    world.registry.audit.datasets[0].adapter_digest = ""
    text = world.signed_in().get("/audit").text
    assert (
        "None yet; the specialist&#39;s newest dataset." in text or "None yet; the specialist's newest dataset." in text
    )
    assert "no words" in text and "5,000" in text


def test_shows_an_empty_catalogue() -> None:
    world = World()
    world.registry.audit, world.synthetic.near = audit_pb2.GetAuditResponse(), CountNearDuplicatesResponse()
    text = world.signed_in().get("/audit").text
    assert "No dataset of documents yet." in text
    assert "No documents yet." in text and "No rejected submissions." in text and "<rect " not in text
    assert "an assumption until a run has reported" in text


def test_shows_how_many_documents_are_compared() -> None:
    world = World()
    world.synthetic.near = CountNearDuplicatesResponse(documents=100, compared=40, near_duplicates=1, groups=1)
    assert "40 of 100 documents compared so far" in world.signed_in().get("/audit").text


def test_one_specialist_can_be_audited() -> None:
    world = World()
    text = world.signed_in().get(f"/audit?specialist={NAME}").text
    assert world.registry.audited == [NAME]
    assert f"--specialist {NAME}" in text


def test_a_specialist_without_access_is_not_found() -> None:
    world = World()
    assert world.signed_in(Role.ENGINEER, "other").get(f"/audit?specialist={NAME}").status_code == 404
    assert world.registry.audited == []


def test_names_a_service_that_does_not_answer_and_shows_the_rest() -> None:
    world = World()
    world.synthetic.near = None
    world.registry.audit = audit_pb2.GetAuditResponse(totals=audit_pb2.AuditTotals(documents=3))
    text = world.signed_in().get("/audit").text
    assert "No answer from synthetic." in text and "unknown" in text and "3, 0 characters" in text


def test_a_label_is_escaped() -> None:
    world = World()
    world.registry.audit.dimensions[0].groups[0].value = "<b onload=x>"
    text = world.signed_in().get("/audit").text
    assert "<b onload" not in text and "&lt;b onload=x&gt;" in text


def test_the_highest_bar_reaches_the_top_and_none_leaves_the_plot() -> None:
    bins = [
        audit_pb2.AuditBin(below_chars=250, documents=10),
        audit_pb2.AuditBin(from_chars=250, below_chars=500),
        audit_pb2.AuditBin(from_chars=512_000, documents=5),
    ]
    bars = histogram(bins)
    assert [bar.height for bar in bars] == [BASELINE - TOP, 0, (BASELINE - TOP) / 2]
    assert [bar.label for bar in bars] == ["< 250", "< 500", "≥ 512 k"]
    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH and bar.y >= TOP for bar in bars)
    assert histogram([]) == []


@pytest.mark.parametrize(
    ("filters", "limits"),
    [
        (models_pb2.Filters(), ()),
        (models_pb2.Filters(languages=["en", "de"], max_source_percent=40), ("en, de", "40 % of the rows")),
        (models_pb2.Filters(min_chars=200, boilerplate_documents=5), ("at least 200", "in 5 documents")),
    ],
)
def test_lists_the_filters_that_are_set(filters: models_pb2.Filters, limits: tuple[str, ...]) -> None:
    assert tuple(limit for _, limit in list_filters(filters)) == limits


def test_the_specialists_page_lists_filters() -> None:
    world = World()
    world.registry.specialists = [specialist(filters=models_pb2.Filters(languages=["en"]))]
    text = world.signed_in().get(f"/specialists/{NAME}").text
    assert re.search(r"<dt>Filters</dt><dd><span class=\"finding\">language <b>en</b>", text)


@pytest.mark.parametrize(
    ("rows", "limits"),
    [
        (models_pb2.RowPolicy(), ("at least 8 tokens", "12 %, at most 2,000 rows")),
        (
            models_pb2.RowPolicy(max_row_tokens=4000, max_held_out_rows=9),
            ("at most 4,000 tokens", "at least 8 tokens", "12 %, at most 9 rows"),
        ),
        (
            models_pb2.RowPolicy(tasks=["report"], replay=["chats", "mails"], replay_percent=10),
            ("at least 8 tokens", "12 %, at most 2,000 rows", "report", "10 % from chats, mails"),
        ),
    ],
)
def test_lists_the_limits_on_rows(rows: models_pb2.RowPolicy, limits: tuple[str, ...]) -> None:
    assert tuple(limit for _, limit in list_row_limits(rows)) == limits


def test_the_specialists_page_lists_the_limits_on_rows() -> None:
    world = World()
    world.registry.specialists = [specialist(rows=models_pb2.RowPolicy(max_rows_per_document=4))]
    text = world.signed_in().get(f"/specialists/{NAME}").text
    assert "per document <b>at most 4 rows</b>" in text
