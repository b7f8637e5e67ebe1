"""Lists with long content on a laptop's screen, and inputs that keep their focus while a page renews its parts."""

from collections.abc import Iterator

import pytest

from services.console.domain import InvitationTerms, Role
from tailor.api.held.v1 import held_pb2
from tailor.api.registry.v1 import registry_pb2
from tests.integration.browser import BrowserPage
from tests.integration.console_pages import open_signed_in, serve_console
from tests.unit.console.fake_rows import synthesis
from tests.unit.console.messages import (
    ADAPTER,
    DATASET,
    LABELS,
    NAME,
    OLD_ADAPTER,
    RUN,
    SYNTHESIS_ID,
    adapter,
    api_key,
    catalogued,
    dataset,
    edit,
    evaluated,
    rejection,
    run,
    specialist,
    trained,
)
from tests.unit.console.world import World

pytestmark = pytest.mark.integration

WIDTH, HEIGHT = 1366, 768
# The longest name that a specialist can have, without a place to break it, and words without spaces.
LONG = "engagementreportsofthedepartmentforinfrastructureandmaintenance"
WORD = "Grundstuecksverkehrsgenehmigungszustaendigkeitsuebertragungsverordnung"
SENTENCE = f"The file of {WORD} cannot be read; publish it again as a text, a PDF with text, or DOCX. " * 3
PATHS = (
    "/documents",
    "/documents/rejected",
    "/decisions",
    "/datasets",
    f"/datasets/{DATASET}",
    "/syntheses",
    f"/syntheses/{SYNTHESIS_ID}",
    "/runs",
    f"/runs/compare?run={RUN}",
    f"/runs/{RUN}",
    "/adapters",
    "/approvals",
    "/specialists",
    f"/specialists/{LONG}",
    f"/specialists/{NAME}/leaderboard",
    "/erasures",
    "/residual",
    "/replaced",
    "/keys",
    "/people",
)
# What is cut: a cell beyond the window or its table's box, or with more content than room.
CUT = f"""[...document.querySelectorAll('main th, main td')].filter(cell => {{
  const frame = cell.getBoundingClientRect(), box = cell.closest('.scroll')?.getBoundingClientRect();
  return frame.right > {WIDTH} + 0.5 || (box && frame.right > box.right + 0.5) || cell.scrollWidth > cell.clientWidth + 1;
}}).map(cell => cell.innerText.slice(0, 60))"""


def make_world() -> World:
    """Long content in every list."""
    world = World()
    labels = edit(LABELS, source=WORD, department=WORD, confidentiality="strictly-confidential")
    findings = {f"PERSONAL_VALUE_OF_KIND_{number}": 1_000_000 for number in range(9)}
    world.registry.documents = [
        catalogued(labels=labels, format=WORD, findings=findings, char_count=10**9),
        rejection(SENTENCE),
    ]
    world.registry.documents[1].rejected.labels.CopyFrom(labels)
    world.registry.documents[1].rejected.duplicate_of = "doc_" + "9" * 32
    world.registry.datasets = [dataset(specialist=LONG, base=WORD, train_rows=10**9, held_out_rows=10**8), dataset()]
    reasons = [SENTENCE, f"{WORD} gains too little"]
    world.registry.adapters = [
        adapter(trained(specialist=LONG, base=WORD), reasons=reasons, evaluation=evaluated(rougeL=0.2)),
        adapter(trained(OLD_ADAPTER)),
    ]
    world.registry.adapters[0].state = registry_pb2.ADAPTER_STATE_WAITING_FOR_APPROVAL
    world.registry.waiting = world.registry.adapters[:1]
    world.registry.specialists = [specialist(), specialist(LONG, description=SENTENCE, base=WORD, keep_drafts=True)]
    world.registry.specialists[1].round.sentence = SENTENCE
    kind = registry_pb2.OPERATOR_DECISION_KIND_OVERRIDE
    world.registry.records = [
        registry_pb2.OperatorDecision(
            kind=kind, specialist=LONG, adapter_digest=ADAPTER, key_id="key_" + "1" * 16, reason=SENTENCE
        )
    ]
    world.registry.erasures[0] = edit(
        world.registry.erasures[0], reason=WORD, document_ids=[f"doc_{number:032x}" for number in range(9)]
    )
    world.registry.keys = [
        api_key(name=WORD[:64], specialists=[LONG, NAME], methods=[f"/x.y/{WORD}"], calls_per_minute=10**6)
    ]
    world.registry.leaderboard.entries.add(model=WORD, dataset_digest=DATASET, rows=10**6)
    world.training.runs = [
        run(specialist=LONG, base=WORD, recipe=f"{WORD}, lora"),
        run(
            "queued",
            run_id="run_" + "7" * 32,
            specialist=LONG,
            reason="WAITS_FOR_ANOTHER_DATASET_OF_RANKINGS",
            message=SENTENCE,
        ),
    ]
    world.syntheses.syntheses = [synthesis(reason=SENTENCE)]
    world.syntheses.syntheses[0].spec.specialist = LONG
    world.syntheses.syntheses[0].spec.task = WORD
    world.held["registry"] = (held_pb2.HeldCall(held_call_id="hld_1", method=f"/x/{WORD}", request=SENTENCE),)
    world.people.invite(
        InvitationTerms(WORD[:64], Role.EXPERT, f"{'a' * 60}@example.com", (LONG, NAME)), "key_0011223344556677"
    )
    return world


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def address(world: World) -> Iterator[str]:
    """A console that listens on a free port."""
    world.key(Role.OPERATOR)
    with serve_console(world.services()) as console:
        yield console


