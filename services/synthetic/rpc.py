"""The gRPC face of synthetic."""

import grpc

from services.synthetic import handlers, wire
from services.synthetic.comparing import Comparison, count_near_duplicates
from services.synthetic.domain import DatasetKind, Selection
from services.synthetic.handlers import Synthetic
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.errors import InvalidArgument, NotFound, Reason
from tailor.rpc.auth import current_caller

DEFAULT_ROWS = 20
MAX_ROWS = 100
MAX_REQUEST_ID = 128


class SyntheticServicer(synthetic_pb2_grpc.SyntheticServiceServicer):
    """Translates calls for the handlers."""

    def __init__(self, app: Synthetic, comparison: Comparison, threshold: float) -> None:
        self._app = app
        self._comparison = comparison
        self._threshold = threshold

    def BuildDataset(
        self, request: synthetic_pb2.BuildDatasetRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.BuildDatasetResponse:
        """Build a dataset at once."""
        _may_use(request.specialist)
        if len(request.request_id) > MAX_REQUEST_ID:
            raise InvalidArgument(Reason.INVALID_REQUEST_ID, f"A request id has at most {MAX_REQUEST_ID} characters.")
        kind = wire.to_dataset_kind(request.kind)
        built = handlers.build_dataset(self._app, request.specialist, request.request_id, kind)
        return synthetic_pb2.BuildDatasetResponse(
            dataset=wire.from_dataset(built.dataset),
            created=built.created,
            near_duplicates=built.dataset.near_duplicates,
            left_out=wire.from_left_out(built.dataset.left_out),
            pairs=wire.from_pairs(built.dataset.pairs) if kind is DatasetKind.PREFERENCE else None,
        )

    def CountNearDuplicates(
        self, request: synthetic_pb2.CountNearDuplicatesRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.CountNearDuplicatesResponse:
        """Count near-duplicates among the documents."""
        selection = Selection()
        if request.specialist:
            _may_use(request.specialist)
            selection = handlers.specialist_named(self._app, request.specialist).selection
        found = count_near_duplicates(self._comparison, selection)
        return synthetic_pb2.CountNearDuplicatesResponse(
            documents=found.documents,
            compared=found.compared,
            near_duplicates=found.near_duplicates,
            groups=found.groups,
            threshold=self._threshold,
        )

    def PreviewRows(
        self, request: synthetic_pb2.PreviewRowsRequest, context: grpc.ServicerContext
    ) -> synthetic_pb2.PreviewRowsResponse:
        """Show rows without keeping them."""
        _may_use(request.specialist)
        if request.page_size < 0:
            raise InvalidArgument(Reason.INVALID_PAGE_SIZE, "page_size is 0 or more.")
        limit = min(request.page_size or DEFAULT_ROWS, MAX_ROWS)
        rows = handlers.preview_rows(self._app, request.specialist, request.document_id, limit)
        return synthetic_pb2.PreviewRowsResponse(rows=[wire.from_row(row) for row in rows])


def _may_use(specialist: str) -> None:
    """A specialist that the key was not given looks like one that does not exist."""
    if not current_caller().may_use(specialist):
        raise NotFound(Reason.UNKNOWN_SPECIALIST, "There is no specialist of this name.")
