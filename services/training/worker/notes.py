"""What a stage found out before its first step, kept beside its checkpoints: `runs/RUN/EPOCH/stage-K-note-NAME.json`, signed."""

import json
from typing import Any

from services.training.worker.checkpoints import NONSENSE, Signer
from tailor.errors import NotFound
from tailor.logging import get_logger
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore

log = get_logger(__name__)

# Before what is signed, so that the signature is good for nothing else that the key signs.
PURPOSE = b"tailor note 1\n"


class Notes:
    """The notes of one stage of a run: small JSON values by name. `epoch` is this worker's: it writes under it alone."""

    def __init__(self, store: ObjectStore, signer: Signer, run_id: str, epoch: int, stage: int) -> None:
        self._store = store
        self._signer = signer
        self._run_id = run_id
        self._epoch = epoch
        self._stage = stage

    def write(self, name: str, value: Any) -> None:
        """Keep a value."""
        content = {"run_id": self._run_id, "stage": self._stage, "name": name, "value": value}
        signature = self._signer.sign(_signed(content)).hex()
        note = json.dumps({**content, "signature": signature}, sort_keys=True).encode()
        self._store.put(MODELS, f"runs/{self._run_id}/{self._epoch}/{self._file(name)}", note, "application/json")

    def read(self, name: str) -> Any:
        """A value that a worker of any epoch kept; None where there is none, or none that the workers' key signed as it stands there."""
        for key in self._store.list_keys(MODELS, f"runs/{self._run_id}/"):
            if not key.endswith(f"/{self._file(name)}"):
                continue
            try:
                return self._verified(name, self._store.read(MODELS, key))
            except (NotFound, *NONSENSE) as error:
                log.warning("note passed over", error=type(error).__name__)
        return None

    def _file(self, name: str) -> str:
        return f"stage-{self._stage}-note-{name}.json"

    def _verified(self, name: str, data: bytes) -> Any:
        note = json.loads(data)
        signature = bytes.fromhex(note.pop("signature"))
        if not self._signer.verify(_signed(note), signature):
            raise ValueError("the workers' key did not sign the note")
        if (note["run_id"], note["stage"], note["name"]) != (self._run_id, self._stage, name):
            raise ValueError("the note is another's")
        return note["value"]


def _signed(content: dict[str, Any]) -> bytes:
    return PURPOSE + json.dumps(content, sort_keys=True).encode()
