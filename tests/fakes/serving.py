"""Runs fakes of services as real gRPC servers in this process."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_status import rpc_status

from tailor.errors import TailorError
from tailor.rpc.status import to_status

ADAPTER = "ab" * 32
REFUSED_ADAPTER = "abababaf" * 8
DATASET = "cd" * 32
RANKINGS = "ce" * 32


def refuse(context: grpc.ServicerContext, error: TailorError) -> Any:
    """End the call with an error, as a real service does."""
    context.abort_with_status(rpc_status.to_status(to_status(error)))


@contextmanager
def serving(add: Callable[[Any, grpc.Server], None], servicer: Any) -> Iterator[str]:
    """Run a server on a free port, and yield its address."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
