"""The buckets and the access of each service, by least privilege. Read by the embedded stack, the manifests and a test.

The barrier depends on it: only ingestion and anonymization may reach the quarantine bucket.
"""

from typing import Literal

QUARANTINE = "quarantine"
CORPUS = "corpus"
DATASETS = "datasets"
MODELS = "models"
DRAFTS = "drafts"
REPORTS = "reports"

BUCKETS = (QUARANTINE, CORPUS, DATASETS, MODELS, DRAFTS, REPORTS)

Right = Literal["r", "w", "rw"]

# Every service has its own credentials. So does the worker of a training run, which gets no other credentials of its service.
ACCESS: dict[str, dict[str, Right]] = {
    "ingestion": {QUARANTINE: "rw"},
    "anonymization": {QUARANTINE: "rw", CORPUS: "rw"},
    "synthetic": {CORPUS: "r", DRAFTS: "r", DATASETS: "rw"},
    "training": {DATASETS: "r", MODELS: "rw"},
    "training-worker": {DATASETS: "r", MODELS: "rw"},
    "evaluation": {DATASETS: "r", REPORTS: "rw"},
    "registry": {REPORTS: "r", DATASETS: "r"},
    "inference": {MODELS: "r", DRAFTS: "rw"},
    "console": {},
}
