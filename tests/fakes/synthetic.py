"""The synthetic service in this process, with answers that tests set."""

from typing import Any

from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1 import (
    imports_pb2,
    imports_pb2_grpc,
    synthesis_pb2,
    synthesis_pb2_grpc,
    synthetic_pb2,
    synthetic_pb2_grpc,
)
from tailor.errors import NotFound, Reason, TailorError, Unavailable
from tests.fakes.serving import DATASET, RANKINGS, refuse


class FakeImports(imports_pb2_grpc.ImportServiceServicer):
    """Keeps the requests. The first `failures` calls end as if the barrier did not answer."""

    def __init__(self) -> None:
        self.headers: list[imports_pb2.ImportHeader] = []
        self.chunks: list[imports_pb2.ImportChunk] = []
        self.forgotten: list[str] = []
        self.failures = 0

    def _import(self, **values: Any) -> imports_pb2.DatasetImport:
        known: dict[str, Any] = {
            "name": "chat",
            "licence": "CC-BY-4.0",
            "share_percent": 10,
            "rows": 1200,
            "sha256": "ef" * 32,
        }
        return imports_pb2.DatasetImport(**(known | values), rejected={"too_long": 2})

    def ImportDataset(self, request_iterator: Any, context: Any) -> Any:
        self.headers.append(next(request_iterator).header)
        self.chunks = [request.chunk for request in request_iterator]
        if self.failures:
            self.failures -= 1
            refuse(context, Unavailable(Reason.UNAVAILABLE, "anonymization does not answer."))
        item = self._import(name=self.headers[-1].name, rows=sum(len(chunk.rows) for chunk in self.chunks))
        return imports_pb2.ImportDatasetResponse(**{"import": item}, created=True)

    def ListImports(self, request: Any, context: Any) -> Any:
        return imports_pb2.ListImportsResponse(imports=[self._import(), self._import(name="half", sha256="")])

    def ForgetImport(self, request: Any, context: Any) -> Any:
        self.forgotten.append(request.name)
        return imports_pb2.ForgetImportResponse(**{"import": self._import(name=request.name)})


class FakeSynthetic(synthetic_pb2_grpc.SyntheticServiceServicer):
    """Always builds the same dataset, after failing with `build_errors`. Compares a hundred documents per call."""

    def __init__(self) -> None:
        self.created = True
        self.figures: models_pb2.DatasetFigures | None = None
        self.build_errors: list[TailorError] = []
        self.built: list[str] = []
        self.skipped: list[synthetic_pb2.Skipped] = []
        self.listed: list[synthetic_pb2.ListRowsRequest] = []
        self.origins: list[synthetic_pb2.Origin] = []
        self.admitted: list[tuple[int, str]] = []
        self.imports = FakeImports()
        self.documents = 0
        self.compared = 0
        self.down = False

    def CountNearDuplicates(self, request: Any, context: Any) -> Any:
        if self.down:
            refuse(context, Unavailable(Reason.DATABASE_UNAVAILABLE, "The database does not answer."))
        self.compared = min(self.documents, self.compared + 100)
        return synthetic_pb2.CountNearDuplicatesResponse(
            documents=self.documents, compared=self.compared, near_duplicates=7, groups=3, threshold=0.8
        )

    def ListOrigins(self, request: Any, context: Any) -> Any:
        return synthetic_pb2.ListOriginsResponse(origins=self.origins)

    def AdmitOrigin(self, request: Any, context: Any) -> Any:
        self.admitted.append((request.kind, request.name))
        return synthetic_pb2.AdmitOriginResponse()

    def PreviewRows(self, request: Any, context: Any) -> Any:
        """As many rows as were asked for."""
        rows = [
            synthetic_pb2.Row(
                row_id=f"row_p{number}",
                task="section",
                document_ids=[f"doc_{number}"],
                publisher="key_7" if request.new_only else "",
            )
            for number in range(request.page_size)
        ]
        return synthetic_pb2.PreviewRowsResponse(rows=rows)

    def ListRows(self, request: Any, context: Any) -> Any:
        """One row per page, of three."""
        self.listed.append(type(request).FromString(request.SerializeToString()))
        at = int(request.page_token or 0)
        row = synthetic_pb2.Row(
            row_id=f"row_{at}",
            task="answer",
            document_ids=[f"doc_{at}"],
            split=synthetic_pb2.SPLIT_TRAIN,
            messages=[
                synthetic_pb2.RowMessage(role="user", content="Where is [it] written?"),
                synthetic_pb2.RowMessage(role="assistant", content=f"In section {at}."),
            ],
            language="en",
            tokens=1234,
            grounding="yes",
            made_by="structure",
        )
        return synthetic_pb2.ListRowsResponse(
            rows=[row],
            next_page_token=str(at + 1) if at < 2 else "",
            dataset_digest=DATASET,
            specialist=request.specialist,
            scanned_rows=1000,
        )

    def BuildDataset(self, request: Any, context: Any) -> Any:
        self.built.append(request.request_id)
        if self.build_errors:
            refuse(context, self.build_errors.pop(0))
        if request.kind == models_pb2.DATASET_KIND_PREFERENCE:
            pairs = synthetic_pb2.PairCounts(judgements=12, pairs=30, tied=2)
            dataset = models_pb2.DatasetBuilt(
                digest=RANKINGS,
                specialist=request.specialist,
                kind=request.kind,
                train_rows=26,
                held_out_rows=2,
                base="tiny",
                pipeline=[
                    models_pb2.PipelineStage(stage="sft", recipe="lora"),
                    models_pb2.PipelineStage(stage="dpo", recipe="gentle"),
                ],
            )
            return synthetic_pb2.BuildDatasetResponse(dataset=dataset, created=True, pairs=pairs)
        dataset = models_pb2.DatasetBuilt(
            digest=DATASET,
            specialist=request.specialist,
            train_rows=200,
            held_out_rows=20,
            base="tiny",
            pipeline=[models_pb2.PipelineStage(stage="sft", recipe="lora")],
            figures=self.figures,
        )
        return synthetic_pb2.BuildDatasetResponse(
            dataset=dataset, created=self.created, near_duplicates=4, skipped=self.skipped
        )


