"""An expert's hour at the judging page: a scripted browser judges what the registry and inference offer; keys are counted, and waits are printed."""

import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from services.console.clients import connect
from services.registry.bootstrap import MIGRATIONS
from services.registry.domain import JudgementOutcome, JudgingPolicy
from services.registry.handlers import specialists
from services.registry.queries import Queries
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.values import JudgingCriterion
from tests.conftest import migrated
from tests.integration.browser import BrowserPage
from tests.integration.console_pages import open_signed_in, serve_console
from tests.integration.test_judging_flow import Flow, run_flow

pytestmark = [pytest.mark.integration, pytest.mark.release]

# The product's promise: 50 judgements an hour, each without a comment in at most 12 keys, and nothing to wait for.
JUDGEMENTS = 50
MAX_KEYS = 12
PROMISED_WAIT = 0.3
CRITERIA = (
    JudgingCriterion("tone", "Is the tone right?", "blames", "plain and kind"),
    JudgingCriterion("owner", "Does each finding have an owner?", "none has", "each has"),
)
# What the expert presses for one prompt after the other, repeatedly.
PAIR_KEYS = (
    ("ArrowLeft", "Enter"),
    ("4", "2", "5", "3", "ArrowRight", "Enter"),
    ("e", "Enter"),
    ("d", "d", "ArrowLeft", "5", "Enter"),
    ("ArrowRight", "ArrowLeft", "0", "3", "Backspace", "2", "4", "1", "Enter"),
    ("b", "1", "2", "2", "1", "Enter"),
)
FOUR_KEYS = (
    ("3", "1", "4", "Enter"),
    ("2", "=", "1", "3", "5", "4", "4", "3", "Enter"),
    ("b", "Enter"),
)


@dataclass
class Hour:
    """The browser of an expert, the keys of each judgement and the wait after each key, in seconds."""

    flow: Flow
    page: BrowserPage
    address: str
    keys: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def open(self) -> None:
        self.page.open(f"{self.address}/judge?specialist=letters", 1366, 768)

    def press(self, *keys: str) -> None:
        """Press the keys, of which the last shows the next page. A wait ends when the page takes the next key."""
        for place, key in enumerate(keys, start=1):
            start = time.perf_counter()
            self.page.press(key)
            if place == len(keys):
                self.page.wait_for_page()
            self.page.evaluate("document.readyState")
            self.waits.append(time.perf_counter() - start)

    def judge(self, keys: tuple[str, ...]) -> None:
        self.press(*keys)
        self.keys.append(len(keys))
        assert self.page.errors == []


def prepare(flow: Flow, prompts: range, drafts: int) -> None:
    """Have prompts of callers answered this many times."""
    console = inference_pb2_grpc.InferenceServiceStub(
        flow.registry.channel("console", "inference", flow.inference_port)
    )
    for number in prompts:
        first = flow.ask(
            f"Write the letter about account {number}.", f"Dear client,\n\nthe cash of account {number} holds."
        )
        for answer in range(1, drafts):
            flow.engine.say = f"Dear client,\n\n- the cash of account {number} falls by {answer} EUR."
            request = inference_pb2.RegenerateDraftRequest(draft_id=first)
            flow.wait_for_text(console.RegenerateDraft(request, timeout=60).draft_id)


def change_policy(flow: Flow, drafts: int) -> None:
    with flow.registry.begin() as tx:
        specialist = tx.specialists.find(name="letters")
    assert specialist is not None
    # The hour ends with an empty queue.
    policy = JudgingPolicy(drafts=drafts, criteria=CRITERIA, draw_prompts=False)
    specialists.update_specialist(flow.registry.begin, replace(specialist, judging=policy))


@pytest.fixture
def hour(database_url: str, tmp_path: Path) -> Iterator[Hour]:
    with (
        migrated(database_url, MIGRATIONS) as engine,
        contextmanager(run_flow)(engine, tmp_path) as flow,
        serve_console(connect(flow.channels())) as address,
        open_signed_in(address, flow.registry.key("EXPERT", "letters"), tmp_path / "profile") as page,
    ):
        yield Hour(flow, page, address)


def test_an_expert_judges_fifty_prompts_an_hour_in_a_few_keys_each(hour: Hour) -> None:
    change_policy(hour.flow, 2)
    prepare(hour.flow, range(JUDGEMENTS), 2)
    hour.open()
    for number, keys in zip(range(JUDGEMENTS), itertools.cycle(PAIR_KEYS)):
        hour.judge(keys)
        if number == JUDGEMENTS // 2:
            # The expert errs once: the prompt returns, and is judged again.
            hour.press("u")
            hour.judge(keys)
    assert "Nothing waits for you." in hour.page.evaluate("document.body.innerText")
    four = range(JUDGEMENTS, JUDGEMENTS + 2 * len(FOUR_KEYS))
    prepare(hour.flow, four, 4)
    change_policy(hour.flow, 4)
    hour.open()
    for keys in FOUR_KEYS * 2:
        hour.judge(keys)
    report(hour)
    assert max(hour.keys) <= MAX_KEYS
    check_records(hour, len(four))


def report(hour: Hour) -> None:
    """Print the figures; the machine that runs the tests may be shared, so waits are not asserted."""
    slow = statistics.quantiles(hour.waits, n=20)[-1]
    print(
        f"\n{len(hour.keys)} judgements, {sum(hour.keys)} keys, at most {max(hour.keys)}; {len(hour.waits)} waits, "
        f"median {statistics.median(hour.waits):.3f} s, p95 {slow:.3f} s (promised: {PROMISED_WAIT} s)"
    )


def check_records(hour: Hour, four: int) -> None:
    """What the registry has is what was pressed."""
    judgements = Queries(hour.flow.registry.engine).judgements("letters")
    assert len(judgements) == JUDGEMENTS + four
    outcomes = [judgement.outcome for judgement in judgements]
    assert outcomes.count(JudgementOutcome.TIE) == sum(keys[0] == "e" for keys in take(PAIR_KEYS, JUDGEMENTS))
    both_bad = sum(keys[0] == "b" for keys in (*take(PAIR_KEYS, JUDGEMENTS), *FOUR_KEYS * 2))
    assert outcomes.count(JudgementOutcome.BOTH_BAD) == both_bad
    assert {mark.criterion for judgement in judgements for mark in judgement.marks} == {"tone", "owner"}
    tied = [judgement for judgement in judgements if judgement.places]
    assert [judgement.places for judgement in tied] == [(1, 1, 2, 3)] * 2
    assert all(len(judgement.decided_pairs) == 5 and len(judgement.marks) == 4 for judgement in tied)


def take(scripts: tuple[tuple[str, ...], ...], count: int) -> list[tuple[str, ...]]:
    return list(itertools.islice(itertools.cycle(scripts), count))
