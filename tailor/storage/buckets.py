"""The buckets and who may touch them: least privilege, read by the embedded stack, the manifests and a test."""

from typing import Literal

QUARANTINE = "quarantine"
CORPUS = "corpus"
DATASETS = "datasets"
MODELS = "models"
DRAFTS = "drafts"
REPORTS = "reports"

BUCKETS = (QUARANTINE, CORPUS, DATASETS, MODELS, DRAFTS, REPORTS)

Right = Literal["r", "w", "rw"]

# Every service has credentials of its own, and so has the worker of a run, which is given nothing else of its service's.
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
