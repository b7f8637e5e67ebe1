"""Every page of the console on a laptop and on a telephone, in light and dark: it fits, and axe finds nothing."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from fastapi.routing import APIRoute

from services.console.domain import InvitationTerms, Role
from services.console.web.app import MODULES
from tests.integration.accessibility import find_violations, set_color_scheme
from tests.integration.browser import BrowserPage, find_browser, open_browser
from tests.integration.console_pages import serve_console
from tests.integration.console_world import LONG, OWN_ID, make_world
from tests.integration.page_layout import find_overflow, find_scrolling, find_silent_scrolling
from tests.unit.console.judging_fakes import FIRST, FOURTH, SECOND, THIRD
from tests.unit.console.messages import ADAPTER, DATASET, DRAFT, KEY, RUN, SYNTHESIS_ID
from tests.unit.console.test_navigation import MAIN_PAGES
from tests.unit.console.world import World, sign_in

pytestmark = pytest.mark.integration

LAPTOP, PHONE = (1366, 768), (390, 844)
OPERATOR_PAGES = (
    "/flow",
    f"/flow?specialist={LONG}",
    "/documents",
    "/documents/rejected",
    f"/documents/own?id={quote(OWN_ID, safe='')}",
    f"/documents/doc_{1:032x}",
    "/audit",
    "/decisions",
    "/datasets",
    f"/datasets/{DATASET}",
    "/syntheses",
    f"/syntheses/{SYNTHESIS_ID}",
    "/runs",
    f"/runs/compare?run={RUN}",
    f"/runs/{RUN}",
    f"/runs/new?dataset={DATASET}",
    "/adapters",
    f"/evaluations/{ADAPTER}",
    f"/evaluations/compare?first={ADAPTER}:base&second={ADAPTER}",
    "/approvals",
    "/bases",
    "/specialists",
    f"/specialists/{LONG}",
    f"/specialists/{LONG}/edit",
    f"/specialists/{LONG}/guidelines",
    f"/specialists/{LONG}/definition",
    f"/specialists/{LONG}/leaderboard",
    "/new-specialist",
    "/ask",
    "/drafts",
    f"/drafts/{DRAFT}",
    "/residual",
    "/erasures",
    "/keys",
    "/people",
    "/no-such-page",
)
PAGES: Mapping[Role | None, tuple[str, ...]] = {
    Role.OPERATOR: OPERATOR_PAGES,
    Role.EXPERT: ("/judge", "/judge/own"),
    Role.DATA_PROTECTION: (
        "/review",
        "/residual",
        "/residual/doc_1/3",
        "/replaced",
        "/replaced/string?entity_type=PERSON&surrogate=winters",
    ),
    None: ("/login", "/invitation"),
}
# Addresses that are no pages: what scripts read, a picture, and ways to other pages.
NO_PAGES = re.compile(r"/$|/api/|/openid/|/rows|/evaluations/{digest}/plot.png")
# A page, and what is done on it to get another page as the answer.
FORMS = (
    ("/keys", "document.querySelector('form[action=\"/keys\"] input[name=name]').value = 'CI publisher'", "/keys"),
    ("/people", "document.querySelector('form[action=\"/people\"] input[name=name]').value = 'Ada Example'", "/people"),
    (f"/specialists/{LONG}/edit", "", f"/specialists/{LONG}/preview"),
    (f"/specialists/{LONG}/definition", "", f"/specialists/{LONG}/definition/preview"),
    (f"/runs/new?dataset={DATASET}", "", "/runs/plan"),
)


@dataclass
class Browser:
    """A browser that can be each of the console's visitors."""

    world: World
    address: str
    page: BrowserPage
    cookies: dict[Role | None, list[tuple[str, str]]] = field(default_factory=lambda: {None: []})

    def sign_in(self, role: Role) -> None:
        with httpx.Client(base_url=self.address) as client:
            sign_in(client, self.world.key(role))
            self.cookies[role] = [(cookie.name, cookie.value or "") for cookie in client.cookies.jar]

    def open(self, role: Role | None, path: str, size: tuple[int, int]) -> BrowserPage:
        """Show a page to a visitor, on a touch screen if it is a telephone's size."""
        self.page.call("Network.clearBrowserCookies")
        for name, value in self.cookies[role]:
            self.page.set_cookie(self.address, name, value)
        self.page.call("Emulation.setTouchEmulationEnabled", enabled=size == PHONE)
        self.page.open(f"{self.address}{path}", *size)
        assert self.page.evaluate("document.location.pathname") == path.partition("?")[0]
        return self.page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    world, folder = make_world(), tmp_path_factory.mktemp("profile")
    with serve_console(world.services) as address, open_browser(program, Path(folder)) as page:
        visitors = Browser(world, address, page)
        for role in Role:
            visitors.sign_in(role)
        yield visitors


