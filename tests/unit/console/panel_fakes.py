"""What experts ask for together, in memory."""

from typing import Any

from tailor.api.registry.v1 import panel_pb2, panel_pb2_grpc
from tailor.errors import Reason, Unavailable


class FakePanelReader(panel_pb2_grpc.PanelServiceServicer):
    """Proposes one guideline."""

    def __init__(self) -> None:
        self.down = False
        examples = [
            panel_pb2.CommentExample(text=text, judgement_id=f"jdg_{number}")
            for number, text in enumerate(("Name the owner & date.", "The owner is missing."))
        ]
        self.answer = panel_pb2.ProposeGuidelinesResponse(
            guidelines=[
                panel_pb2.ProposedGuideline(text="Name the owner & date.", comments=4, experts=2, examples=examples)
            ],
            comments=9,
        )

    def ProposeGuidelines(self, request: Any, context: Any) -> Any:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "registry does not answer.")
        return self.answer
