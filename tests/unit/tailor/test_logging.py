"""The log leaves out the messages of exceptions."""

import subprocess
import sys

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
    assert '{"error": "ValueError", "at": "<string>:7"}' in ended.stderr
    assert "Mary" not in ended.stderr and "Traceback" not in ended.stderr
