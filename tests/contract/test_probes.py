"""Inference reads the probe rows that the trainer stores."""

import json

from services.inference.adapters.verify import read_probes
from services.inference.domain import MAX_PROBES, Probe
from services.training.worker.reload_check import CONVERSATIONS, ReloadCheck, to_entries
from tailor.chat import Encoded


def test_inference_reads_the_probe_rows_that_the_trainer_stores() -> None:
    rows = [Encoded(name, (5, 6, 7, 8), 2) for name in CONVERSATIONS]
    figures = [-1.25 - number for number in range(len(rows))]
    stored = json.dumps({"kind": "policy", "probes": to_entries("policy", rows, ReloadCheck(0.0, figures), "f32")})
    assert read_probes(json.loads(stored)) == [Probe((5, 6, 7, 8), 2, figure) for figure in figures]
    assert 1 <= len(rows) <= MAX_PROBES
