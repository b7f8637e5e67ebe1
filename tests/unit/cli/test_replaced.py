"""`tailor review replaced`, `allow` and `keep`, and what `tailor audit` and `tailor build` say of them, against fake services."""

from tailor.api.anonymization.v1 import replaced_pb2
from tailor.api.events.v1 import models_pb2
from tailor.cli.datasets import describe_figures, over_redaction_warning
from tailor.errors import FailedPrecondition, Reason
from tests.fakes.replaced import PLACE
from tests.unit.cli.conftest import Services, Tailor


def test_lists_surrogates_with_counts_and_reveals_nothing(tailor: Tailor, services: Services) -> None:
    shown = tailor("review", "replaced")
    assert shown.code == 0 and "winters" in shown.out and "SQL" not in shown.out and not services.replaced.seen
    (first, second) = tailor("review", "replaced", "--output=json").document["strings"]
    assert (first["times"], first["documents"], first["departments"], second["sources"]) == (60, 12, 5, 2)


def test_data_protection_may_list_the_strings_themselves(tailor: Tailor, services: Services) -> None:
    assert "SQL" in tailor("review", "replaced", "--strings").out
    assert all(request.without_places for request in services.replaced.seen) and len(services.replaced.seen) == 2


def test_shows_places_with_the_string_in_the_place_of_its_surrogate(tailor: Tailor) -> None:
    shown = tailor("review", "replaced", "person:winters").out
    assert PLACE.replace("Winters", "SQL") in shown and "doc_1 risk" in shown
    assert "tailor review allow 'PERSON:winters'" in shown
    assert "UNKNOWN_REPLACED" in tailor("review", "replaced", "PERSON:nobody").err
    assert tailor("review", "replaced", "winters").code == 1


def test_allows_what_was_seen_and_replays_it(tailor: Tailor, services: Services) -> None:
    assert "PLACES_NOT_SEEN" in tailor("review", "allow", "PERSON:winters").err
    tailor("review", "replaced", "PERSON:winters")
    allowed = tailor("review", "allow", "PERSON:winters").out
    assert "generation 3" in allowed and "The replay runs" in allowed
    assert services.replaced.decisions[0].decision == replaced_pb2.REPLACED_DECISION_ALLOWED
    assert services.replays.started[0].barrier_digest == "b" * 64
    assert "tailor replay start" in tailor("review", "allow", "PERSON:winters", "--no-replay").out
    assert len(services.replays.started) == 1


def test_a_replay_that_runs_already_does_not_undo_what_was_allowed(tailor: Tailor, services: Services) -> None:
    services.replays.refusal = FailedPrecondition(Reason.REPLAY_RUNNING, "Another replay runs.")
    tailor("review", "replaced", "PERSON:winters")
    allowed = tailor("review", "allow", "PERSON:winters")
    assert allowed.code == 0 and "when it has ended" in allowed.out


def test_keeps_what_is_personal(tailor: Tailor, services: Services) -> None:
    tailor("review", "replaced", "USERNAME:musiav.ark")
    assert tailor("review", "keep", "USERNAME:musiav.ark").code == 0
    assert services.replaced.decisions[0].decision == replaced_pb2.REPLACED_DECISION_KEPT


def test_the_audit_shows_what_is_replaced_most_by_its_surrogates(tailor: Tailor) -> None:
    shown = " ".join(tailor("audit").out.split())
    assert "in 5 documents or more of all 40" in shown and "PERSON:winters" in shown and "SQL" not in shown
    assert tailor("audit", "--output=json").document["replaced"]["strings"][1]["times"] == 84


def test_a_dataset_over_the_limit_warns_and_another_does_not() -> None:
    figures = models_pb2.DatasetFigures(coverage=0.9, over_redaction=1.84, max_over_redaction=1.0)
    assert "over-redaction 1.84 (limit 1)" in describe_figures(models_pb2.DatasetBuilt(figures=figures))
    assert "1.84 replacements per 1,000 words" in over_redaction_warning(figures)
    figures.over_redaction = 0.2
    assert "over-redaction 0.20." in describe_figures(models_pb2.DatasetBuilt(figures=figures))
    assert not over_redaction_warning(figures)
    unknown = models_pb2.DatasetFigures(coverage=0.9)
    assert "over-redaction unknown" in describe_figures(models_pb2.DatasetBuilt(figures=unknown))


def test_build_warns_about_a_dataset_over_the_limit(tailor: Tailor, services: Services) -> None:
    services.synthetic.figures = models_pb2.DatasetFigures(over_redaction=1.84, max_over_redaction=1.0)
    assert "tailor review replaced" in tailor("build", "engagement-reports").err
