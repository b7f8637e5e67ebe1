"""The gRPC service of imports."""

from collections.abc import Iterator, Sequence

import grpc

from services.synthetic.domain import unknown_specialist
from services.synthetic.import_domain import DatasetImport, ImportSpec, Messages
from services.synthetic.imports.handlers import ImportCommands, unknown_import
from tailor.api.synthetic.v1 import imports_pb2, imports_pb2_grpc
from tailor.codec import encode
from tailor.errors import InvalidArgument, PermissionDenied, Reason
from tailor.listing import Listing
from tailor.rpc.auth import current_caller
from tailor.wire import from_datetime

MAX_REQUEST_ID = 128
MAX_CHUNK_ROWS = 500
MAX_CHUNK_BYTES = 8 * 1024 * 1024

Requests = Iterator[imports_pb2.ImportDatasetRequest]


class ImportServicer(imports_pb2_grpc.ImportServiceServicer):
    """Translates calls for the commands."""

    def __init__(self, commands: ImportCommands) -> None:
        self._commands = commands

    def ImportDataset(
        self, request_iterator: Requests, context: grpc.ServicerContext
    ) -> imports_pb2.ImportDatasetResponse:
        """Import the streamed rows. Idempotent for the same request id."""
        header = _header(request_iterator)
        spec = ImportSpec(
            header.name, header.licence, header.share_percent, header.source, tuple(sorted(header.specialists))
        )
        _may_use_all(spec.specialists)
        result = self._commands.run(spec, header.request_id, map(_rows, request_iterator))
        return imports_pb2.ImportDatasetResponse(**{"import": from_import(result.item)}, created=result.created)

    def ListImports(
        self, request: imports_pb2.ListImportsRequest, context: grpc.ServicerContext
    ) -> imports_pb2.ListImportsResponse:
        imports = self._commands.imports
        listing = Listing(imports, request, imports.c.name, columns={"create_time": imports.c.created_at})
        page = listing.page(imports.select(), keep=_may_see)
        return imports_pb2.ListImportsResponse(imports=map(from_import, page.items), next_page_token=page.next_token)

    def ForgetImport(
        self, request: imports_pb2.ForgetImportRequest, context: grpc.ServicerContext
    ) -> imports_pb2.ForgetImportResponse:
        item = self._commands.imports.find(name=request.name)
        if item is None or not _may_see(item):
            raise unknown_import()
        _may_use_all(item.spec.specialists)
        return imports_pb2.ForgetImportResponse(**{"import": from_import(self._commands.forget(request.name))})


def from_import(item: DatasetImport) -> imports_pb2.DatasetImport:
    sha256 = item.file.sha256 if item.file else ""
    figures = {"rows": item.rows, "rejected": item.rejected, "create_time": from_datetime(item.created_at)}
    return encode(imports_pb2.DatasetImport, item.spec, sha256=sha256, **figures)


def _header(requests: Requests) -> imports_pb2.ImportHeader:
    first = next(requests, None)
    if first is None or first.WhichOneof("part") != "header":
        raise InvalidArgument(Reason.NO_HEADER, "The first message must contain `header`.")
    if not 0 < len(first.header.request_id) <= MAX_REQUEST_ID:
        raise InvalidArgument(Reason.NO_REQUEST_ID, f"`request_id` must have 1 to {MAX_REQUEST_ID} characters.")
    return first.header


def _rows(request: imports_pb2.ImportDatasetRequest) -> Sequence[Messages]:
    if request.WhichOneof("part") != "chunk":
        raise InvalidArgument(Reason.SECOND_HEADER, "Every message after the first must contain `chunk`.")
    chunk = request.chunk
    if len(chunk.rows) > MAX_CHUNK_ROWS or chunk.ByteSize() > MAX_CHUNK_BYTES:
        raise InvalidArgument(
            Reason.TOO_LARGE,
            f"A chunk has at most {MAX_CHUNK_ROWS} rows and {MAX_CHUNK_BYTES} bytes. Send smaller ones.",
        )
    return [tuple((message.role, message.content) for message in row.messages) for row in chunk.rows]


def _may_see(item: DatasetImport) -> bool:
    """True if the caller may use one of the import's specialists, or the import is for all."""
    specialists = item.spec.specialists
    return not specialists or any(current_caller().may_use(name) for name in specialists)


def _may_use_all(specialists: Sequence[str]) -> None:
    """Raise unless the caller may use all specialists; a limited key must name some."""
    caller = current_caller()
    if caller.specialists and not specialists:
        raise PermissionDenied(Reason.SPECIALIST_NEEDED, "Your key is limited to some specialists. Name one of them.")
    if not all(caller.may_use(name) for name in specialists):
        raise unknown_specialist()
