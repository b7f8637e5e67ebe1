"""The teacher against a small OpenAI-style server."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from services.synthetic.adapters.teacher import OpenAiTeacher
from services.synthetic.domain import TeacherAnswer
from tailor.errors import InvalidArgument, Unavailable

pytestmark = pytest.mark.integration


class Endpoint:
    """Answers with the next of `replies`: text of the model, or an HTTP status."""

    def __init__(self) -> None:
        self.replies: list[str | int] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                endpoint.requests.append({"path": self.path, **json.loads(body)})
                endpoint.keys.append(self.headers["authorization"])
                reply = endpoint.replies.pop(0)
                status, content = (reply, "") if isinstance(reply, int) else (200, reply)
                answer = {
                    "id": "x", "object": "chat.completion", "created": 0, "model": "wise",
                    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
                    "usage": {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42},
                }  # fmt: skip
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()


def test_makes_pairs_and_counts_tokens(endpoint: Endpoint) -> None:
    endpoint.replies = ['Here: [{"question": " Why? ", "answer": "Because."}, {"question": 3}] Done.']
    teacher = OpenAiTeacher(endpoint.url, "secret", "wise")
    assert teacher.ask("A passage.") == TeacherAnswer((("Why?", "Because."),), 42)
    assert endpoint.requests[0]["path"] == "/v1/chat/completions" and endpoint.requests[0]["model"] == "wise"
    assert endpoint.requests[0]["messages"][-1] == {"role": "user", "content": "A passage."}
    assert endpoint.keys == ["Bearer secret"]


@pytest.mark.parametrize("reply", ["No JSON here.", "[", '{"question": "x"}', "[1, 2]", "] ["])
def test_an_answer_that_does_not_parse_gives_no_pairs(endpoint: Endpoint, reply: str) -> None:
    endpoint.replies = [reply]
    assert OpenAiTeacher(endpoint.url, "k", "wise").ask("A passage.").pairs == ()


def test_a_busy_or_broken_teacher_is_unavailable_but_one_that_refuses_is_not(endpoint: Endpoint) -> None:
    endpoint.replies = [503, 429, 401]
    teacher = OpenAiTeacher(endpoint.url, "k", "wise")
    for _ in range(2):
        with pytest.raises(Unavailable, match="TEACHER_UNAVAILABLE"):
            teacher.ask("A passage.")
    with pytest.raises(InvalidArgument, match="TEACHER_REFUSED"):
        teacher.ask("A passage.")
    assert len(endpoint.requests) == 3


def test_a_missing_teacher_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        OpenAiTeacher("http://127.0.0.1:9/v1", "k", "wise", timeout_seconds=2).ask("A passage.")