def check_page(page: BrowserPage, size: tuple[int, int]) -> list[str]:
    """What is wrong with the page: it does not fit, it breaks its policy, or axe finds something."""
    wrong = [f"runs out of its place: {text}" for text in find_overflow(page)]
    hidden = find_scrolling(page) if size == LAPTOP else find_silent_scrolling(page)
    wrong += [f"hidden to the side: {text}" for text in hidden]
    width = page.evaluate("document.documentElement.scrollWidth")
    wrong += [f"the page is {width} px wide"] if width > size[0] else []
    for scheme in ("dark", "light"):
        set_color_scheme(page, scheme)
        wrong += [f"{scheme}: {violation}" for violation in find_violations(page)]
    # The browser reports an answer like 404 too, which is what the page is about.
    return wrong + [error for error in page.errors if not error.startswith("network: Failed to load resource")]


def test_no_page_is_skipped() -> None:
    routes = [route for module in MODULES for route in module.router.routes if isinstance(route, APIRoute)]
    pages = [route for route in routes if "GET" in route.methods and not NO_PAGES.match(route.path)]
    opened = [path.partition("?")[0] for paths in PAGES.values() for path in paths]
    assert [page.path for page in pages if not any(page.path_regex.match(path) for path in opened)] == []


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
@pytest.mark.parametrize(("role", "path"), [(role, path) for role, paths in PAGES.items() for path in paths])
def test_a_page_fits_and_axe_finds_nothing(
    browser: Browser, role: Role | None, path: str, size: tuple[int, int]
) -> None:
    page = browser.open(role, path, size)
    if path == f"/runs/{RUN}":
        page.wait_for("!!document.querySelector('.chart svg') && !!document.querySelector('.log .error')")
    assert check_page(page, size) == []


@pytest.fixture
def scriptless(browser: Browser) -> Iterator[Browser]:
    """The browser with scripts of pages turned off."""
    browser.page.call("Emulation.setScriptExecutionDisabled", value=True)
    yield browser
    browser.page.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("role", list(Role))
def test_each_row_of_the_navigation_is_one_line_on_a_laptop_and_needs_no_script(
    scriptless: Browser, role: Role
) -> None:
    page = scriptless.open(role, MAIN_PAGES[role], LAPTOP)
    page.evaluate("document.querySelector('.who span').textContent = 'Wide Name '.repeat(6)")
    heights = "[...document.querySelectorAll('.top nav')].map((nav) => nav.offsetHeight)"
    assert 0 < max(page.evaluate(heights)) < 40
    is_one_line = "document.querySelector('.who').offsetTop < document.querySelector('.top nav').offsetTop + 20"
    assert page.evaluate(is_one_line)
    # By the keyboard, to the next group and into it.
    page.evaluate("document.querySelector('.top nav a:not([aria-current])').focus()")
    target = page.evaluate("document.activeElement.getAttribute('href')")
    page.press("Enter")
    page.wait_for_page()
    assert page.evaluate("document.location.pathname") == target
    assert page.evaluate("document.querySelectorAll('.top nav [aria-current=page]').length") == 1


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
@pytest.mark.parametrize(("path", "fill", "answer"), FORMS)
def test_the_answer_to_a_form_fits_and_axe_finds_nothing(
    browser: Browser, path: str, fill: str, answer: str, size: tuple[int, int]
) -> None:
    page = browser.open(Role.OPERATOR, path, size)
    page.evaluate(f"window.confirm = () => true; {fill}")
    page.evaluate("document.querySelector('main form[method=post] button').form.requestSubmit()")
    page.wait_for_page()
    assert page.evaluate("document.location.pathname") == answer
    assert page.evaluate("document.querySelector('main [role=status]') !== null")
    assert check_page(page, size) == []


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_a_refused_sign_in_and_a_new_secret_fit_and_axe_finds_nothing(browser: Browser, size: tuple[int, int]) -> None:
    page = browser.open(None, "/login", size)
    page.evaluate("document.querySelector('input[name=secret]').value = 'wrong'")
    page.evaluate("document.querySelector('main form').requestSubmit()")
    page.wait_for_page()
    assert page.evaluate("document.querySelector('[role=alert]') !== null")
    assert check_page(page, size) == []
    invitation = browser.world.people.invite(InvitationTerms("Ada Example", Role.EXPERT), KEY)
    browser.open(None, "/invitation", size)
    page.evaluate(f"document.querySelector('#code').value = '{invitation.code}'")
    page.evaluate("document.querySelector('main form').requestSubmit()")
    page.wait_for_page()
    assert "tlp_" in page.evaluate("document.querySelector('.secret').innerText")
    assert check_page(page, size) == []


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_answers_to_compare_fit_and_axe_finds_nothing(browser: Browser, size: tuple[int, int]) -> None:
    page = browser.open(Role.OPERATOR, f"/ask?specialist={LONG}", size)
    page.evaluate("document.querySelector('[name=prompt]').value = 'Write it.'")
    page.evaluate("document.querySelector('#go').click()")
    page.wait_for("!document.querySelector('#judge').hidden")
    assert "Second" in page.evaluate("document.querySelector('#judge .choices').innerText")
    assert check_page(page, size) == []


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
@pytest.mark.parametrize("drafts", [(FIRST, SECOND), (FIRST, SECOND, THIRD, FOURTH)])
def test_the_decision_of_the_desk_is_seen_without_scrolling_and_at_its_end(
    browser: Browser, drafts: tuple[str, ...], size: tuple[int, int]
) -> None:
    browser.world.judging.drafts = drafts
    page = browser.open(Role.EXPERT, "/judge", size)
    seen = """['.decision legend', '.decision .choice:last-of-type', '#record'].every((name) => {
      const frame = document.querySelector(name).getBoundingClientRect();
      const top = document.elementFromPoint(frame.left + frame.width / 2, frame.top + frame.height / 2);
      return frame.top >= 0 && frame.bottom <= window.innerHeight && document.querySelector('.decision').contains(top);
    })"""
    assert page.evaluate("window.scrollY") == 0
    assert page.evaluate(seen)
    # The marks come after the decision, and the decision stays while they are given.
    order = "document.querySelector('.decision').compareDocumentPosition(document.querySelector('[data-marks]'))"
    assert page.evaluate(order) == 4
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for("window.scrollY > 0")
    assert page.evaluate(seen)
    assert check_page(page, size) == []
    browser.world.judging.drafts = (FIRST, SECOND)


