"""An expert at the judging page with a keyboard only: what is recorded, after how many keys, and where the focus is."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from services.console.domain import GivenMark, Judgement, Role
from tailor.errors import FailedPrecondition, Reason
from tailor.values import DEFAULT_JUDGING_CRITERIA
from tests.integration.accessibility import find_violations, set_color_scheme
from tests.integration.browser import BrowserPage
from tests.integration.console_pages import open_signed_in, serve_console
from tests.integration.page_layout import find_overflow
from tests.unit.console.fake_models import text
from tests.unit.console.judging_fakes import EDITED, FIRST, FOURTH, SECOND, THIRD
from tests.unit.console.messages import DRAFT, NAME
from tests.unit.console.test_judging import trace_pair
from tests.unit.console.world import World

pytestmark = pytest.mark.integration

# The product's promise for a judgement without a comment.
MAX_KEYS = 12
PROMPT = ("user", "Write the position of Brightwater.")
FOCUS = "document.activeElement.id || document.activeElement.tagName"
CTRL = 2


@pytest.fixture(scope="module")
def world() -> World:
    world = World()
    world.registry.specialists[0].specialist.keep_drafts = True
    for draft_id, answer in (
        (FIRST, "# Position\n\nThe cash holds.\n\n| a | b |\n|---|---:|\n| 1 | 2 |\n"),
        (SECOND, "# Position\n\n" + "The cash falls. " * 40),
        (THIRD, "The cash rises."),
        (FOURTH, "## Position\n\n1. The cash is stable."),
    ):
        world.inference.texts[draft_id] = text("KEPT", PROMPT, answer=answer)
        world.inference.texts[draft_id].draft_id = draft_id
    return world


@pytest.fixture(scope="module")
def address(world: World) -> Iterator[str]:
    """A console that listens on a free port."""
    world.key(Role.EXPERT)
    with serve_console(world.services) as console:
        yield console


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserPage]:
    """A browser that is signed in as an expert."""
    with open_signed_in(address, f"tlr_{Role.EXPERT.value}_0", tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def desk(browser: BrowserPage, address: str, world: World) -> BrowserPage:
    """The judging page with a new pair."""
    world.registry.judgements.clear()
    world.judging.skipped.clear()
    world.judging.drafts = (FIRST, SECOND)
    world.inference.edits.clear()
    trace_pair(world)
    browser.open(f"{address}/judge?specialist={NAME}", 1366, 768)
    return browser


def press(page: BrowserPage, *keys: str) -> int:
    """Press the keys, of which the last shows the next page; returns their number."""
    for key in keys:
        page.press(key)
    page.wait_for_page()
    return len(keys)


def marks(draft_id: str, *values: int) -> tuple[GivenMark, ...]:
    """Marks of a draft by the built-in criteria; 0 means no mark."""
    names = [criterion.name for criterion in DEFAULT_JUDGING_CRITERIA]
    return tuple(GivenMark(draft_id, name, value) for name, value in zip(names, values, strict=False) if value)


def recorded(world: World) -> list[Judgement]:
    """The judgements without the time that they took."""
    return [replace(judgement, seconds=0.0) for judgement in world.registry.judgements.values()]


@pytest.mark.parametrize(
    ("keys", "judgement"),
    [
        (("ArrowLeft", "4", "3", "5", "Enter"), Judgement((FIRST, SECOND), marks(FIRST, 4, 3, 5))),
        (("ArrowRight", "Enter"), Judgement((SECOND, FIRST))),
        (
            ("ArrowLeft", "ArrowRight", "1", "2", "Backspace", "3", "4", "Enter"),
            Judgement((SECOND, FIRST), marks(FIRST, 1, 3, 4)),
        ),
        (
            ("4", "3", "0", "2", "0", "1", "7", "ArrowLeft", "Enter"),
            Judgement((FIRST, SECOND), (*marks(FIRST, 4, 3), *marks(SECOND, 2, 0, 1))),
        ),
        (("ArrowLeft", "5", "e", "Enter"), Judgement((FIRST, SECOND), marks(FIRST, 5), outcome="tie")),
        (("d", "b", "Enter"), Judgement((FIRST, SECOND), outcome="both_bad")),
    ],
)
def test_a_judgement_takes_a_few_keys_and_the_next_pair_has_the_focus(
    desk: BrowserPage, world: World, keys: tuple[str, ...], judgement: Judgement
) -> None:
    assert desk.evaluate(FOCUS) == "desk"
    assert press(desk, *keys) <= MAX_KEYS
    assert recorded(world) == [judgement]
    assert desk.evaluate(FOCUS) == "desk"
    assert desk.errors == []


def test_a_pair_is_skipped_by_key(desk: BrowserPage, world: World) -> None:
    press(desk, "s")
    assert len(world.judging.skipped) == 1 and not world.registry.judgements


def test_the_last_decision_is_taken_back_by_key(browser: BrowserPage, address: str, world: World) -> None:
    for path in ("/judge", "/judge/own"):
        world.judging.last_decision = "17"
        browser.open(f"{address}{path}?specialist={NAME}", 1366, 768)
        press(browser, "u")
        assert browser.evaluate("location.pathname") == "/judge" and browser.evaluate(FOCUS) == "desk"
    assert len(world.judging.undone) == 2


def test_nothing_is_recorded_before_a_choice(desk: BrowserPage, world: World) -> None:
    for key in ("4", "Enter"):
        desk.press(key)
    assert "better" in desk.evaluate("document.querySelector('#said').textContent")
    assert not world.registry.judgements


def test_shortcuts_are_letters_in_a_comment_and_the_field_keeps_the_focus(desk: BrowserPage, world: World) -> None:
    desk.press("ArrowLeft")
    desk.press("c")
    for letter in "sbed 4":
        desk.press(letter)
        assert desk.evaluate(FOCUS) == "comment"
    desk.press("Escape")
    assert desk.evaluate(FOCUS) == "desk"
    desk.press("c")
    desk.press("Enter", text="\n")
    desk.press("Enter", modifiers=CTRL)
    desk.wait_for_page()
    (judgement,) = recorded(world)
    assert judgement == Judgement((FIRST, SECOND), comment="sbed 4")


def press_with_text(page: BrowserPage, text: str) -> None:
    for letter in text:
        page.press(letter)


EDITOR = "document.querySelector('#edit-0')"


def test_the_better_draft_is_edited_by_keyboard_and_recorded_above_both(desk: BrowserPage, world: World) -> None:
    desk.press("w")
    assert "better" in desk.evaluate("document.querySelector('#said').textContent")
    desk.press("ArrowLeft")
    desk.press("4")
    desk.press("w")
    assert desk.evaluate(FOCUS) == "edit-0"
    assert desk.evaluate(f"{EDITOR}.value") == world.inference.texts[FIRST].answer
    press_with_text(desk, "web ")
    assert desk.evaluate(FOCUS) == "edit-0" and desk.evaluate("decide.elements.decision.value") == "first"
    desk.press("Escape")
    assert desk.evaluate(FOCUS) == "desk" and not desk.evaluate(f"{EDITOR}.closest('[data-edit]').hidden")
    desk.press("w")
    press_with_text(desk, "A ")
    desk.press("Enter", modifiers=CTRL)
    desk.wait_for_page()
    assert world.inference.edits == [(FIRST, "A web " + world.inference.texts[FIRST].answer)]
    assert recorded(world) == [Judgement((EDITED, FIRST, SECOND), marks(FIRST, 4))]
    assert desk.evaluate(FOCUS) == "desk" and desk.errors == []


def test_an_editor_without_a_change_and_a_discarded_edit_record_a_plain_ranking(
    desk: BrowserPage, world: World
) -> None:
    for key in ("ArrowRight", "w", "Escape"):
        desk.press(key)
    press(desk, "Enter")
    for key in ("ArrowRight", "w", "x"):
        desk.press(key)
    desk.evaluate("document.querySelector('[data-edit=\"1\"] [data-discard]').click()")
    assert desk.evaluate(FOCUS) == "desk"
    press(desk, "Enter")
    assert recorded(world) == [Judgement((SECOND, FIRST))] * 2
    assert not world.inference.edits


def test_a_refused_edit_keeps_the_text_and_says_why(desk: BrowserPage, world: World) -> None:
    world.inference.down = True
    try:
        for key in ("ArrowLeft", "w", "x"):
            desk.press(key)
        desk.press("Enter", modifiers=CTRL)
        desk.wait_for("document.querySelector('#said').textContent.includes('does not answer')")
    finally:
        world.inference.down = False
    assert desk.evaluate(f"{EDITOR}.value").startswith("x#") and not world.registry.judgements
    desk.press("Enter", modifiers=CTRL)
    desk.wait_for_page()
    assert len(world.registry.judgements) == 1


@pytest.mark.parametrize("size", [(1366, 768), (390, 844)])
def test_the_editor_fits_its_window(browser: BrowserPage, address: str, size: tuple[int, int]) -> None:
    browser.open(f"{address}/judge?specialist={NAME}", *size)
    for key in ("ArrowRight", "w"):
        browser.press(key)
    assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]
    left, right = (
        browser.evaluate(f"document.activeElement.getBoundingClientRect().{side}") for side in ("left", "right")
    )
    assert browser.evaluate(FOCUS) == "edit-1" and 0 <= left < right <= size[0]


def test_shortcuts_can_be_switched_off(desk: BrowserPage, world: World) -> None:
    desk.evaluate("document.querySelector('#shortcuts').click()")
    desk.press("ArrowLeft")
    assert desk.evaluate("decide.elements.decision.value") == ""
    desk.evaluate("document.querySelector('#shortcuts').click()")
    desk.press("ArrowLeft")
    assert desk.evaluate("decide.elements.decision.value") == "first"


def test_differences_take_the_place_of_the_rendered_drafts(desk: BrowserPage) -> None:
    shown = (
        "[...document.querySelectorAll('[data-view]')].filter(box => !box.hidden).map(box => box.dataset.view).join()"
    )
    assert desk.evaluate(shown) == "markdown,markdown"
    desk.press("d")
    assert desk.evaluate(shown) == "differences,differences"
    assert desk.evaluate("document.querySelector('#differences').getAttribute('aria-pressed')") == "true"
    desk.press("d")
    assert desk.evaluate(shown) == "markdown,markdown"


def test_a_page_without_a_pair_has_a_second_draft_written_and_opens_the_pair(
    browser: BrowserPage, address: str, world: World
) -> None:
    def write(draft_id: str) -> str:
        world.judging.waits, world.judging.incomplete = True, []
        return SECOND

    world.inference.write = write
    world.judging.waits, world.judging.incomplete = False, [DRAFT]
    browser.open(f"{address}/judge?specialist={NAME}", 1366, 768)
    browser.wait_for_page()
    assert browser.evaluate(FOCUS) == "desk"
    assert world.inference.regenerated == [DRAFT]


def test_a_page_without_a_prompt_draws_one_has_it_answered_twice_and_opens_it(
    browser: BrowserPage, address: str, world: World
) -> None:
    def draw(specialist: str) -> str:
        world.judging.incomplete, world.judging.draw_prompt = [DRAFT], False
        return DRAFT

    def write(draft_id: str) -> str:
        world.judging.waits, world.judging.drawn, world.judging.incomplete = True, True, []
        return SECOND

    world.synthetic.write, world.inference.write = draw, write
    world.inference.regenerated.clear()
    world.judging.waits, world.judging.incomplete, world.judging.draw_prompt = False, [], True
    browser.evaluate("sessionStorage.clear()")
    try:
        browser.open(f"{address}/judge?specialist={NAME}", 1366, 768)
        for _ in range(2):
            browser.wait_for_page()
        browser.wait_for(f"{FOCUS} === 'desk'")
        assert "It was drawn" in browser.evaluate("document.body.textContent")
        assert (world.synthetic.drawn, world.inference.regenerated) == ([NAME], [DRAFT])
    finally:
        world.judging.drawn = world.judging.draw_prompt = False


def test_a_page_that_cannot_draw_says_why_and_stops(browser: BrowserPage, address: str, world: World) -> None:
    def refuse(specialist: str) -> str:
        raise FailedPrecondition(Reason.NO_DATASET, "The specialist has no dataset of documents yet. Build it.")

    world.synthetic.write = refuse
    world.judging.waits, world.judging.draw_prompt = False, True
    try:
        browser.open(f"{address}/judge?specialist={NAME}", 1366, 768)
        browser.wait_for("document.querySelector('#preparing').textContent.includes('no dataset of documents yet')")
    finally:
        world.judging.waits, world.judging.draw_prompt = True, False


@pytest.fixture
def four(desk: BrowserPage, address: str, world: World) -> Iterator[BrowserPage]:
    """The judging page with four drafts."""
    world.judging.drafts = (FIRST, SECOND, THIRD, FOURTH)
    desk.open(f"{address}/judge?specialist={NAME}", 1366, 768)
    yield desk
    world.judging.drafts = (FIRST, SECOND)


@pytest.mark.parametrize(
    ("keys", "judgement"),
    [
        (("3", "1", "4", "Enter"), Judgement((THIRD, FIRST, FOURTH, SECOND))),
        (("3", "=", "1", "4", "Enter"), Judgement((FIRST, THIRD, FOURTH, SECOND), places=(1, 1, 2, 3))),
        (("1", "2", "3", "=", "Enter"), Judgement((FIRST, SECOND, THIRD, FOURTH), places=(1, 2, 3, 3))),
        (("1", "1", "9", "2", "4", "Backspace", "3", "Enter"), Judgement((FIRST, SECOND, THIRD, FOURTH))),
        (("2", "e", "Enter"), Judgement((FIRST, SECOND, THIRD, FOURTH), outcome="tie")),
        (("b", "2", "Enter"), Judgement((FIRST, SECOND, THIRD, FOURTH), marks(FIRST, 2), outcome="both_bad")),
        (
            ("4", "3", "2", "5", "0", "0", "1", "Enter"),
            Judgement((FOURTH, THIRD, SECOND, FIRST), (*marks(FIRST, 5), *marks(SECOND, 1))),
        ),
    ],
)
def test_four_drafts_are_ranked_with_ties_and_marked_by_key(
    four: BrowserPage, world: World, keys: tuple[str, ...], judgement: Judgement
) -> None:
    assert press(four, *keys) <= MAX_KEYS
    assert recorded(world) == [judgement]
    assert four.evaluate(FOCUS) == "desk" and four.errors == []


def test_an_incomplete_ranking_is_not_recorded_and_says_what_is_missing(four: BrowserPage, world: World) -> None:
    for key in ("2", "3", "w", "Enter"):
        four.press(key)
    assert "from best to worst" in four.evaluate("document.querySelector('#said').textContent")
    shown = "[...document.querySelectorAll('[data-place]')].map(tag => tag.hidden ? '' : tag.textContent).join()"
    assert four.evaluate(shown) == ",place 1,place 2,"
    assert not world.registry.judgements


def test_the_best_of_four_drafts_is_edited(four: BrowserPage, world: World) -> None:
    for key in ("3", "=", "2", "1", "w"):
        four.press(key)
    assert four.evaluate(FOCUS) == "edit-1"
    press_with_text(four, "A ")
    four.press("Enter", modifiers=CTRL)
    four.wait_for_page()
    assert world.inference.edits == [(SECOND, "A " + world.inference.texts[SECOND].answer)]
    assert recorded(world) == [Judgement((EDITED, SECOND, THIRD, FIRST, FOURTH), places=(1, 2, 2, 3, 4))]


SIZES = [(1366, 768), (390, 844)]
# How many drafts the judging page has, and the keys that open more of it.
JUDGING_PAGES: list[tuple[int, tuple[str, ...]]] = [
    (2, ("ArrowLeft", "4", "w", "Escape", "d")),
    (4, ("1", "=", "2", "w", "Escape")),
    (0, ()),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_desk_in_use_fits_and_axe_finds_nothing(
    browser: BrowserPage, address: str, world: World, size: tuple[int, int], scheme: str
) -> None:
    set_color_scheme(browser, scheme)
    wrong = []
    for drafts, keys in JUDGING_PAGES:
        world.judging.waits, world.judging.drafts = drafts > 0, (FIRST, SECOND, THIRD, FOURTH)[:drafts]
        browser.open(f"{address}/judge?specialist={NAME}", *size)
        for key in keys:
            browser.press(key)
        wrong += [f"{drafts} {text}" for text in find_overflow(browser) + find_violations(browser)]
    world.judging.waits, world.judging.drafts = True, (FIRST, SECOND)
    set_color_scheme(browser, "light")
    assert wrong == []


def test_the_check_of_accessibility_finds_a_button_without_a_name(desk: BrowserPage) -> None:
    desk.evaluate("document.querySelector('main').append(document.createElement('button'))")
    (violation,) = find_violations(desk)
    assert violation.startswith("button-name:")
