"""What reaches the log."""

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


def test_what_a_library_says_of_an_exception_is_its_type_and_place() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert '"library": "uvicorn.error"' in ended.stderr
    assert '{"error": "ValueError", "at": "<string>:7"}' in ended.stderr
    assert "Mary" not in ended.stderr and "Traceback" not in ended.stderr
