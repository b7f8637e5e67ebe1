"""Callers whose address is a host name: replicas that are restarted one after the other, as in a rolling upgrade, fail no call."""

import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from tailor.api.inference.v1 import inference_pb2
from tailor.client import TailorClient
from tests.real.servers import free_ports

pytestmark = pytest.mark.integration

# Of IPv4, the type of a record, and what every answer says: recursion was asked for and done, no error.
ADDRESS_RECORD, DONE = 1, b"\x81\x80"
TTL_SECONDS = 5
SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
ANSWER_SECONDS = 0.05
# Longer than the client's own attempts last.
GONE_SECONDS = 9.0


class Names(socketserver.UDPServer):
    """A name server for one name, whose addresses change."""

    def __init__(self, *addresses: str) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.addresses = list(addresses)


class Answer(socketserver.BaseRequestHandler):
    """The answer to one query."""

    server: Names

    def handle(self) -> None:
        """Send it."""
        query, connection = self.request
        end = query.index(b"\0", 12) + 5
        (kind,) = struct.unpack(">H", query[end - 4 : end - 2])
        found = self.server.addresses if kind == ADDRESS_RECORD else []
        counts = struct.pack(">HHHH", 1, len(found), 0, 0)
        # Each record has the name of the question, which begins at byte 12.
        head = struct.pack(">HHHIH", 0xC00C, ADDRESS_RECORD, 1, TTL_SECONDS, 4)
        records = b"".join(head + socket.inet_aton(address) for address in found)
        connection.sendto(query[:2] + DONE + counts + query[12:end] + records, self.client_address)


def _start(address: str, port: int) -> grpc.Server:
    """A replica that answers every question with nothing."""
    answer = grpc.unary_unary_rpc_method_handler(
        lambda request, context: inference_pb2.GenerateResponse(),
        inference_pb2.GenerateRequest.FromString,
        inference_pb2.GenerateResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Generate": answer}),))
    server.add_insecure_port(f"{address}:{port}")
    server.start()
    return server


@contextmanager
def _names(*addresses: str) -> Iterator[Names]:
    with Names(*addresses) as names:
        thread = threading.Thread(target=names.serve_forever)
        thread.start()
        try:
            yield names
        finally:
            names.shutdown()
            thread.join()


@pytest.mark.slow
def test_no_call_fails_while_all_replicas_of_a_name_are_replaced() -> None:
    old, new = ("127.0.0.2", "127.0.0.3"), ("127.0.0.4", "127.0.0.5")
    (port,) = free_ports(1)
    leaving = [_start(address, port) for address in old]
    with _names(*old) as names:
        with TailorClient(f"dns://127.0.0.1:{names.server_address[1]}/replicas.test:{port}", "tlr_key") as client:
            client.generate("x", "a question", timeout_seconds=60)
            arriving = [_start(address, port) for address in new]
            names.addresses = list(new)
            for server in leaving:
                server.stop(1).wait()
            deadline = time.monotonic() + GONE_SECONDS
            while time.monotonic() < deadline:
                client.generate("x", "a question", timeout_seconds=60)
                time.sleep(ANSWER_SECONDS)
        for server in arriving:
            server.stop(0).wait()
