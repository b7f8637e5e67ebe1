"""Lists: what their addresses ask of the services, and their links."""

import re
from html import unescape

import pytest

from services.console import list_views
from services.console.domain import GIVEN_ROLES, InvitationTerms, Role
from services.console.list_views import ListFilter, ListSpec, ListView, PageColumn, parse_query
from services.console.lists.training import rank_entries
from tailor.api.common.v1.common_pb2 import ListNames, ListQuery
from tailor.api.registry.v1 import registry_pb2
from tailor.api.registry.v1.people_pb2 import ListPeopleRequest
from tailor.api.registry.v1.registry_pb2 import GetLeaderboardResponse, LeaderboardEntry
from tailor.api.training.v1 import training_pb2
from tailor.columns import list_names
from tailor.errors import InvalidArgument
from tests.unit.console.messages import (
    DATASET,
    NAME,
    SYNTHESIS_ID,
    catalogued,
    dataset,
    later,
    rejection,
    run,
)
from tests.unit.console.world import World

SPEC = ListSpec(
    path="/numbers",
    noun="numbers",
    names=ListNames(search="number other_name", order_by="number digits"),
    columns=(
        PageColumn("Number", "number", numeric=True),
        PageColumn("Digits", "digits"),
        PageColumn("Plain", "plain"),
    ),
    choices=(ListFilter("parity", "Parity", (("even", "even"), ("odd", "odd"))), ListFilter("service", "Of a service")),
)
LISTS = (
    "/documents",
    "/documents/rejected",
    "/datasets",
    "/syntheses",
    f"/syntheses/{SYNTHESIS_ID}",
    "/runs",
    "/adapters",
    "/approvals",
    "/specialists",
    "/decisions",
    "/erasures",
    "/residual",
    "/replaced",
    "/keys",
    "/people",
)


def test_a_list_says_what_it_shows_and_links_to_the_rest() -> None:
    view = ListView[int](SPEC, list_views.ListChoice(token="t"), tuple(range(500)), "u")
    assert (view.sentence, view.next_url, view.first_url) == (
        "The next 500 numbers; more follow",
        "/numbers?token=u",
        "/numbers",
    )
    assert ListView[int](SPEC, list_views.ListChoice(), (1, 2), "u").sentence == "The newest 2 numbers; more follow"
    assert (
        ListView[int](SPEC, list_views.ListChoice(search="1"), (1, 2), "u").sentence
        == "The first 2 numbers; more follow"
    )
    assert ListView[int](SPEC, list_views.ListChoice(search="1"), (1,)).sentence == "1 numbers found"
    assert SPEC.searched == "number, other name"


def test_clicking_a_column_turns_its_order_round_and_keeps_the_search() -> None:
    column = SPEC.columns[0]
    view = ListView[int](SPEC, list_views.ListChoice(search="n", filters={"parity": "odd"}, token="t"))
    assert view.order_url(column) == "/numbers?q=n&parity=odd&order_by=number+desc"
    turned = ListView[int](SPEC, list_views.ListChoice(order_by="number desc"))
    assert (turned.order_url(column), turned.direction(column)) == ("/numbers?order_by=number", "descending")


