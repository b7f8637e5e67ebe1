"""The cost of a text grows in proportion to its length, and a prompt does not wait for it."""

import math
import random
import string
import threading
import time

import pytest

from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise import budget
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.surrogates.surrogates import Surrogates
from tailor.errors import DeadlineExceeded
from tests.analyzers import load_english
from tests.unit.anonymization.fakes import MemoryVault

pytestmark = pytest.mark.integration

SHORT, TIMES = 20_000, 4
# Four times the text may cost a little more than four times the time; growth by the square would be sixteen times.
MOST_GROWTH = 7.0
# By which power of the length the cost may grow over two orders of magnitude.
MOST_EXPONENT = 1.1


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return load_english().with_policy(load_policy(), cache_size=0)


def seconds(anonymizer: TextAnonymizer, text: str) -> float:
    start = time.process_time()
    anonymizer.anonymize((text,))
    return time.process_time() - start


@pytest.mark.parametrize(
    "unit",
    ["Aa ", "Aa Bb, ", "please ask Ngozi Okafor about invoice {}.\n\n", "Mr Aa{} of Aa{} Ltd, 12 Mill Road, Leeds. "],
)
def test_the_cost_grows_in_proportion_to_the_length(analyzer: Analyzer, unit: str) -> None:
    anonymizer = TextAnonymizer(analyzer, Surrogates(MemoryVault(), analyzer.lexicon, b"s" * 32))

    def text(length: int) -> str:
        parts = [unit.replace("{}", str(number)) for number in range(length // len(unit))]
        return "".join(parts)

    seconds(anonymizer, text(SHORT // 4))
    short = min(seconds(anonymizer, text(SHORT)) for _ in range(2))
    assert seconds(anonymizer, text(SHORT * TIMES)) < MOST_GROWTH * max(short, 0.05)


# Units that once took from 3 to 600 times as long as others.
SLOW_UNITS = (
    "St. ", "Ltd Ltd ", "A.A.A.", "UK EU ", "PO Box 1 ", "12 A Street, ", "A, B and ", "PARMINDER-UzDU1", "A-",
)  # fmt: skip
MARKS = (
    " ",
    ", ",
    "; ",
    ": ",
    ". ",
    ".",
    "-",
    "/",
    "@",
    "\n",
    "\n\n",
    " & ",
    "'s ",
    "(",
    ")",
    '"',
    "_",
    "=",
    "1",
    "12 ",
)
VALUES = ("A", "Ab", "Smith", "John", "London", "2026", "01/02/2024", "+49", "a@b.co", "www.a.de", "192.168.0.1")


def draw_unit(draw: random.Random, analyzer: Analyzer) -> str:
    """One to three words of the recognisers, values, or random characters, each with a mark behind it."""
    lists = [sorted(words) for _, words in sorted(analyzer.lexicon.lists.items()) if words]

    def piece() -> str:
        match draw.randrange(4):
            case 0:
                return draw.choice(VALUES)
            case 1:
                return "".join(draw.choices(string.ascii_letters + string.digits + " .,-", k=draw.randint(1, 4)))
            case _:
                word = draw.choice(draw.choice([*lists, sorted(analyzer.lexicon.legal_forms)]))
                return draw.choice([word, word.title(), word.upper()])

    return "".join(piece() + draw.choice(MARKS) for _ in range(draw.randint(1, 3)))


@pytest.mark.slow
def test_no_repeated_unit_costs_a_second(analyzer: Analyzer) -> None:
    draw = random.Random(40)
    anonymizer = TextAnonymizer(analyzer, Surrogates(MemoryVault(), analyzer.lexicon, b"s" * 32))
    anonymizer.anonymize(("Mr Smith of Acme Ltd.",))
    units = [*SLOW_UNITS, *(draw_unit(draw, analyzer) for _ in range(100))]
    costs = {unit: seconds(anonymizer, (unit * 3_000)[:3_000]) for unit in units}
    assert {unit: cost for unit, cost in costs.items() if cost > 1.0} == {}


@pytest.mark.release
@pytest.mark.slow
@pytest.mark.parametrize("unit", ["St. ", "A.A.A.", "Mr Aa{} of Aa{} Ltd, 12 Mill Road, Leeds. "])
def test_the_cost_of_ten_kilobytes_to_a_megabyte_is_linear(analyzer: Analyzer, unit: str) -> None:
    anonymizer = TextAnonymizer(
        analyzer, Surrogates(MemoryVault(), analyzer.lexicon, b"s" * 32), seconds_per_text=math.inf
    )
    lengths = (10_000, 100_000, 1_000_000)
    texts = ["".join(unit.replace("{}", str(number)) for number in range(length // len(unit))) for length in lengths]
    seconds(anonymizer, texts[0])
    costs = [seconds(anonymizer, text) for text in texts]
    assert math.log(costs[-1] / costs[0]) / math.log(lengths[-1] / lengths[0]) <= MOST_EXPONENT


def test_a_text_that_takes_too_long_is_rejected(analyzer: Analyzer) -> None:
    anonymizer = TextAnonymizer(analyzer, Surrogates(MemoryVault(), analyzer.lexicon, b"s" * 32), seconds_per_text=0.05)
    with pytest.raises(DeadlineExceeded) as refused:
        anonymizer.anonymize(("Ngozi Okafor signs. " * 20_000,))
    assert refused.value.reason == "TEXT_TOO_SLOW"


def test_prompts_have_a_lock_of_their_own(analyzer: Analyzer) -> None:
    apart = analyzer.apart(analyzer.policy, cache_size=0)
    with analyzer._lock:
        answers: list[object] = []
        reader = threading.Thread(target=lambda: answers.append(apart.find("Ask Ms Ngozi Okafor.")))
        reader.start()
        reader.join(60)
        assert answers and answers[0]


def test_work_for_a_caller_who_has_gone_ends(analyzer: Analyzer) -> None:
    with budget.limit(100, lambda: True), pytest.raises(DeadlineExceeded):
        analyzer.find("Ngozi Okafor signs.")
