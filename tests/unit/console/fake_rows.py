"""Rows and syntheses in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from services.console.domain import RowQuery
from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1 import synthesis_pb2, synthesis_pb2_grpc, synthetic_pb2, synthetic_pb2_grpc
from tailor.errors import Aborted, NotFound, Reason, Unavailable
from tests.unit.console.judging_fakes import FIRST
from tests.unit.console.messages import DATASET, NAME, STAMP, SYNTHESIS_ID, dataset, edit


def row(number: int = 1, **changes: Any) -> synthetic_pb2.Row:
    message = synthetic_pb2.Row(
        row_id=f"row_{number}",
        task="answer",
        document_ids=[f"doc_{1:032x}"],
        split=synthetic_pb2.SPLIT_TRAIN,
        messages=[
            synthetic_pb2.RowMessage(role="user", content="What is due?"),
            synthetic_pb2.RowMessage(role="assistant", content=f"Payment {number}."),
        ],
        language="en",
        tokens=1234,
        grounding="yes",
        made_by="structure",
    )
    return edit(message, **changes)


@dataclass
class FakeSynthetic(synthetic_pb2_grpc.SyntheticServiceServicer):
    """Datasets: one page of rows per item of `pages`, builds, and drawn prompts. Without an answer, a build lasts."""

    pages: list[list[synthetic_pb2.Row]] = field(default_factory=lambda: [[row(1), row(2)], [row(3)]])
    down: bool = False
    asked: list[tuple[RowQuery, str]] = field(default_factory=list)
    answer: synthetic_pb2.BuildDatasetResponse | None = field(
        default_factory=lambda: synthetic_pb2.BuildDatasetResponse(dataset=dataset(), created=True)
    )
    states: list[synthetic_pb2.BuildState] = field(
        default_factory=lambda: [
            synthetic_pb2.BuildState(
                kind=models_pb2.DATASET_KIND_SFT,
                new_items=7,
                needed_items=20,
                sentence="7 new documents; a build needs 20: 13 to go.",
            ),
            synthetic_pb2.BuildState(kind=models_pb2.DATASET_KIND_PREFERENCE, sentence="Built on command only."),
        ]
    )
    built: list[tuple[str, str, str]] = field(default_factory=list)
    origins: list[synthetic_pb2.Origin] = field(
        default_factory=lambda: [
            synthetic_pb2.Origin(
                kind=synthetic_pb2.ORIGIN_KIND_TESTS, name="key_0123456789abcdef0123", documents=3, publishers=["key_7"]
            ),
            synthetic_pb2.Origin(
                kind=synthetic_pb2.ORIGIN_KIND_SOURCE,
                name="sharepoint",
                documents=4_000,
                publishers=["document-publisher", "key_0123456789abcdef0123"],
                admit_time=STAMP,
                admitted_by="key_0123456789abcdef0123",
            ),
        ]
    )
    admitted: list[tuple[str, str, str, str]] = field(default_factory=list)
    near: synthetic_pb2.CountNearDuplicatesResponse | None = field(
        default_factory=lambda: synthetic_pb2.CountNearDuplicatesResponse(
            documents=100, compared=100, near_duplicates=7, groups=3, threshold=0.8
        )
    )
    # Draws a prompt, or raises.
    write: Callable[[str], str] = lambda specialist: FIRST
    drawn: list[str] = field(default_factory=list)

    def _answer(self) -> None:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "synthetic does not answer.")

    def ListRows(self, request: Any, context: Any) -> Any:
        self._answer()
        if request.specialist:
            if request.specialist != NAME:
                raise NotFound(Reason.UNKNOWN_DATASET, "There is no such dataset.")
            return synthetic_pb2.ListRowsResponse(dataset_digest=DATASET)
        split = synthetic_pb2.Split.Name(request.split).removeprefix("SPLIT_").lower() if request.split else ""
        query = RowQuery(request.dataset_digest, split, request.task, request.document_id, request.text)
        self.asked.append((query, request.page_token))
        at = int(request.page_token or 0)
        following = str(at + 1) if at + 1 < len(self.pages) else ""
        return synthetic_pb2.ListRowsResponse(rows=self.pages[at], next_page_token=following, scanned_rows=500)

    def BuildDataset(self, request: Any, context: Any) -> Any:
        kind = models_pb2.DatasetKind.Name(request.kind).removeprefix("DATASET_KIND_").lower()
        self.built.append((request.specialist, kind, request.request_id))
        if self.answer is None:
            raise Aborted(Reason.BUILD_RUNNING, "Another build of this dataset runs.")
        return self.answer

    def GetBuildState(self, request: Any, context: Any) -> Any:
        self._answer()
        return synthetic_pb2.GetBuildStateResponse(states=self.states)

    def ListOrigins(self, request: Any, context: Any) -> Any:
        return synthetic_pb2.ListOriginsResponse(origins=self.origins)

    def AdmitOrigin(self, request: Any, context: Any) -> Any:
        kind = synthetic_pb2.OriginKind.Name(request.kind).removeprefix("ORIGIN_KIND_").lower()
        self.admitted.append((request.specialist, kind, request.name, request.admitted_by))
        return synthetic_pb2.AdmitOriginResponse()

    def CountNearDuplicates(self, request: Any, context: Any) -> Any:
        if self.near is None:
            raise Unavailable(Reason.UNAVAILABLE, "synthetic does not answer.")
        return self.near

    def DrawPrompt(self, request: Any, context: Any) -> Any:
        draft_id = self.write(request.specialist)
        self.drawn.append(request.specialist)
        return synthetic_pb2.DrawPromptResponse(draft_id=draft_id)


def synthesis(**changes: Any) -> synthesis_pb2.Synthesis:
    message = synthesis_pb2.Synthesis(
        synthesis_id=SYNTHESIS_ID,
        spec=synthesis_pb2.SynthesisSpec(
            specialist=NAME, task="risk-assessment", target=300, budget_eur=2.0, document_ids=["doc_1"]
        ),
        state=synthesis_pb2.SYNTHESIS_STATE_RUNNING,
        teacher="wise",
        accepted=41,
        pending=3,
        refusals=[synthesis_pb2.SynthesisRefusals(reason="near_duplicate", rows=7)],
        use=synthesis_pb2.SynthesisUse(answers=51, tokens=61_000, eur=0.61),
        create_time=STAMP,
    )
    return edit(message, **changes)


def sample(row_id: str = "row_1", state: str = "pending", **changes: Any) -> synthesis_pb2.Sample:
    message = synthesis_pb2.Sample(
        row_id=row_id,
        state=synthesis_pb2.SampleState.Value(f"SAMPLE_STATE_{state.upper()}"),
        task="risk-assessment",
        prompt="Assess <b>the ferry</b>.",
        completion="The ferry is a low risk.",
        language="en",
        mark=4,
    )
    return edit(message, **changes)


@dataclass
class FakeSyntheses(synthesis_pb2_grpc.SynthesisServiceServicer):
    """Syntheses and their samples."""

    syntheses: list[synthesis_pb2.Synthesis] = field(default_factory=lambda: [synthesis()])
    samples: list[synthesis_pb2.Sample] = field(default_factory=lambda: [sample(), sample("row_2", "accepted")])
    decisions: list[tuple[str, str, bool]] = field(default_factory=list)
    down: bool = False

    def _answer(self) -> list[synthesis_pb2.Synthesis]:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "synthetic does not answer.")
        return self.syntheses

    def ListSyntheses(self, request: Any, context: Any) -> Any:
        items = [item for item in self._answer() if request.specialist in ("", item.spec.specialist)]
        return synthesis_pb2.ListSynthesesResponse(syntheses=items)

    def GetSynthesis(self, request: Any, context: Any) -> Any:
        for item in self._answer():
            if item.synthesis_id == request.synthesis_id:
                return synthesis_pb2.GetSynthesisResponse(synthesis=item)
        raise NotFound(Reason.UNKNOWN_SYNTHESIS, "There is no such synthesis.")

    def ListSamples(self, request: Any, context: Any) -> Any:
        state = synthesis_pb2.SampleState.Value(
            f"SAMPLE_STATE_{request.query.filters['state'].upper() or 'UNSPECIFIED'}"
        )
        samples = [item for item in self.samples if not state or item.state == state]
        return synthesis_pb2.ListSamplesResponse(samples=samples)

    def ReviewSamples(self, request: Any, context: Any) -> Any:
        self.decisions += [(request.synthesis_id, item.row_id, item.accept) for item in request.decisions]
        return synthesis_pb2.ReviewSamplesResponse()

    def CountComments(self, request: Any, context: Any) -> Any:
        refusals = [synthesis_pb2.SynthesisRefusals(reason="comment_not_met", rows=2)]
        return synthesis_pb2.CountCommentsResponse(
            comments=9, accepted=6, waiting=1, refusals=refusals, teacher=synthesis_pb2.TEACHER_STATE_READY
        )
