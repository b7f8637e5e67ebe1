"""An expert at the console, who uses the page's default comparison."""

import json
import re
from dataclasses import dataclass

import grpc
import httpx

from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import drafts_pb2
from tailor.api.registry.v1 import registry_pb2
from tests.e2e.conftest import Installation, ask_until


@dataclass(frozen=True)
class Answer:
    """One answer of a comparison."""

    draft_id: str
    text: str


class Expert:
    """An expert who is signed in to the console with a new key."""

    def __init__(self, installation: Installation) -> None:
        self._registry = installation.registry
        request = registry_pb2.CreateKeyRequest(name="ranks", role=common_pb2.ROLE_EXPERT)
        secret = self._registry.CreateKey(request, timeout=60).secret
        self._browser = httpx.Client(base_url=installation.connection.console_url, timeout=60)
        form = {"secret": secret, "csrf": self._find("/login", r'data-csrf="([^"]+)"')}
        assert self._browser.post("/login", data=form).status_code == 303
        self._browser.headers["x-csrf-token"] = self._find("/ask", r'data-csrf="([^"]+)"')
        other = self._find("/ask", r'<select name="compare">\s*<option value="(\w+)"')
        assert other == "draw", "the page's default comparison must be of two samples"
        self._temperature = float(self._find("/ask", r'name="temperature" value="([\d.]+)"'))

    def compare(self, specialist: str, prompt: str, max_tokens: int) -> list[Answer]:
        """Sample two answers of the specialist."""
        return [self._ask(specialist, prompt, max_tokens) for _ in range(2)]

    def draft(self, draft_id: str) -> drafts_pb2.DraftCreated:
        """Wait until the registry knows a draft, and return it."""

        def known() -> drafts_pb2.DraftCreated | None:
            try:
                return self._registry.Trace(registry_pb2.TraceRequest(draft_id=draft_id), timeout=60).draft
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    return None
                raise

        return ask_until(known, "a draft in the catalogue", 30)

    def prefer(self, better: Answer, worse: Answer) -> str:
        """Rank one answer above the other, and return the judgement's id."""
        mark = {"draft_id": better.draft_id, "criterion": "style", "mark": 4}
        judgement = {"ranking": [better.draft_id, worse.draft_id], "marks": [mark]}
        answer = self._browser.post("/api/judgements", json=judgement)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["judgement_id"])

    def _ask(self, specialist: str, prompt: str, max_tokens: int) -> Answer:
        request = {"model": specialist, "prompt": prompt, "max_tokens": max_tokens, "temperature": self._temperature}
        body = self._browser.post("/api/ask", json=request).raise_for_status().text
        pieces = [json.loads(data) for name, data in re.findall(r"event: (\w+)\ndata: (.*)\n", body) if name == "piece"]
        return Answer(pieces[-1]["draft_id"], "".join(piece["text"] for piece in pieces))

    def _find(self, path: str, pattern: str) -> str:
        match = re.search(pattern, self._browser.get(path).raise_for_status().text)
        assert match, pattern
        return match.group(1)