def test_a_telephone_shows_no_keys_and_calls_no_draft_left_or_right(browser: Browser) -> None:
    page = browser.open(Role.EXPERT, "/judge", PHONE)
    page.evaluate("document.querySelector('#record').click()")
    text = str(page.evaluate("document.querySelector('main').innerText"))
    assert "First draft" in text and "Second draft" in text
    assert "Choose which draft is better." in text
    assert not any(word in text for word in ("Left", "Right", "Enter", "Esc", "Backspace", "shortcuts", "←"))


def test_the_flow_shows_the_specialist_that_is_chosen(browser: Browser) -> None:
    page = browser.open(Role.OPERATOR, "/flow", LAPTOP)
    run = "document.querySelector('[data-stage=run] strong').innerText"
    assert page.evaluate(run) == "succeeded"
    page.evaluate(f"document.querySelector('#specialist').value = '{LONG}'")
    page.evaluate("document.querySelector('.chooser button').click()")
    page.wait_for_page()
    assert page.evaluate(run) == "33 %"
    # Also what the page's script asks for every two seconds.
    page.evaluate("document.querySelector('[data-stage=run] strong').innerText = ''")
    page.wait_for(f"{run} === '33 %'")
    assert page.evaluate("document.querySelector('[data-stage=rows] strong').innerText") == "1,100,000,000"


def test_the_measures_find_what_runs_out_of_its_card_and_what_is_hidden(browser: Browser) -> None:
    page = browser.open(Role.OPERATOR, "/audit", PHONE)
    page.evaluate("document.querySelector('.card dd').style.whiteSpace = 'nowrap'")
    page.evaluate("document.querySelector('.card dd').textContent = 'x'.repeat(90)")
    assert any(text.startswith("section.card") for text in find_overflow(page))
    page.evaluate("document.querySelector('.scroll').removeAttribute('tabindex')")
    assert any(text.startswith("div.scroll") for text in find_silent_scrolling(page))


@pytest.mark.parametrize("path", [f"/evaluations/{ADAPTER}", "/approvals"])
@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_the_columns_that_decide_are_seen_without_scrolling_to_the_side(
    browser: Browser, path: str, size: tuple[int, int]
) -> None:
    page = browser.open(Role.OPERATOR, path, size)
    cells = "[...document.querySelector('table.scores tbody tr').children].slice(0, 2)"
    assert max(page.evaluate(f"{cells}.map((cell) => cell.getBoundingClientRect().right)")) <= size[0]
    gains = " ".join(page.evaluate(f"{cells}[1].innerText").split())
    assert all(f"{model} +" in gains for model in ("base", "few shot", "incumbent"))


def test_the_browser_reports_what_the_policy_refuses(browser: Browser) -> None:
    page = browser.open(Role.OPERATOR, f"/evaluations/{ADAPTER}", PHONE)
    page.evaluate("document.body.setAttribute('style', 'color: red')")
    page.evaluate("1")
    assert any("Content Security Policy" in error for error in page.errors)