@pytest.mark.parametrize(
    "parameters",
    [
        {"order_by": "plain"},
        {"order_by": "number asc"},
        {"parity": "none"},
        {"q": "x" * 201},
        {"token": "x" * 2001},
    ],
)
def test_an_address_that_no_link_has_is_refused_by_field(parameters: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_query(SPEC, parameters)
    assert set(refused.value.field_violations) == set(parameters)


@pytest.mark.parametrize("path", LISTS)
def test_every_list_is_searched_filtered_and_sorted_by_links_alone(path: str) -> None:
    world = World()
    world.registry.waiting = world.registry.adapters
    world.people.invite(InvitationTerms("Ada Example", Role.EXPERT), "")
    browser = world.signed_in()
    text = browser.get(path).text
    assert 'role="search"' in text and 'name="q"' in text
    for link in {unescape(found) for found in re.findall(r'href="([^"]*[?&]order_by=[^"]+)"', text)}:
        answer = browser.get(link)
        assert answer.status_code == 200 and "aria-sort=" in answer.text, link
    searched = browser.get(f"{path}?q=two+words")
    assert searched.status_code == 200 and "Clear</a>" in searched.text
    assert "two words" in [query.search for query in world.refusals.queries]


@pytest.mark.parametrize("path", [path for path in LISTS if path not in ("/approvals", f"/syntheses/{SYNTHESIS_ID}")])
def test_every_row_has_a_cell_per_column(path: str) -> None:
    world = World()
    world.people.invite(InvitationTerms("Ada Example", Role.EXPERT), "")
    record = registry_pb2.OperatorDecision(specialist=NAME, kind=registry_pb2.OPERATOR_DECISION_KIND_OVERRIDE)
    world.registry.records = [record]
    text = world.signed_in().get(path).text
    if "<table>" not in text:
        pytest.skip("the list is empty")
    table = text.rpartition("<table>")[2].partition("</table>")[0]
    first = table.partition("<tbody>")[2].partition("</tr>")[0]
    assert len(re.findall(r"<th[ >]", table)) == len(re.findall(r"<td[ >]", first)) > 0


def test_the_service_gets_the_search_the_order_and_the_filters_of_the_address() -> None:
    world = World()
    browser = world.signed_in()
    assert browser.get("/runs?q=f0f0&state=FAILED&order_by=loss+desc").status_code == 200
    asked = ListQuery(search="f0f0", order_by="loss desc", filters={"state": "FAILED"})
    assert asked in world.refusals.queries
    assert browser.get("/runs?state=NOWHERE").status_code == browser.get("/runs?order_by=message").status_code == 400


def test_a_visitor_of_several_specialists_gets_full_pages_of_them() -> None:
    world = World()
    assert world.signed_in(Role.ENGINEER, NAME, "memos").get("/runs").status_code == 200
    assert {"specialist": f"{NAME},memos"} in [dict(query.filters) for query in world.refusals.queries]


def test_a_leaderboard_is_searched_filtered_and_ordered_whole() -> None:
    board = GetLeaderboardResponse(
        metric="rouge", entries=[LeaderboardEntry(model=model) for model in ("base", "prompt")]
    )
    board.entries[1].scores["rouge"].value = 0.5

    def models(**parameters: str) -> list[str]:
        return [item.model for item in rank_entries(board, NAME, "ROUGE", parameters).items]

    assert models() == ["base", "prompt"] == models(order_by="score")
    assert models(order_by="score desc") == ["prompt", "base"]
    assert models(q="PROM") == ["prompt"] and models(state="SERVING") == []


@pytest.mark.parametrize("path", ["/runs", "/datasets", "/adapters", "/syntheses", "/approvals", "/documents"])
def test_a_limited_visitor_cannot_filter_by_another_specialist(path: str) -> None:
    browser = World().signed_in(Role.ENGINEER, NAME)
    assert browser.get(f"{path}?specialist=secret-deals").status_code == 404
    assert browser.get(f"{path}?specialist={NAME}").status_code == 200


def test_documents_of_a_dataset_are_those_that_the_registry_lists_for_it() -> None:
    world = World()
    browser = world.signed_in()
    assert f"/documents?dataset={DATASET}" in browser.get(f"/datasets/{DATASET}").text
    assert browser.get(f"/documents?dataset={DATASET}").status_code == 200
    assert world.registry.listed[-1] == ("", DATASET)
    world.registry.datasets = [dataset(specialist="secret-deals")]
    limited = world.signed_in(Role.ENGINEER, NAME)
    assert limited.get(f"/documents?dataset={DATASET}").status_code == 404
    protection = world.signed_in(Role.DATA_PROTECTION)
    assert protection.get(f"/documents?dataset={DATASET}").status_code == 403


def test_rejections_are_listed_however_many_documents_there_are() -> None:
    world = World()
    world.registry.documents = [*(catalogued(number) for number in range(1, 400)), rejection()]
    browser = world.signed_in()
    assert "CORRUPT</code>" in browser.get("/documents/rejected").text


def test_people_are_not_searched_by_name_because_addresses_of_pages_are_logged() -> None:
    world = World()
    world.people.invite(InvitationTerms("Ada Example", GIVEN_ROLES[1], "ada@example.com"), "")
    browser = world.signed_in()
    assert not {"name", "mail"} & {*list_names(ListPeopleRequest).search.split()}
    assert "Ada Example" in browser.get("/people?order_by=name").text


def test_a_hostile_search_is_text() -> None:
    text = World().signed_in().get('/runs?q="><img src=x onerror="alert(1)">').text
    assert "<img src=x" not in text and "&lt;img src=x" in text


def test_the_queue_is_shown_beside_any_search() -> None:
    world = World()
    world.training.runs = [run("queued", run_id="run_waits", create_time=later(3)), run()]
    text = world.signed_in().get("/runs?state=SUCCEEDED").text
    assert ">Queue <" in text and "run_waits" in text
    assert training_pb2.RUN_STATE_QUEUED in {item.state for item in world.training.runs}
