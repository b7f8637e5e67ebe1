"""`tailor specialist guidelines` and `tailor synthesis comments`."""

from tailor.api.registry.v1 import panel_pb2
from tailor.api.synthetic.v1 import synthesis_pb2
from tests.unit.cli.conftest import Services, Tailor


def propose(services: Services, *texts: str) -> None:
    services.panel.guidelines = panel_pb2.ProposeGuidelinesResponse(
        guidelines=[
            panel_pb2.ProposedGuideline(
                text=text,
                comments=4,
                experts=2,
                examples=[panel_pb2.CommentExample(text=f"{text} Please.", judgement_id="jdg_7")],
            )
            for text in texts
        ],
        comments=11,
    )


def test_shows_what_comments_ask_for(tailor: Tailor, services: Services) -> None:
    propose(services, "Name the owner.")
    shown = tailor("specialist", "guidelines", "engagement-reports")
    assert "11 comments" in shown.err and "Name the owner." in shown.out
    assert "1: Name the owner. Please. (jdg_7)" in shown.err


def test_takes_a_guideline_over_into_the_definition(tailor: Tailor, services: Services) -> None:
    propose(services, "Close kindly.", "Name the owner.")
    specialist = services.registry.specialist
    specialist.evaluation.guidelines = "Short sentences.\n"
    assert tailor("specialist", "guidelines", specialist.name, "--take", "2").code == 0
    assert services.registry.specialist.evaluation.guidelines == "Short sentences.\nName the owner."
    assert (
        tailor("specialist", "guidelines", specialist.name, "--take", "1", "--text", "Close as a colleague.").code == 0
    )
    assert services.registry.specialist.evaluation.guidelines.endswith("Name the owner.\nClose as a colleague.")
    refused = tailor("specialist", "guidelines", specialist.name, "--take", "3")
    assert refused.code != 0 and "There are 2 proposed guidelines" in refused.err


def test_counts_what_became_of_comments(tailor: Tailor, services: Services) -> None:
    services.synthesis.comments = synthesis_pb2.CountCommentsResponse(
        comments=9,
        accepted=5,
        waiting=1,
        held_out=1,
        refusals=[synthesis_pb2.SynthesisRefusals(reason="comment_not_met", rows=2)],
        teacher=synthesis_pb2.TEACHER_STATE_NONE,
        tokens_per_month=50_000,
        tokens_this_month=1_200,
    )
    shown = tailor("synthesis", "comments", "reports").out
    assert "9 comments" in shown and "refused: comment not met" in shown
    assert "1,200 of 50,000 tokens" in shown and "No teacher is configured" in shown