@pytest.fixture(scope="module")
def page(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserPage]:
    """A browser that is signed in as an operator."""
    with open_signed_in(address, f"tlr_{Role.OPERATOR.value}_0", tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("path", PATHS)
def test_no_column_is_cut_on_a_laptop(page: BrowserPage, address: str, path: str) -> None:
    page.open(f"{address}{path}", WIDTH, HEIGHT)
    assert page.evaluate("document.location.pathname") == path.partition("?")[0]
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTH
    assert page.evaluate(CUT) == []
    assert page.errors == []


def test_the_measure_of_cut_columns_finds_one(page: BrowserPage, address: str) -> None:
    page.open(f"{address}/runs", WIDTH, HEIGHT)
    page.evaluate("document.querySelector('main td').innerText = 'x'.repeat(400)")
    assert page.evaluate(CUT) != []


def test_a_list_is_searched_by_the_keyboard_and_shared_by_its_address(page: BrowserPage, address: str) -> None:
    page.open(f"{address}/adapters", WIDTH, HEIGHT)
    page.evaluate("document.querySelector('input[type=search]').focus()")
    for letter in "bbbb":
        page.press(letter)
    page.press("Enter")
    page.wait_for("document.location.search.includes('q=bbbb')")
    page.wait_for("document.querySelectorAll('main tbody tr').length === 1")
    assert page.evaluate("document.querySelector('input[type=search]').value") == "bbbb"


def test_an_input_keeps_its_focus_and_its_text_while_its_page_renews(
    page: BrowserPage, address: str, world: World
) -> None:
    page.open(f"{address}/specialists/{NAME}", WIDTH, HEIGHT)
    # The reason of a deletion, and an input within the part that is renewed.
    page.evaluate("document.querySelector('details').open = true; document.querySelector('input[name=reason]').focus()")
    for letter in "twins":
        page.press(letter)
    before = world.builds.states[0].sentence
    world.builds.states[0].sentence = "The state has moved on."
    try:
        page.wait_for("document.querySelector('#steps').innerText.includes('The state has moved on.')")
    finally:
        world.builds.states[0].sentence = before
    assert page.evaluate("document.activeElement.name + ' ' + document.activeElement.value") == "reason twins"
    page.press("!")
    assert page.evaluate("document.activeElement.value") == "twins!"


def test_a_part_with_the_focus_waits_to_be_renewed(page: BrowserPage, address: str, world: World) -> None:
    page.open(f"{address}/specialists/{NAME}", WIDTH, HEIGHT)
    page.evaluate(
        "const field = document.createElement('input'); field.id = 'typed'; document.querySelector('#steps').append(field); field.focus()"
    )
    page.press("x")
    before = world.builds.states[0].sentence
    world.builds.states[0].sentence = "Another state."
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
        world.builds.states[0].sentence = before


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
    assert page.evaluate("window.asked.length") == 1 and world.runs.cancelled == []
