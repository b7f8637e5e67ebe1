"""A dataset's figures and rows, and the way between rows and documents."""

import re

import pytest

from services.console.domain import Role, RowQuery
from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.errors import InvalidArgument
from tests.unit.console.fake_rows import row
from tests.unit.console.messages import DATASET, NAME, dataset, specialist
from tests.unit.console.world import World

DOCUMENT = f"doc_{1:032x}"
PATH = f"/datasets/{DATASET}"


def test_shows_figures_and_what_was_skipped_by_reason() -> None:
    world = World()
    figures = models_pb2.DatasetFigures(coverage=0.934, grounded=0.991, characters=424_912)
    world.registry.datasets = [dataset(figures=figures)]
    text = world.signed_in().get(PATH).text
    for part in (
        "93.4 %",
        "of 424,912 characters",
        "99.1 %",
        "0.0 %",
        "81,000 for training",
    ):
        assert part in text
    assert "5,200 spent by the teacher" in text
    assert re.search(
        r"chat</td><td>CC-BY-4.0</td><td class=\"n\">20 %</td><td>chat.jsonl</td><td class=\"n\">1,250", text
    )
    assert re.search(r"is</td><td class=\"n\">4</td><td class=\"n\">31</td><td>source headings", text)
    assert re.search(r"table of digits</td><td class=\"n\">2</td><td class=\"n\">5</td><td class=\"n\">7,300", text)


def test_a_dataset_over_the_limit_of_over_redaction_is_marked() -> None:
    world = World()
    figures = models_pb2.DatasetFigures(coverage=0.934, over_redaction=1.84, max_over_redaction=1.0)
    world.registry.datasets = [dataset(figures=figures)]
    browser = world.signed_in()
    assert "1.84" in browser.get(PATH).text and "over 1</span>" in browser.get(PATH).text
    figures.over_redaction = 0.3
    world.registry.datasets = [dataset(figures=figures)]
    assert "0.3 " in browser.get(PATH).text and "over 1</span>" not in browser.get(PATH).text
    world.registry.datasets = [dataset(figures=models_pb2.DatasetFigures(coverage=0.9))]
    assert "not measured" in browser.get(PATH).text


def test_a_preference_dataset_has_rows_but_no_coverage() -> None:
    world = World()
    world.registry.datasets = [dataset(kind=models_pb2.DATASET_KIND_PREFERENCE, figures=None)]
    world.synthetic.pages = [[row(rejected="A worse answer.")]]
    text = world.signed_in().get(PATH).text
    assert "Coverage" not in text and "A worse answer." in text


def test_shows_rows_whole_with_their_origin() -> None:
    text = World().signed_in().get(PATH).text
    for part in ("What is due?", "Payment 1.", "Payment 2.", "1,234 tokens", "grounded: yes", "structure"):
        assert part in text
    assert f'href="/documents/{DOCUMENT}"' in text and "Payment 3." not in text


def test_the_next_page_has_the_same_filters() -> None:
    world = World()
    browser = world.signed_in()
    text = browser.get(f"{PATH}?task=answer&document=doc_1&text=due+now&split=train").text
    match = re.search(r'href="([^"]+)">Next page', text)
    assert match
    assert "Payment 3." in browser.get(match.group(1).replace("&amp;", "&")).text
    query = RowQuery(DATASET, "train", "answer", "doc_1", "due now")
    assert world.synthetic.asked == [(query, ""), (query, "1")]
    assert 'value="due now"' in text and '<option value="train" selected>' in text


def test_reads_on_when_a_call_finds_nothing_and_says_how_much_was_read() -> None:
    world = World()
    world.synthetic.pages = [[], [], [row(7)]]
    assert "Payment 7." in world.signed_in().get(PATH).text
    world.synthetic.pages = [[], []]
    assert "No row found among 1,000 rows read." in world.signed_in().get(PATH).text
    world.synthetic.pages = [[]] * 9
    text = world.signed_in().get(PATH).text
    assert "2,000 rows read; more follow." in text and "token=4" in text


def test_names_synthetic_if_it_does_not_answer_and_shows_the_rest() -> None:
    world = World()
    world.synthetic.down = True
    text = world.signed_in().get(PATH).text
    assert "No answer from synthetic." in text and "432 for training" in text


def test_shows_no_rows_of_a_dataset_that_the_visitor_may_not_see() -> None:
    world = World()
    assert world.signed_in(Role.ENGINEER, "other").get(PATH).status_code == 404
    browser = world.signed_in()
    world.registry.down = True
    assert "Payment" not in browser.get(PATH).text
    assert world.synthetic.asked == []


@pytest.mark.parametrize("values", [{"split": "test"}, {"text": "x" * 201}, {"document": "x" * 201}])
def test_refuses_invalid_filters(values: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        RowQuery(DATASET, **values)
    assert World().signed_in().get(PATH, params=values).status_code == 400


def test_a_document_leads_to_its_rows_and_a_row_back() -> None:
    world = World()
    other = models_pb2.Selection(sources=["elsewhere"])
    world.registry.specialists = [specialist(), specialist("letters", selection=other)]
    browser = world.signed_in()
    text = browser.get(f"/documents/{DOCUMENT}").text
    assert f'href="/rows?specialist={NAME}&amp;document={DOCUMENT}"' in text and "letters" not in text
    answer = browser.get(f"/rows?specialist={NAME}&document={DOCUMENT}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{PATH}?document={DOCUMENT}")
    assert f'href="/documents/{DOCUMENT}"' in browser.get(answer.headers["location"]).text
    assert f'href="/documents/{DOCUMENT}"' in browser.get("/documents").text


def test_only_roles_with_datasets_see_the_way_to_rows() -> None:
    browser = World().signed_in(Role.DATA_PROTECTION)
    text = browser.get(f"/documents/{DOCUMENT}").text
    assert "4,201" in text and "/rows?" not in text
    assert browser.get(f"/rows?specialist={NAME}").status_code == 403


def test_an_unknown_document_or_specialist_is_not_found() -> None:
    browser = World().signed_in()
    assert browser.get("/documents/doc_none").status_code == 404
    assert browser.get("/rows?specialist=unknown").status_code == 404
    assert World().signed_in(Role.ENGINEER, "other").get(f"/rows?specialist={NAME}").status_code == 404


def test_a_row_of_several_documents_links_to_each() -> None:
    world = World()
    world.synthetic.pages = [[row(document_ids=["doc_a", "doc_b"], split=synthetic_pb2.SPLIT_HELD_OUT)]]
    text = world.signed_in().get(PATH).text
    assert 'href="/documents/doc_a"' in text and 'href="/documents/doc_b"' in text and "held out</span>" in text
