"""Pages in a browser: as wide as a laptop and as a telephone, and under the security policy that they are sent with."""

from collections.abc import Iterator
from typing import Any

import pytest

from services.console.domain import InvitationTerms, Role
from tailor.api.registry.v1 import registry_pb2
from tests.evaluations import make_evaluated, make_figures
from tests.integration.browser import BrowserPage
from tests.integration.console_pages import open_signed_in, serve_console
from tests.unit.console.messages import ADAPTER, NAME, adapter, run
from tests.unit.console.world import World

pytestmark = pytest.mark.integration

SIZES = ((1366, 768), (390, 844))
REPORT = "| metric | base | few_shot | candidate | rows |\n|---|---:|---:|---:|---:|\n" + "".join(
    f"| metric_{number} | 0.1200 (0.1150 to 0.1250) | 0.1800 (0.1750 to 0.1850) | 0.2300 (0.2250 to 0.2350) | 48 |\n"
    for number in range(8)
)
PATHS = (
    f"/evaluations/{ADAPTER}",
    f"/evaluations/compare?first={ADAPTER}:base&second={ADAPTER}",
    f"/specialists/{NAME}/leaderboard",
    f"/specialists/{NAME}/guidelines",
    "/approvals",
    "/adapters",
    "/people",
)
# The right ends of the first metric's name and of its gains, in pixels.
ENDS = "[...document.querySelector('table.scores tbody tr').children].slice(0, 2).map(cell => cell.getBoundingClientRect().right)"


def make_world() -> World:
    """An adapter that waits for approval, measured against all kinds of models."""
    world = World()
    for number in range(3):
        terms = InvitationTerms(f"Ada Example, the {number}.", Role.EXPERT, f"ada.{number}@example.com", (NAME,))
        world.people.invite(terms, "key_0011223344556677")
    models: dict[str, Any] = {
        "base": 0.12,
        "few_shot": 0.18,
        "prompt": 0.17,
        "external:paid": 0.22,
        "incumbent": 0.2,
        "candidate": 0.23,
    }
    names = ("log_likelihood", "rougeL", "key_insights_f1.recommendations", "fabrication.names")
    evaluation = make_evaluated(ADAPTER, NAME, *(make_figures(name, **models) for name in names))
    world.registry.adapters = [
        adapter(evaluation=evaluation, reasons=["rougeL gains +0.110 (95 %: +0.105 to +0.115, 16 rows) over base"])
    ]
    world.registry.adapters[0].state = registry_pb2.ADAPTER_STATE_WAITING_FOR_APPROVAL
    world.registry.waiting = world.registry.adapters
    world.training.runs = [run("succeeded")]
    answer = world.evaluation.answers[ADAPTER]
    answer.result.CopyFrom(evaluation)
    answer.report_markdown = REPORT
    return world


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A console that listens on a free port."""
    world = make_world()
    world.key(Role.OPERATOR)
    with serve_console(world.services()) as console:
        yield console


@pytest.fixture(scope="module")
def page(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserPage]:
    """A browser that is signed in as an operator."""
    with open_signed_in(address, f"tlr_{Role.OPERATOR.value}_0", tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_page_fits_its_window_and_breaks_no_rule_of_its_policy(
    page: BrowserPage, address: str, path: str, width: int, height: int
) -> None:
    page.open(f"{address}{path}", width, height)
    assert page.evaluate("document.location.pathname") == path.partition("?")[0]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.errors == []


@pytest.mark.parametrize("path", [PATHS[0], "/approvals"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_columns_that_decide_are_seen_without_scrolling_to_the_side(
    page: BrowserPage, address: str, path: str, width: int, height: int
) -> None:
    page.open(f"{address}{path}", width, height)
    assert max(page.evaluate(ENDS)) <= width
    gains = page.evaluate("document.querySelector('table.scores tbody td.n').innerText")
    assert all(f"{model} +" in " ".join(gains.split()) for model in ("base", "few shot", "incumbent"))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_states_of_the_flow_fit_their_cards(page: BrowserPage, address: str, width: int, height: int) -> None:
    page.open(f"{address}/", width, height)
    texts = page.evaluate(
        "[...document.querySelectorAll('.stage strong')].map(e => [e.innerText, e.scrollWidth - e.clientWidth])"
    )
    assert "succeeded" in [text for text, _ in texts]
    assert [text for text, excess in texts if excess > 0] == []


def test_the_browser_reports_what_the_policy_refuses(page: BrowserPage, address: str) -> None:
    page.open(f"{address}{PATHS[0]}", 390, 844)
    page.evaluate("document.body.setAttribute('style', 'color: red')")
    page.evaluate("1")
    assert any("Content Security Policy" in error for error in page.errors)
