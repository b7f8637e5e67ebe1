"""The port of probes and metrics under a flood."""

import http.client
import socket
import threading
from contextlib import suppress

from tailor.runtime import Runtime, open_status_server
from tailor.status_server import MAX_CONNECTIONS
from tests.waiting import wait_until


def test_half_open_connections_take_no_threads_and_keep_no_probe_out() -> None:
    server = open_status_server("127.0.0.1", 0, Runtime("test"))
    port = server.server_address[1]
    threads = threading.active_count()
    clients = []
    for number in range(600):
        client = socket.create_connection(("127.0.0.1", port), timeout=60)
        client.sendall(b"GET /livez HT" if number % 2 else b"")
        clients.append(client)
        if number % 100 == 99:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/livez")
            assert connection.getresponse().status == 200
    # The probe did not wait until these timed out: the server closed them for newer connections.
    for client in clients[:-MAX_CONNECTIONS]:
        client.setblocking(False)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
    wait_until(lambda: threading.active_count() <= threads + MAX_CONNECTIONS)
    for client in clients:
        client.close()
    server.shutdown()
    server.server_close()
