"""The gRPC service of synthetic."""

import grpc

from services.synthetic import handlers, wire
from services.synthetic.browsing import RowBrowser
from services.synthetic.domain import Dataset, find_specialist, unknown_specialist
from services.synthetic.handlers import Synthetic
from services.synthetic.prompt_drawer import PromptDrawer
from services.synthetic.views import DatasetQuery
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.codec import encode
from tailor.errors import InvalidArgument, PermissionDenied, Reason
from tailor.rpc.auth import current_caller
from tailor.rpc.paging import page_size
from tailor.values import DatasetKind, Selection

DEFAULT_ROWS = 20
MAX_ROWS = 100
MAX_REQUEST_ID = 128


class SyntheticServicer(synthetic_pb2_grpc.SyntheticServiceServicer):
    """Translates calls for the handlers."""

    def __init__(self, app: Synthetic, browser: RowBrowser, drawer: PromptDrawer) -> None:
        self._app = app
        self._browser = browser
        self._drawer = drawer

    def BuildDataset(
        self, request: synthetic_pb2.BuildDatasetRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.BuildDatasetResponse:
        check_specialist(request.specialist)
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
        check_specialist(request.specialist)
        states = handlers.read_build_states(self._app, request.specialist)
        return synthetic_pb2.GetBuildStateResponse(states=[wire.from_build_state(*state) for state in states])

    def CountNearDuplicates(
        self, request: synthetic_pb2.CountNearDuplicatesRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.CountNearDuplicatesResponse:
        selection = Selection()
        if request.specialist:
            check_specialist(request.specialist)
            selection = find_specialist(self._app.specialists, request.specialist).selection
        elif current_caller().specialists:
            raise PermissionDenied(
                Reason.SPECIALIST_NEEDED, "Your key is limited to some specialists. Name one of them."
            )
        preparer = self._app.preparer
        threshold = preparer.sketcher.threshold
        return encode(synthetic_pb2.CountNearDuplicatesResponse, preparer.count(selection), threshold=threshold)

    def ListOrigins(
        self, request: synthetic_pb2.ListOriginsRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.ListOriginsResponse:
        check_specialist(request.specialist)
        page = self._app.origins.list_page(request, find_specialist(self._app.specialists, request.specialist))
        return synthetic_pb2.ListOriginsResponse(
            origins=map(wire.from_origin, page.items), next_page_token=page.next_token
        )

    def AdmitOrigin(
        self, request: synthetic_pb2.AdmitOriginRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.AdmitOriginResponse:
        check_specialist(request.specialist)
        kind, caller = wire.to_origin_kind(request.kind), current_caller()
        admitted_by = request.admitted_by if caller.kind == "service" else caller.key_id
        handlers.admit_origin(self._app, request.specialist, kind, request.name, admitted_by)
        return synthetic_pb2.AdmitOriginResponse()

    def PreviewRows(
        self, request: synthetic_pb2.PreviewRowsRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.PreviewRowsResponse:
        check_specialist(request.specialist)
        limit = page_size(request.page_size, DEFAULT_ROWS, MAX_ROWS)
        rows = handlers.preview_rows(
            self._app, request.specialist, request.document_id, limit, new_only=request.new_only
        )
        return synthetic_pb2.PreviewRowsResponse(rows=[wire.from_drawn_row(*drawn) for drawn in rows])

    def DrawPrompt(
        self, request: synthetic_pb2.DrawPromptRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.DrawPromptResponse:
        check_specialist(request.specialist)
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

    def _find(self, query: DatasetQuery) -> Dataset:
        if query.specialist:
            check_specialist(query.specialist)
        return self._browser.find(query, current_caller().may_use)


def check_specialist(specialist: str) -> None:
    """Raise the same NotFound for a specialist that the key may not use and for one that does not exist."""
    if not current_caller().may_use(specialist):
        raise unknown_specialist()
