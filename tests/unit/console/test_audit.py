"""The audit page, its plot, and a specialist's filters."""

import re
from dataclasses import replace

import pytest

from services.console.adapters.convert import filters
from services.console.audits import Audit, Bin, NearDuplicates
from services.console.domain import Role
from services.console.web.charts import BASELINE, TOP, WIDTH, histogram
from tailor.api.events.v1 import models_pb2
from tailor.errors import Reason, Unavailable
from tests.unit.console.fakes import NAME, RUN, World, specialist


def test_shows_counts_lengths_personal_data_rejections_and_the_estimate() -> None:
    text = World().signed_in().get("/audit").text
    for said in (
        "100, 100,000 characters",
        "1.80 per 1,000",
        "7 documents in 3 groups",
        "50 % below <b>900</b>",
        "person",
    ):
        assert said in text
    assert "1.500" in text and "<code>CORRUPT</code>" in text and "3 more" in text
    assert f'href="/runs/{RUN}"' in text and "100,000 s" not in text
    assert text.count("<rect ") == 3


def test_an_empty_catalogue_is_shown_as_such() -> None:
    world = World()
    world.auditing.counts, world.auditing.near = Audit(), NearDuplicates()
    text = world.signed_in().get("/audit").text
    assert "No document yet." in text and "Nothing was rejected." in text and "<rect " not in text
    assert "an assumption until a run has reported" in text


def test_documents_that_are_not_compared_yet_are_told() -> None:
    world = World()
    world.auditing.near = NearDuplicates(100, 40, 1, 1, 0.8)
    assert "40 of 100 documents are compared so far" in world.signed_in().get("/audit").text


def test_one_specialist_can_be_looked_at() -> None:
    world = World()
    text = world.signed_in().get(f"/audit?specialist={NAME}").text
    assert world.auditing.asked == [NAME]
    assert f"--specialist {NAME}" in text


def test_a_specialist_that_was_not_given_does_not_exist() -> None:
    world = World()
    assert world.signed_in(Role.ENGINEER, "other").get(f"/audit?specialist={NAME}").status_code == 404
    assert world.auditing.asked == []


def test_what_one_service_does_not_say_is_named_and_the_rest_is_shown() -> None:
    class OneDown:
        def audit(self, specialist: str) -> Audit:
            return Audit(documents=3)

        def near_duplicates(self, specialist: str) -> NearDuplicates:
            raise Unavailable(Reason.UNAVAILABLE, "synthetic does not answer.")

    text = World(auditing=OneDown()).signed_in().get("/audit").text  # type: ignore[arg-type]
    assert "synthetic could not be asked." in text and "not known" in text and "3, 0 characters" in text


def test_a_label_is_escaped() -> None:
    world = World()
    hostile = replace(world.auditing.counts.dimensions[0].groups[0], value="<b onload=x>")
    dimension = replace(world.auditing.counts.dimensions[0], groups=(hostile,))
    world.auditing.counts = replace(world.auditing.counts, dimensions=(dimension,))
    text = world.signed_in().get("/audit").text
    assert "<b onload" not in text and "&lt;b onload=x&gt;" in text


def test_the_highest_bar_reaches_the_top_and_none_leaves_the_plot() -> None:
    bars = histogram([Bin(0, 250, 10), Bin(250, 500, 0), Bin(512_000, 0, 5)])
    assert [bar.height for bar in bars] == [BASELINE - TOP, 0, (BASELINE - TOP) / 2]
    assert [bar.label for bar in bars] == ["< 250", "< 500", "≥ 512 k"]
    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH and bar.y >= TOP for bar in bars)
    assert histogram([]) == []


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (models_pb2.Filters(), ()),
        (models_pb2.Filters(languages=["en", "de"], max_source_percent=40), ("en, de", "40 % of the rows")),
        (models_pb2.Filters(min_chars=200, boilerplate_documents=5), ("200 or more", "in 5 documents")),
    ],
)
def test_filters_that_are_set_are_shown(given: models_pb2.Filters, shown: tuple[str, ...]) -> None:
    assert tuple(value for _, value in filters(given)) == shown


def test_the_specialists_page_lists_filters() -> None:
    world = World()
    world.registry.specialist_items = [replace(specialist(), filters=(("language", "en"),))]
    text = world.signed_in().get("/specialists").text
    assert re.search(r"<dt>Filters</dt><dd><span class=\"finding\">language <b>en</b>", text)
