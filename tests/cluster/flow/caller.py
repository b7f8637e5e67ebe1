"""Runs in a pod of the flow, and outside of the cluster, with nothing but the client: asks until the file STOP is there, and prints figures now
and then."""

import json
import os
import threading
import time
from collections import Counter
from pathlib import Path

from tailor.client import TailorClient, Tls
from tailor.errors import TailorError

STOP = Path(os.environ.get("STOP", "/tmp/stop"))
PRINT_SECONDS = 2.0
# So that an answer is on its way at every moment.
CALLERS = 2
CALL_SECONDS = 120.0
ANSWERED = "ANSWERED"


def main() -> None:
    """The last line has the figures of all calls."""
    questions = json.loads(os.environ["QUESTIONS"])
    counts = [Counter[str]() for _ in questions[:CALLERS]]
    ca = os.environ.get("TAILOR_TLS_CA_FILE")
    with TailorClient(os.environ["ADDRESS"], tls=Tls(Path(ca).read_bytes()) if ca else None) as client:
        callers = [
            threading.Thread(target=ask, args=(client, question, own))
            for question, own in zip(questions, counts, strict=False)
        ]
        for caller in callers:
            caller.start()
        while any(caller.is_alive() for caller in callers):
            time.sleep(PRINT_SECONDS)
            print(json.dumps(sum(counts, Counter())), flush=True)


def ask(client: TailorClient, question: str, counts: Counter[str]) -> None:
    """Ask again and again, and count the answers of an adapter, those of the bare base, and errors by their reasons."""
    while not STOP.exists():
        try:
            answer = client.generate(os.environ["MODEL"], question, max_tokens=16, timeout_seconds=CALL_SECONDS)
        except TailorError as error:
            counts[error.reason] += 1
        else:
            counts[ANSWERED if answer.provenance.adapter_digest else "ANSWERED_BY_BASE"] += 1


if __name__ == "__main__":
    main()
