"""The log leaves out the messages of exceptions, and the values in libraries' messages."""

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from tailor.logging import REPEAT_SECONDS, _Repeats, scrubbed

PROGRAM = """
import logging
from tailor.logging import configure

configure("inference", "INFO")
try:
    raise ValueError("Mary Smith")
except ValueError:
    logging.getLogger("uvicorn.error").exception("Exception in the application of %s", "Mary Smith")
logging.getLogger("uvicorn.error").error("nothing raised", exc_info=True)
"""


def test_logs_only_type_and_place_of_a_librarys_exception() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert '"library": "uvicorn.error"' in ended.stderr
    assert '"error": "ValueError", "at": "<string>:7"}' in ended.stderr
    assert [json.loads(line)["text"] for line in ended.stderr.splitlines()] == [
        "Exception in the application of …",
        "…",
    ]
    assert "Mary" not in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("name", "message", "values", "text"),
    [
        (
            "kafka.net.manager",
            "Connection failed: %s",
            ("[Errno 111] refused",),
            "Connection failed: [Errno 111] refused",
        ),
        ("kafka.producer", "Sending (key=%r value=%r)", (b"Mary", "Smith"), "Sending (key=… value=…)"),
        (
            "urllib3",
            "Retrying after %s in %d s at %s",
            (TimeoutError("Mary"), 3, "https://x/?sig=1"),
            "Retrying after TimeoutError in 3 s at …",
        ),
        ("grpc", "topic %s, 100%% of %(x)s", ("run.failed.v1",), "topic run.failed.v1, 100% of …"),
        ("grpc", "number %d", (447700900418,), "number …"),
        ("grpc", "Mary Smith was here", (), "…"),
    ],
)
def test_keeps_a_librarys_text_without_the_values_that_it_handled(
    name: str, message: str, values: tuple[Any, ...], text: str
) -> None:
    assert scrubbed(logging.LogRecord(name, logging.ERROR, "x.py", 1, message, values, None)) == text


def test_an_unchanged_line_of_a_library_is_logged_once_a_minute() -> None:
    moment = 0.0
    repeats = _Repeats(lambda: moment)
    line = logging.LogRecord("kafka.cluster", logging.ERROR, "x.py", 591, "Topic %s not found", ("a",), None)
    other = logging.LogRecord("kafka.cluster", logging.ERROR, "x.py", 591, "Topic %s not found", ("b",), None)
    assert [repeats.filter(record) for record in (line, other, line, other)] == [True, True, False, False]
    moment = REPEAT_SECONDS
    assert repeats.filter(line)
