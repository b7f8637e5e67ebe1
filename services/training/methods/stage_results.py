"""Small signed results that a stage computes before its first training step, such as a sweep's losses.

They lie next to its checkpoints (`runs/RUN/EPOCH/stage-K-note-NAME.json`), so that a restarted worker need not compute them again.
"""

import json
from collections.abc import Mapping
from typing import Any

from tailor.errors import NotFound
from tailor.logging import get_logger
from tailor.rpc.identity import Identity
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore

log = get_logger(__name__)

# Prefix of the signed data, so that a signature is valid for notes only.
PURPOSE = b"tailor note 1\n"
# What reading an untrusted note or manifest may raise.
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class StageNotes:
    """The notes of one stage of a run. `epoch` is this worker's; it writes only under its own epoch."""

    def __init__(self, store: ObjectStore, signer: Identity, run_id: str, epoch: int, stage: int) -> None:
        self._store = store
        self._signer = signer
        self._run_id = run_id
        self._epoch = epoch
        self._stage = stage

    def write(self, name: str, value: Any) -> None:
        content = {"run_id": self._run_id, "stage": self._stage, "name": name, "value": value}
        note = sign_json(self._signer, PURPOSE, content)
        self._store.put(MODELS, f"runs/{self._run_id}/{self._epoch}/{self._file_name(name)}", note, "application/json")

    def read(self, name: str) -> Any:
        """The value that a worker of any epoch wrote, or None if no note has a valid signature."""
        for key in self._store.list_keys(MODELS, f"runs/{self._run_id}/"):
            if not key.endswith(f"/{self._file_name(name)}"):
                continue
            try:
                return self._verify(name, self._store.read(MODELS, key))
            except (NotFound, *MALFORMED) as error:
                log.warning("note skipped", error=type(error).__name__)
        return None

    def _file_name(self, name: str) -> str:
        return f"stage-{self._stage}-note-{name}.json"

    def _verify(self, name: str, data: bytes) -> Any:
        note = verify_json(self._signer, PURPOSE, data)
        if (note["run_id"], note["stage"], note["name"]) != (self._run_id, self._stage, name):
            raise ValueError("the note belongs to another stage")
        return note["value"]


def sign_json(signer: Identity, purpose: bytes, content: Mapping[str, Any]) -> bytes:
    """A JSON object with its signature, which is valid for the purpose only."""
    signature = signer.sign(_bytes_to_sign(purpose, content)).hex()
    return json.dumps({**content, "signature": signature}, sort_keys=True).encode()


def verify_json(signer: Identity, purpose: bytes, data: bytes) -> dict[str, Any]:
    """What `sign_json` signed. Raises one of MALFORMED if it is not JSON, or not signed with the workers' key for this purpose."""
    content: dict[str, Any] = json.loads(data)
    signature = bytes.fromhex(content.pop("signature"))
    if not signer.verify(_bytes_to_sign(purpose, content), signature):
        raise ValueError("it is not signed with the workers' key")
    return content


def _bytes_to_sign(purpose: bytes, content: Mapping[str, Any]) -> bytes:
    return purpose + json.dumps(content, sort_keys=True).encode()
