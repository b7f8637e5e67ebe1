"""Rows and syntheses in memory."""

from dataclasses import dataclass, field
from typing import Any

from services.console.domain import Page, RowQuery
from services.console.ports import DatasetBuilds, RowSource, SynthesisReader
from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1 import synthesis_pb2, synthetic_pb2
from tailor.errors import NotFound, Reason, Unavailable
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
class FakeRows(RowSource):
    """One page of rows per item of `pages`."""

    pages: list[list[synthetic_pb2.Row]] = field(default_factory=lambda: [[row(1), row(2)], [row(3)]])
    down: bool = False
    asked: list[tuple[RowQuery, str]] = field(default_factory=list)

    def _answer(self) -> None:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "synthetic does not answer.")

    def find_newest(self, specialist: str) -> str:
        self._answer()
        if specialist != NAME:
            raise NotFound(Reason.UNKNOWN_DATASET, "There is no such dataset.")
        return DATASET

    def list_rows(self, query: RowQuery, token: str) -> synthetic_pb2.ListRowsResponse:
        self._answer()
        self.asked.append((query, token))
        at = int(token or 0)
        following = str(at + 1) if at + 1 < len(self.pages) else ""
        return synthetic_pb2.ListRowsResponse(rows=self.pages[at], next_page_token=following, scanned_rows=500)


@dataclass
class FakeBuilds(DatasetBuilds):
    """Builds of datasets. Without an answer, a build lasts."""

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
    down: bool = False
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

    def build(self, specialist: str, kind: str, request_id: str) -> synthetic_pb2.BuildDatasetResponse | None:
        self.built.append((specialist, kind, request_id))
        return self.answer

    def get_state(self, specialist: str) -> synthetic_pb2.GetBuildStateResponse:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "synthetic does not answer.")
        return synthetic_pb2.GetBuildStateResponse(states=self.states)

    def list_origins(self, specialist: str) -> synthetic_pb2.ListOriginsResponse:
        return synthetic_pb2.ListOriginsResponse(origins=self.origins)

    def admit_origin(self, specialist: str, kind: str, name: str, admitted_by: str) -> None:
        self.admitted.append((specialist, kind, name, admitted_by))


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
class FakeSyntheses(SynthesisReader):
    syntheses: list[synthesis_pb2.Synthesis] = field(default_factory=lambda: [synthesis()])
    samples: list[synthesis_pb2.Sample] = field(default_factory=lambda: [sample(), sample("row_2", "accepted")])
    decisions: list[tuple[str, str, bool]] = field(default_factory=list)
    down: bool = False

    def list_syntheses(self, token: str, specialist: str = "") -> Page[synthesis_pb2.Synthesis]:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "synthetic does not answer.")
        return Page(tuple(item for item in self.syntheses if specialist in ("", item.spec.specialist)))

    def get_synthesis(self, synthesis_id: str) -> synthesis_pb2.Synthesis:
        for item in self.list_syntheses("").items:
            if item.synthesis_id == synthesis_id:
                return item
        raise NotFound(Reason.UNKNOWN_SYNTHESIS, "There is no such synthesis.")

    def list_samples(self, synthesis_id: str, state: str, token: str) -> Page[synthesis_pb2.Sample]:
        wanted = synthesis_pb2.SampleState.Value(f"SAMPLE_STATE_{state.upper() or 'UNSPECIFIED'}")
        return Page(tuple(item for item in self.samples if not wanted or item.state == wanted))

    def review_sample(self, synthesis_id: str, row_id: str, *, accept: bool) -> None:
        self.decisions.append((synthesis_id, row_id, accept))

    def count_comments(self, specialist: str) -> synthesis_pb2.CountCommentsResponse:
        refusals = [synthesis_pb2.SynthesisRefusals(reason="comment_not_met", rows=2)]
        return synthesis_pb2.CountCommentsResponse(
            comments=9, accepted=6, waiting=1, refusals=refusals, teacher=synthesis_pb2.TEACHER_STATE_READY
        )
