"""Lists: search, filters, order and paging, and a note on the part that was not read."""

import re
from collections.abc import Callable
from html import unescape

import pytest

from services.console.domain import GIVEN_ROLES, InvitationTerms, Page, Role
from services.console.listing import BATCH_ITEMS, ListFilter, ListQuery, ListSpec, PageColumn, parse_query, read_list
from tailor.api.registry.v1 import registry_pb2
from tailor.api.training.v1 import training_pb2
from tailor.errors import InvalidArgument
from tests.unit.console.messages import (
    ADAPTER,
    DATASET,
    NAME,
    OLD_ADAPTER,
    SYNTHESIS_ID,
    adapter,
    catalogued,
    dataset,
    document,
    later,
    rejection,
    run,
    trained,
)
from tests.unit.console.world import World

# An even number of pages of the numbers from 0; three batches of the console's.
NUMBERS = 2_500
SPEC = ListSpec[int](
    path="/numbers",
    noun="numbers",
    columns=(
        PageColumn("Number", "number", float, numeric=True),
        PageColumn("Digits", "digits", str),
        PageColumn("Plain"),
    ),
    text=lambda item: f"n{item:04d}",
    searched="the number",
    choices=(
        ListFilter("parity", "Parity", (("even", "even"), ("odd", "odd")), lambda item: "odd" if item % 2 else "even"),
        ListFilter("service", "Of the service"),
    ),
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


def list_numbers(size: int = 500, asked: list[str] | None = None) -> Callable[[str], Page[int]]:
    def list_page(token: str) -> Page[int]:
        if asked is not None:
            asked.append(token)
        start = int(token or 0)
        following = str(start + size) if start + size < NUMBERS else ""
        return Page(tuple(range(start, min(start + size, NUMBERS))), following)

    return list_page


def is_visible(item: int) -> bool:
    return True


def test_without_search_or_order_a_page_is_the_services_own() -> None:
    asked: list[str] = []
    view = read_list(SPEC, ListQuery(token="500"), list_numbers(asked=asked), is_visible)
    assert (asked, view.items[0], len(view.items), view.next_token) == (["500"], 500, 500, "1000")
    assert (view.sentence, view.next_url, view.first_url) == (
        "The next 500 numbers; older ones follow",
        "/numbers?token=1000",
        "/numbers",
    )


def test_a_search_reads_a_batch_and_says_what_it_did_not_read() -> None:
    view = read_list(SPEC, ListQuery(search="N000 5"), list_numbers(), is_visible)
    assert view.items == (5,)
    assert view.sentence == f"1 found among the newest {BATCH_ITEMS:,} numbers; older ones were not searched"
    assert (view.next_label, view.next_url) == ("Search older ones", "/numbers?q=N000+5&token=1000")
    last = read_list(SPEC, ListQuery(search="n2499", token="2000"), list_numbers(), is_visible)
    assert (last.items, last.sentence, last.next_url) == ((2499,), "1 found among the next 500 numbers", "")


def test_what_was_found_is_paged_before_the_next_batch_is_searched() -> None:
    query = ListQuery(filters={"parity": "odd"}, sort="-number")
    seen: list[int] = []
    for _ in range(40):
        view = read_list(SPEC, query, list_numbers(), is_visible)
        seen += view.items
        if not view.next_url:
            break
        fields = dict(part.split("=") for part in view.next_url.partition("?")[2].split("&"))
        query = parse_query(SPEC, fields)
    # Every odd number once, in the order of each batch.
    assert len(seen) == len(set(seen)) == NUMBERS // 2
    assert seen[:2] == [999, 997] and seen[500] == 1999


def test_a_whole_list_is_said_to_be_whole() -> None:
    view = read_list(SPEC, ListQuery(sort="digits"), lambda token: Page((10, 9, 1)), lambda item: item != 1)
    assert (view.items, view.sentence) == ((10, 9), "2 found among all 2 numbers")


def test_a_filter_of_the_service_reads_no_batch() -> None:
    asked: list[str] = []
    view = read_list(SPEC, ListQuery(filters={"service": "x"}), list_numbers(asked=asked), is_visible)
    assert (asked, len(view.items), view.worked, view.clear_url) == ([""], 500, False, "/numbers")


def test_clicking_a_column_turns_its_order_round_and_keeps_the_search() -> None:
    column = SPEC.columns[0]
    view = read_list(SPEC, ListQuery(search="n", filters={"parity": "odd"}), list_numbers(), is_visible)
    assert view.sort_url(column) == "/numbers?q=n&parity=odd&sort=-number"
    turned = read_list(SPEC, ListQuery(sort="-number"), list_numbers(), is_visible)
    assert (turned.sort_url(column), turned.direction(column)) == ("/numbers?sort=number", "descending")


@pytest.mark.parametrize(
    "parameters",
    [
        {"sort": "plain"},
        {"parity": "none"},
        {"q": "x" * 201},
        {"from": "-1"},
        {"from": "9" * 30},
        {"token": "x" * 1001},
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
    for link in {unescape(found) for found in re.findall(r'href="([^"]*[?&]sort=[^"]+)"', text)}:
        answer = browser.get(link)
        assert answer.status_code == 200 and "aria-sort=" in answer.text, link
    nothing = browser.get(f"{path}?q=nothing-has-this-in-it")
    assert nothing.status_code == 200
    assert "0 found among all" in nothing.text and "Clear</a>" in nothing.text


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


def test_runs_are_found_by_what_they_learned_from_and_sorted_by_loss() -> None:
    world = World()
    world.training.runs = [
        run("failed", step=90, run_id="run_low", reason="BAD"),
        run(run_id="run_high"),
        run("failed", step=10, run_id="run_top", dataset_digest="f" * 64),
    ]
    browser = world.signed_in()

    def shown(query: str) -> list[str]:
        return re.findall(r'name="run" value="(\w+)"', browser.get(f"/runs?{query}").text)

    assert shown("sort=loss") == ["run_low", "run_high", "run_top"]
    assert shown("state=FAILED&sort=-loss") == ["run_top", "run_low"]
    assert shown(f"q={'f' * 64}") == ["run_top"]
    assert browser.get("/runs?state=NOWHERE").status_code == 400


def test_the_services_filter_by_specialist() -> None:
    world = World()
    world.registry.adapters = [adapter(), adapter(trained(OLD_ADAPTER, specialist="memos"))]
    world.registry.datasets = [dataset(), dataset(digest="f" * 64, specialist="memos")]
    browser = world.signed_in()
    for path, mine, other in (("/adapters", ADAPTER, OLD_ADAPTER), ("/datasets", DATASET, "f" * 64)):
        text = browser.get(f"{path}?specialist=memos").text
        assert mine not in text.partition("<tbody>")[2] and other in text


@pytest.mark.parametrize("path", ["/runs", "/datasets", "/adapters", "/syntheses", "/approvals", "/documents"])
def test_a_limited_visitor_cannot_filter_by_another_specialist(path: str) -> None:
    browser = World().signed_in(Role.ENGINEER, NAME)
    assert browser.get(f"{path}?specialist=secret-deals").status_code == 404
    assert browser.get(f"{path}?specialist={NAME}").status_code == 200


def test_a_document_is_found_by_its_id_without_reading_the_others() -> None:
    world = World()
    world.registry.documents = [catalogued(number) for number in range(1, 200)]
    browser = world.signed_in()
    wanted = document(150).document_id
    text = browser.get(f"/documents?q={wanted}").text
    assert "1 found among all 1 documents" in text and wanted in text and world.registry.listed == []
    assert "0 found among all 0 documents" in browser.get(f"/documents?q=doc_{'e' * 32}").text


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
    assert "CORRUPT</code>" in browser.get("/documents/rejected?reason=CORRUPT&q=whole").text
    assert "CORRUPT</code>" not in browser.get("/documents/rejected?reason=DUPLICATE").text


def test_people_are_not_searched_by_name_because_addresses_of_pages_are_logged() -> None:
    world = World()
    world.people.invite(InvitationTerms("Ada Example", GIVEN_ROLES[1], "ada@example.com"), "")
    browser = world.signed_in()
    assert "0 found among all 1 people" in browser.get("/people?q=ada").text
    assert "Ada Example" in browser.get("/people?sort=name").text


def test_a_hostile_search_is_text() -> None:
    text = World().signed_in().get('/runs?q="><img src=x onerror="alert(1)">').text
    assert "<img src=x" not in text and "&lt;img src=x" in text


def test_the_queue_is_shown_beside_any_search() -> None:
    world = World()
    world.training.runs = [run("queued", run_id="run_waits", create_time=later(3)), run()]
    text = world.signed_in().get("/runs?state=SUCCEEDED").text
    assert ">Queue <" in text and "run_waits" in text
    assert training_pb2.RUN_STATE_QUEUED in {item.state for item in world.training.runs}
