"""An expert at the console, who compares what its page offers first."""

import json
import re
from dataclasses import dataclass

import grpc
import httpx

from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import drafts_pb2
from tailor.api.registry.v1 import registry_pb2
from tests.e2e.conftest import Installation, wait_until


@dataclass(frozen=True)
class Answer:
    """One of two answers."""

    draft_id: str
    text: str


class Expert:
    """Signed in with a key of its own."""

    def __init__(self, installation: Installation) -> None:
        self._registry = installation.registry
        request = registry_pb2.CreateKeyRequest(name="ranks", role=common_pb2.ROLE_EXPERT)
        secret = self._registry.CreateKey(request, timeout=10).secret
        self._browser = httpx.Client(base_url=installation.connection.console_url, timeout=60)
        form = {"secret": secret, "csrf": self._found("/login", r'data-csrf="([^"]+)"')}
        assert self._browser.post("/login", data=form).status_code == 303
        self._browser.headers["x-csrf-token"] = self._found("/ask", r'data-csrf="([^"]+)"')
        beside = self._found("/ask", r'<select name="beside">\s*<option value="(\w+)"')
        assert beside == "draw", "the page's first comparison is not of two draws"
        self._temperature = float(self._found("/ask", r'name="temperature" value="([\d.]+)"'))

    def compare(self, specialist: str, prompt: str, max_tokens: int) -> list[Answer]:
        """Two draws of the specialist."""
        return [self._ask(specialist, prompt, max_tokens) for _ in range(2)]

    def draft(self, draft_id: str) -> drafts_pb2.DraftCreated:
        """What the registry knows of a draft, once it does."""

        def known() -> drafts_pb2.DraftCreated | None:
            try:
                return self._registry.Trace(registry_pb2.TraceRequest(draft_id=draft_id), timeout=10).draft
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:  # type: ignore[attr-defined]
                    return None
                raise

        return wait_until(known, "a draft in the catalogue", 30)

    def prefer(self, better: Answer, worse: Answer) -> str:
        """Rank two answers; the judgement's id."""
        judged = {"ranking": [better.draft_id, worse.draft_id], "style": 4}
        answer = self._browser.post("/api/judgements", json=judged)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["judgement_id"])

    def _ask(self, specialist: str, prompt: str, max_tokens: int) -> Answer:
        asked = {"model": specialist, "prompt": prompt, "max_tokens": max_tokens, "temperature": self._temperature}
        said = self._browser.post("/api/ask", json=asked).raise_for_status().text
        pieces = [json.loads(data) for name, data in re.findall(r"event: (\w+)\ndata: (.*)\n", said) if name == "piece"]
        return Answer(pieces[-1]["draft_id"], "".join(piece["text"] for piece in pieces))

    def _found(self, path: str, pattern: str) -> str:
        found = re.search(pattern, self._browser.get(path).raise_for_status().text)
        assert found, pattern
        return found.group(1)
