"""The gRPC service of synthetic."""

import grpc

from services.synthetic import handlers, wire
from services.synthetic.browsing import DatasetQuery, RowBrowser
from services.synthetic.handlers import Synthetic
from services.synthetic.near_duplicates.preparer import DocumentPreparer
from services.synthetic.prompt_drawer import PromptDrawer
from services.synthetic.views import StoredDataset
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.errors import InvalidArgument, NotFound, PermissionDenied, Reason
from tailor.rpc.auth import current_caller
from tailor.rpc.paging import page_size
from tailor.values import DatasetKind, Selection

DEFAULT_ROWS = 20
MAX_ROWS = 100
MAX_REQUEST_ID = 128


class SyntheticServicer(synthetic_pb2_grpc.SyntheticServiceServicer):
    """Translates calls for the handlers."""

    def __init__(
        self,
        app: Synthetic,
        preparer: DocumentPreparer,
        threshold: float,
        browser: RowBrowser,
        drawer: PromptDrawer,
    ) -> None:
        self._app = app
        self._browser = browser
        self._drawer = drawer
        self._preparer = preparer
        self._threshold = threshold

    def BuildDataset(
        self, request: synthetic_pb2.BuildDatasetRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.BuildDatasetResponse:
        _may_use(request.specialist)
        if len(request.request_id) > MAX_REQUEST_ID:
            raise InvalidArgument(
                Reason.INVALID_REQUEST_ID, f"`request_id` must have at most {MAX_REQUEST_ID} characters."
            )
        kind = wire.to_dataset_kind(request.kind)
        result = handlers.build_dataset(self._app, request.specialist, request.request_id, kind, again=request.again)
        return synthetic_pb2.BuildDatasetResponse(
            dataset=wire.from_dataset(result.dataset),
            created=result.created,
            near_duplicates=result.dataset.near_duplicates,
            skipped=wire.from_skipped(result.dataset.skipped),
            intake_seconds=result.dataset.intake_seconds,
            pairs=wire.from_pairs(result.dataset.pairs) if kind is DatasetKind.PREFERENCE else None,
        )

    def GetBuildState(
        self, request: synthetic_pb2.GetBuildStateRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.GetBuildStateResponse:
        _may_use(request.specialist)
        states = handlers.read_build_states(self._app, request.specialist)
        return synthetic_pb2.GetBuildStateResponse(states=[wire.from_build_state(*state) for state in states])

    def CountNearDuplicates(
        self, request: synthetic_pb2.CountNearDuplicatesRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.CountNearDuplicatesResponse:
        selection = Selection()
        if request.specialist:
            _may_use(request.specialist)
            selection = handlers.find_specialist(self._app, request.specialist).selection
        elif current_caller().specialists:
            raise PermissionDenied(
                Reason.SPECIALIST_NEEDED, "Your key is limited to some specialists. Name one of them."
            )
        count = self._preparer.count(selection)
        return synthetic_pb2.CountNearDuplicatesResponse(
            documents=count.documents,
            compared=count.compared,
            near_duplicates=count.near_duplicates,
            groups=count.groups,
            threshold=self._threshold,
        )

    def ListOrigins(
        self, request: synthetic_pb2.ListOriginsRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.ListOriginsResponse:
        _may_use(request.specialist)
        origins = handlers.list_origins(self._app, request.specialist)
        return synthetic_pb2.ListOriginsResponse(origins=[wire.from_origin(origin) for origin in origins])

    def AdmitOrigin(
        self, request: synthetic_pb2.AdmitOriginRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.AdmitOriginResponse:
        _may_use(request.specialist)
        kind, caller = wire.to_origin_kind(request.kind), current_caller()
        admitted_by = request.admitted_by if caller.kind == "service" else caller.key_id
        handlers.admit_origin(self._app, request.specialist, kind, request.name, admitted_by)
        return synthetic_pb2.AdmitOriginResponse()

    def PreviewRows(
        self, request: synthetic_pb2.PreviewRowsRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.PreviewRowsResponse:
        _may_use(request.specialist)
        limit = page_size(request.page_size, DEFAULT_ROWS, MAX_ROWS)
        rows = handlers.preview_rows(
            self._app, request.specialist, request.document_id, limit, new_only=request.new_only
        )
        return synthetic_pb2.PreviewRowsResponse(rows=[wire.from_drawn_row(*drawn) for drawn in rows])

    def DrawPrompt(
        self, request: synthetic_pb2.DrawPromptRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.DrawPromptResponse:
        _may_use(request.specialist)
        return synthetic_pb2.DrawPromptResponse(draft_id=self._drawer.draw(request.specialist))

    def ListRows(
        self, request: synthetic_pb2.ListRowsRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.ListRowsResponse:
        size, wanted = page_size(request.page_size, DEFAULT_ROWS, MAX_ROWS), wire.to_filter(request)
        query, position = wire.to_position(request.page_token, wire.to_query(request), wanted)
        dataset = self._find(query)
        page = self._browser.read(dataset, wanted, position, size)
        return synthetic_pb2.ListRowsResponse(
            rows=[wire.from_stored_row(split, row) for split, row in page.rows],
            next_page_token=wire.from_position(dataset, wanted, page.next_position),
            dataset_digest=dataset.digest,
            specialist=dataset.specialist,
            scanned_rows=page.scanned,
        )

    def _find(self, query: DatasetQuery) -> StoredDataset:
        if query.specialist:
            _may_use(query.specialist)
        return self._browser.find(query, current_caller().may_use)


def _may_use(specialist: str) -> None:
    """Raise the same NotFound for a specialist that the key may not use and for one that does not exist."""
    if not current_caller().may_use(specialist):
        raise NotFound(Reason.UNKNOWN_SPECIALIST, "This specialist does not exist, or your key may not use it.")
