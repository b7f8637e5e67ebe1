"""A stranger on the machine, such as another account or a web page, and the ports that a stack listens on."""

import http.client
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tailor.local import processes

FOREIGN = {"Origin": "https://evil.example", "Host": "evil.example", "Sec-Fetch-Site": "cross-site"}
# An account that exists nowhere, so that no group admits it.
STRANGER = 65_533


def listening_ports(state_dir: Path) -> set[int]:
    """Every TCP port on which a process of the stack listens."""
    sockets = set()
    for pid in processes.find_marked(state_dir):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                sockets.add(str(descriptor.readlink()))
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    return {
        int(fields[1].rpartition(":")[2], 16)
        for fields in lines
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets
    }


def ask(connection: http.client.HTTPConnection, method: str, path: str) -> int:
    """The status of the answer to a request of another site; 0 if there is no answer."""
    return answer(connection, method, path)[0]


def answer(connection: http.client.HTTPConnection, method: str, path: str) -> tuple[int, str]:
    """The status of the answer to a request of another site, and where it redirects to; 0 if there is no answer."""
    try:
        connection.request(method, path, body=b"x" if method in {"POST", "PUT"} else None, headers=FOREIGN)
        response = connection.getresponse()
        return response.status, response.headers.get("Location", "")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def as_stranger(work: Callable[[], Any]) -> Any:
    """What `work` returns, as JSON, in a process of another account."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(STRANGER, STRANGER, STRANGER)
            os.setresuid(STRANGER, STRANGER, STRANGER)
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        text = file.read()
    os.waitpid(child, 0)
    return json.loads(text)
