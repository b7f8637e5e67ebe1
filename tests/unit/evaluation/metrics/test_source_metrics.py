import json

import pytest

from services.evaluation.measurement import Measurement
from services.evaluation.metrics import measure
from services.evaluation.metrics.context import MetricContext
from services.evaluation.metrics.patterns import SafePattern
from tailor.errors import InvalidArgument
from tailor.values import MetricDefinition
from tests.unit.evaluation.metrics.judges import answered

PROMPT = (
    "Write the section on access. 14 of 40 accounts were dormant on 30 June 2026, says Anna Weber of Northwind Ltd."
)
REFERENCE = "Fourteen accounts (35 %) were dormant [2]. Ms Weber closes them by Q3 2026."


def run(kind: str, *rows: object, **parameters: object) -> Measurement:
    definition = MetricDefinition(kind, kind, json.dumps(parameters))
    return measure(definition, rows, MetricContext())  # type: ignore[arg-type]


def test_supported_figures_and_names_are_no_fabrication() -> None:
    answer = "On 2026-06-30, 14 of 40 accounts (35 percent) were dormant. Later Anna Weber closes them in the third quarter of 2026."
    assert run("fabrication", answered(answer, REFERENCE, PROMPT)).value() == 0.0


def test_fabrication_is_the_share_of_unsupported_values() -> None:
    # Of four figures and dates (17, 40, 30 June 2026, EUR 2 m) two are invented, and of three names one.
    answer = "At Northwind, 17 of 40 accounts cost €2 million by 30 June 2026. Here Weber disagrees with Peter Holm."
    measurement = run("fabrication", answered(answer, REFERENCE, PROMPT))
    assert measurement.parts["figures"].value() == pytest.approx(2 / 4)
    assert measurement.parts["names"].value() == pytest.approx(1 / 3)
    assert measurement.value() == pytest.approx(3 / 7)


def test_repeating_an_invention_counts_once() -> None:
    answer = "It cost 17 euros. It cost 17 euros. And 14 accounts."
    assert run("fabrication", answered(answer, REFERENCE, PROMPT)).value() == pytest.approx(1 / 2)


def test_german_nouns_are_not_names() -> None:
    answer = "Im Bericht steht die Prüfung der Konten durch die Abteilung."
    assert run("fabrication", answered(answer, "Konten wurden geprüft.", language="de")).value() == 0.0


def test_answers_without_values_fabricate_nothing() -> None:
    assert run("fabrication", answered("Nothing to report.", REFERENCE)).value() == 0.0


def test_citations_must_stand_in_the_source() -> None:
    rows = [answered("Dormant [2], and more [9].", REFERENCE), answered("None here.", "Nor here.")]
    measurement = run("citations", *rows)
    assert measurement.row_values() == [0.5, None]


def test_an_answer_that_leaves_out_all_citations_is_wrong() -> None:
    assert run("citations", answered("Dormant accounts.", REFERENCE)).value() == 0.0


def test_citations_must_stand_in_the_register() -> None:
    reference = "See POL-12 and POL-99."
    parameters = {"pattern": r"POL-\d+", "register": ["POL-12"]}
    assert run("citations", answered("By POL-12 and POL-99.", reference), **parameters).value() == 0.5


def test_format_matches_the_whole_answer() -> None:
    rows = [answered("RISK: high\n"), answered("RISK: unknown"), answered("The RISK: high")]
    assert run("format", *rows, regex=r"RISK: (low|high)").row_values() == [1.0, 0.0, 0.0]


def test_format_checks_a_json_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"rating": {"enum": ["low", "high"]}, "id": {"type": "string", "pattern": "^F-[0-9]+$"}},
        "patternProperties": {"^x-": {"type": "integer"}},
        "required": ["rating"],
    }
    answers = [
        '{"rating": "low", "id": "F-3", "x-n": 1}',
        '{"rating": "low", "id": "3"}',
        '{"rating": "low", "x-n": "1"}',
        "low",
    ]
    assert run("format", *map(answered, answers), json_schema=schema).row_values() == [1.0, 0.0, 0.0, 0.0]


def test_a_schema_never_fetches_another() -> None:
    schema = {"$ref": "http://127.0.0.1:9/schema.json"}
    assert run("format", answered("{}"), json_schema=schema).value() == 0.0


def test_a_wrong_schema_is_a_violation() -> None:
    with pytest.raises(InvalidArgument) as error:
        run("format", answered("{}"), json_schema={"type": "thing"})
    assert error.value.field_violations == {"json_schema": "is not a schema"}


def test_a_catastrophic_pattern_ends_in_time() -> None:
    measurement = run("format", answered("a" * 40 + "!"), regex=r"(a|a|aa)+b?$")
    assert measurement.value() == 0.0
    assert measurement.counts == {"timeouts": 1}
    schema = {"type": "string", "pattern": r"^(a|a|aa)+$"}
    assert run("format", answered(json.dumps("a" * 40 + "!")), json_schema=schema).value() == 0.0


def test_a_text_that_is_too_long_does_not_match() -> None:
    assert not SafePattern("a*").matches("a" * 200_000)
