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

# In the bucket of models: the bases, without the adapters.
BASES = f"{MODELS}/bases/"

# In the bucket of drafts: texts whose prompts were drawn from documents, which an erasure of a document must reach.
DRAWN = "drawn/"

# Every service has its own credentials. So does the worker of a training run, which gets no other credentials of its service.
# Rights are on a bucket, or on the objects of a bucket whose keys begin with a prefix, as `BUCKET/PREFIX`.
ACCESS: dict[str, dict[str, Right]] = {
    "ingestion": {QUARANTINE: "rw"},
    "anonymization": {QUARANTINE: "rw", CORPUS: "rw"},
    "synthetic": {CORPUS: "r", DRAFTS: "r", f"{DRAFTS}/{DRAWN}": "rw", DATASETS: "rw", BASES: "r"},
    "training": {DATASETS: "r", MODELS: "rw"},
    "training-worker": {DATASETS: "r", MODELS: "rw"},
    "evaluation": {DATASETS: "r", REPORTS: "rw"},
    # It verifies what all others store outside quarantine.
    "registry": {REPORTS: "r", DATASETS: "r", CORPUS: "r", DRAFTS: "r", MODELS: "r"},
    "inference": {MODELS: "r", DRAFTS: "rw"},
    "console": {},
}


def split_scope(scope: str) -> tuple[str, str]:
    """The bucket and the prefix of an entry of `ACCESS`; the prefix is empty for a whole bucket."""
    bucket, _, prefix = scope.partition("/")
    return bucket, prefix
