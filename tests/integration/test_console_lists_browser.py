"""Lists that are searched by the keyboard, and inputs that keep their focus while a page renews its parts."""

from collections.abc import Iterator

import pytest

from services.console.domain import Role
from tests.integration.browser import BrowserPage
from tests.integration.console_pages import open_signed_in, serve_console
from tests.integration.console_world import make_world
from tests.unit.console.messages import NAME, RUN
from tests.unit.console.world import World

pytestmark = pytest.mark.integration

WIDTH, HEIGHT = 1366, 768


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def address(world: World) -> Iterator[str]:
    """A console that listens on a free port."""
    world.key(Role.OPERATOR)
    with serve_console(world.services) as console:
        yield console


@pytest.fixture(scope="module")
def page(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserPage]:
    """A browser that is signed in as an operator."""
    with open_signed_in(address, f"tlr_{Role.OPERATOR.value}_0", tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def test_a_list_is_searched_by_the_keyboard_and_shared_by_its_address(
    page: BrowserPage, address: str, world: World
) -> None:
    page.open(f"{address}/adapters", WIDTH, HEIGHT)
    page.evaluate("document.querySelector('input[type=search]').focus()")
    for letter in "bbbb":
        page.press(letter)
    page.press("Enter")
    page.wait_for("document.location.search.includes('q=bbbb')")
    assert "bbbb" in [query.search for query in world.refusals.queries]
    page.wait_for("document.querySelector('input[type=search]')?.value === 'bbbb'")


def test_an_input_keeps_its_focus_and_its_text_while_its_page_renews(
    page: BrowserPage, address: str, world: World
) -> None:
    page.open(f"{address}/specialists/{NAME}", WIDTH, HEIGHT)
    # The reason of a deletion, and an input within the part that is renewed.
    page.evaluate("document.querySelector('details').open = true; document.querySelector('input[name=reason]').focus()")
    for letter in "twins":
        page.press(letter)
    before = world.synthetic.states[0].sentence
    world.synthetic.states[0].sentence = "The state has moved on."
    try:
        page.wait_for("document.querySelector('#steps').innerText.includes('The state has moved on.')")
    finally:
        world.synthetic.states[0].sentence = before
    assert page.evaluate("document.activeElement.name + ' ' + document.activeElement.value") == "reason twins"
    page.press("!")
    assert page.evaluate("document.activeElement.value") == "twins!"


def test_a_part_with_the_focus_waits_to_be_renewed(page: BrowserPage, address: str, world: World) -> None:
    page.open(f"{address}/specialists/{NAME}", WIDTH, HEIGHT)
    page.evaluate(
        "const field = document.createElement('input'); field.id = 'typed'; document.querySelector('#steps').append(field); field.focus()"
    )
    page.press("x")
    before = world.synthetic.states[0].sentence
    world.synthetic.states[0].sentence = "Another state."
    try:
        # Two rounds of renewal.
        page.evaluate(
            "window.renewals = 0; const real = window.fetch; window.fetch = (...given) => real(...given).finally(() => { window.renewals += 1; })"
        )
        page.wait_for("window.renewals >= 2")
        assert page.evaluate("document.activeElement.id + document.activeElement.value") == "typedx"
        page.evaluate("document.querySelector('#typed').remove()")
        page.wait_for("document.querySelector('#steps').innerText.includes('Another state.')")
    finally:
        world.synthetic.states[0].sentence = before


def test_a_run_that_streams_keeps_the_focus_of_its_buttons(page: BrowserPage, address: str) -> None:
    page.open(f"{address}/runs/{RUN}", WIDTH, HEIGHT)
    page.evaluate("document.querySelector('#run-actions button').focus()")
    page.evaluate(
        "window.renewals = 0; const real = window.fetch; window.fetch = (...given) => real(...given).finally(() => { window.renewals += 1; })"
    )
    page.evaluate("refreshParts(['run-actions', 'run-state'])")
    page.wait_for("window.renewals >= 1")
    assert page.evaluate("document.activeElement.innerText") == "Cancel the run"


def test_a_renewed_button_still_asks_before_it_cancels(page: BrowserPage, address: str, world: World) -> None:
    page.open(f"{address}/runs/{RUN}", WIDTH, HEIGHT)
    page.evaluate("window.asked = []; window.confirm = (question) => { window.asked.push(question); return false; }")
    page.evaluate(
        "document.activeElement.blur(); window.done = false; refreshParts(['run-actions']).then(() => { window.done = true; })"
    )
    page.wait_for("window.done")
    page.evaluate("document.querySelector('#run-actions button').click()")
    assert page.evaluate("window.asked.length") == 1 and world.training.cancelled == []
