"""`tailor specialist origins`: sources and publishers that wait for a look, and admitting them."""

from tailor.api.synthetic.v1 import synthetic_pb2
from tests.unit.cli.conftest import Services, Tailor

SOURCE, TESTS = synthetic_pb2.ORIGIN_KIND_SOURCE, synthetic_pb2.ORIGIN_KIND_TESTS


def origin(kind: "synthetic_pb2.OriginKind.ValueType", name: str, *, waits: bool = True) -> synthetic_pb2.Origin:
    message = synthetic_pb2.Origin(kind=kind, name=name, documents=3, publishers=["key_7"])
    if not waits:
        message.admit_time.FromSeconds(1_800_000_000)
    return message


def test_lists_what_waits_and_how_to_admit_it(tailor: Tailor, services: Services) -> None:
    services.synthetic.origins = [origin(TESTS, "key_7"), origin(SOURCE, "", waits=False)]
    shown = tailor("specialist", "origins", "reports")
    assert shown.code == 0 and "tests" in shown.out and "waits" in shown.out and "(none)" in shown.out
    assert "tailor specialist admit reports" in shown.err
    services.synthetic.origins = [origin(SOURCE, "wiki", waits=False)]
    assert "tailor specialist admit" not in tailor("specialist", "origins", "reports").err


def test_admits_everything_that_waits_or_one_of_it(tailor: Tailor, services: Services) -> None:
    services.synthetic.origins = [origin(TESTS, "key_7"), origin(SOURCE, "crm"), origin(SOURCE, "wiki", waits=False)]
    assert tailor("specialist", "admit", "reports", "--kind", "source", "--name", "crm").code == 0
    assert services.synthetic.admitted == [(SOURCE, "crm")]
    shown = tailor("specialist", "admit", "reports")
    assert "3 golden documents of key_7" in shown.out and "3 documents and deliverables of crm" in shown.out
    assert services.synthetic.admitted[1:] == [(TESTS, "key_7"), (SOURCE, "crm")]
    assert "Nothing of that waits." in tailor("specialist", "admit", "reports", "--kind", "examples").out
    assert tailor("specialist", "admit", "reports", "--kind", "golden").code == 2
    assert tailor("specialist", "admit", "reports", "--name", "crm").code == 2