class FakeSynthesis(synthesis_pb2_grpc.SynthesisServiceServicer):
    """Has one synthesis, which `watched` shows step by step."""

    def __init__(self) -> None:
        self.created: list[synthesis_pb2.CreateSynthesisRequest] = []
        self.decisions: list[synthesis_pb2.SampleDecision] = []
        self.listed: list[synthesis_pb2.ListSamplesRequest] = []
        self.commands: list[str] = []
        self.watched: list[synthesis_pb2.Synthesis] = []
        self.comments = synthesis_pb2.CountCommentsResponse()
        self.synthesis = synthesis_pb2.Synthesis(
            synthesis_id="syn_1",
            spec=synthesis_pb2.SynthesisSpec(specialist="reports", task="risk-assessment", target=300, budget_eur=2.0),
            state=synthesis_pb2.SYNTHESIS_STATE_RUNNING,
            teacher="wise",
            accepted=41,
            refusals=[synthesis_pb2.SynthesisRefusals(reason="near_duplicate", rows=7)],
            use=synthesis_pb2.SynthesisUse(answers=48, tokens=61_000, lost_tokens=500, eur=0.61),
        )

    def CreateSynthesis(self, request: Any, context: Any) -> Any:
        self.created.append(request)
        return synthesis_pb2.CreateSynthesisResponse(synthesis=self.synthesis)

    def GetSynthesis(self, request: Any, context: Any) -> Any:
        if request.synthesis_id != "syn_1":
            refuse(context, NotFound(Reason.UNKNOWN_SYNTHESIS, "There is no such synthesis."))
        return synthesis_pb2.GetSynthesisResponse(synthesis=self.synthesis)

    def ListSyntheses(self, request: Any, context: Any) -> Any:
        return synthesis_pb2.ListSynthesesResponse(syntheses=[self.synthesis])

    def CountComments(self, request: Any, context: Any) -> Any:
        return self.comments

    def WatchSynthesis(self, request: Any, context: Any) -> Any:
        for synthesis in self.watched:
            yield synthesis_pb2.WatchSynthesisResponse(synthesis=synthesis)

    def CancelSynthesis(self, request: Any, context: Any) -> Any:
        self.commands.append("cancel")
        return synthesis_pb2.CancelSynthesisResponse(synthesis=self.synthesis)

    def ResumeSynthesis(self, request: Any, context: Any) -> Any:
        self.commands.append("resume")
        return synthesis_pb2.ResumeSynthesisResponse(synthesis=self.synthesis)

    def ListSamples(self, request: Any, context: Any) -> Any:
        self.listed.append(request)
        sample = synthesis_pb2.Sample(
            row_id="row_1",
            state=synthesis_pb2.SAMPLE_STATE_PENDING,
            prompt="Assess [the ferry].",
            completion="Low risk.",
            mark=4,
            back_translation=71.2,
        )
        return synthesis_pb2.ListSamplesResponse(samples=[sample])

    def ReviewSamples(self, request: Any, context: Any) -> Any:
        self.decisions += request.decisions
        return synthesis_pb2.ReviewSamplesResponse(synthesis=self.synthesis)
