"""`tailor report-outcome`."""

from tests.unit.cli.conftest import Services, Tailor


def test_reports_what_a_draft_was_worth(tailor: Tailor, services: Services) -> None:
    shown = tailor("report-outcome", "drf_1", "--minutes", "25", "--satisfaction", "4").out

    assert shown == "Recorded for generation 3 of engagement-reports.\n"
    (report,) = services.inference.outcomes
    assert (report.draft_id, report.minutes, report.satisfaction) == ("drf_1", 25, 4)


def test_reports_work_without_a_draft_for_the_baseline(tailor: Tailor, services: Services) -> None:
    arguments = ("--specialist", "engagement-reports", "--minutes", "90", "--request-id", "memo-7")
    shown = tailor("report-outcome", *arguments).out

    assert shown == "Recorded for the baseline of engagement-reports.\n"
    assert services.inference.outcomes[0].request_id == "memo-7"


def test_an_unknown_draft_is_reported(tailor: Tailor) -> None:
    refused = tailor("report-outcome", "drf_9", "--minutes", "1")

    assert refused.code != 0 and "UNKNOWN_DRAFT" in refused.err
