"""Messages after commands."""

# Messages after a command, by the value of `notice` in the URL.
NOTICES = {
    "promoted": "The adapter now serves.",
    "created": "The specialist is defined. Documents that it selects become its first dataset.",
    "existed": "The specialist existed with this definition; nothing changed.",
    "building": "The build takes longer. It continues, and the dataset appears here when it is done.",
    "unchanged": "Nothing is new since the newest dataset, so nothing was built.",
    "built": "The dataset is built. The specialist's pipeline starts on it by itself; a run above a limit of hours waits for approval.",
    "admitted": "The next build may learn from it.",
    "evaluating": "The evaluation is queued.",
    "started": "The run is queued.",
    "run-approved": "The run is approved and queued.",
    "cancelled": "The run is cancelled.",
    "updated": "The definition is saved as a new revision.",
    "deleted": "The specialist is deleted. Its documents, datasets, adapters and drafts stay until documents are erased.",
    "allowed": "The string is allowed in a new policy, and a replay brings that to the documents whose texts are kept.",
    "allowed-later": "The string is allowed in a new policy, but no replay began: another one runs. Later: `tailor replay start`.",
    "kept": "The string stays replaced, and no longer counts as over-redaction.",
    "rolled-back": "The previous adapter serves again.",
    "canary-started": "The canary now serves a share of the callers.",
    "canary-stopped": "The canary has ended; the serving adapter answers all callers.",
}
