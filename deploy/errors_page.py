"""Write `docs/errors.md` from the code: every reason with its codes, and the messages that say its cause and remedy.

`python -m deploy.errors_page` writes the page; `--check` fails if it is out of date. Both fail if a reason has no explanation, or one that does not
say what to do.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tailor import errors
from tailor.errors import Code, Reason, TailorError

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "errors.md"
SOURCES = ("services", "tailor", "deploy")
MAX_MESSAGES = 2  # per reason; further raise sites say the same in other words

# Signs of a remedy: an instruction, what a value must be, a command, or that nothing has to be done.
INSTRUCTIONS = (
    "accept|add|ask|build|change|check|choose|close|convert|copy|correct|create|declare|decline|draw|"
    "evaluate|find|free|generate|give|grant|grow|have|improve|install|judge|leave|lift|lower|make|mask|"
    "name|promote|publish|put|raise|rank|read|reload|remove|rename|repeat|report|restart|restore|retry|"
    "review|roll|run|save|see|send|set|shorten|sign|simplify|start|stop|take|train|try|update|use|wait"
)
REMEDY = re.compile(
    rf"(?:^|[.:;?] |, (?:or|and|then) |\bthen )(?:{INSTRUCTIONS})\b"
    r"|\bmust\b|\bby itself\b|`tailor |\bnothing has to be done\b",
    re.IGNORECASE,
)

# Reasons that the code passes on with a message built elsewhere, or that stand for a canonical code without a closer reason.
EXPLAINED = {
    Reason.SUPERSEDED: "Another run takes its place: it learns from newer datasets of the specialist. Nothing has to be done.",
    Reason.BEYOND_THE_REGISTRY: "An event claims more than the registry has published, or an answer was not asked for. Find out who may write that topic; only its producer should.",
    Reason.WRONG_PARTITIONS: "A topic has another number of partitions than is set. Grow it with `--grow` or change TAILOR_KAFKA_PARTITIONS, as the message says.",
    Reason.ABORTED: "A concurrent change won. Read again and retry.",
    Reason.AMBIGUOUS_ADAPTER: "Several adapters begin with the given digits. Give more digits.",
    Reason.INVALID_PLANTED_SECRET: "A file of planted secrets has one JSON object per line; the message names the secret or the rule. See docs/evaluation/suites.md.",
    Reason.REQUEST_ID_REUSED: "The request id came with another request before. Send a new id, or the same request as before. The HTTP API answers with the status 422.",
    Reason.COMPONENT_FAILED: "A part of the embedded stack cannot start. Read the log that the message names.",
    Reason.EXTERNAL_KEY_REFUSED: "The external model refused the key. Set a valid one in TAILOR_EXTERNAL_MODEL_KEYS; then `tailor adapter evaluate ADAPTER`.",
    Reason.EXTERNAL_QUOTA: "The quota at the external model is used up. Raise it; then `tailor adapter evaluate ADAPTER`.",
    Reason.EXTERNAL_REFUSED: "The external model refused more than a few prompts. Check its name, its limits and its filters.",
    Reason.INVALID_ROW: "More than a hundredth of the rows have no text, or the chat template of the specialist's base holds none of them; the message names some, their documents and the cause. Build the dataset again with `tailor build SPECIALIST`, which leaves such rows out.",
    Reason.INVALID_QUESTIONS: "The sample's questions.json must be a JSON list of objects, each with a `question`.",
    Reason.NOT_SERVING: "The specialist exists, but no adapter serves under its name here yet, or another one than was waited for. `tailor adapter list --specialist NAME` shows what its adapters wait for; `tailor adapter promote NAME ADAPTER` makes one serve.",
    Reason.ROLLOUT_REFUSED: "A replica refuses the adapter, and what served before still serves there. Correct what the message says, or roll back with `tailor adapter rollback NAME`.",
    Reason.ROLLOUT_UNFINISHED: "Not every ready replica serves the adapter yet. `tailor specialist show NAME` names those that do not.",
    Reason.STACK_NOT_READY: "The embedded stack took too long to become ready. Read the logs in `.tailor/logs/` of the parts that the message names, then repeat `tailor up`.",
    Reason.AMBIGUOUS_DATASET: "Several datasets begin with the given digits. Give more digits.",
    Reason.UNKNOWN_ERASURE: "This erasure does not exist. `tailor erasure list` lists the known ones.",
    Reason.UNKNOWN_ORIGIN: "The specialist selects no document of this source, or no example or golden document of this publisher. `tailor specialist origins NAME` shows which there are.",
    Reason.UNKNOWN_REPLAY: "This replay does not exist. `tailor replay list` lists the known ones.",
    Reason.CHILD_FAILED: "The process that reads the input failed without saying why. See the service's log.",
    Reason.CONTAINER_NOT_MADE: "Kubernetes could not create the worker's container. Correct what the message says, such as a missing Secret or ConfigMap; the run starts by itself.",
    Reason.UNIMPLEMENTED: "The service does not have this call; it may be of another version. Update it.",
    Reason.DATASET_ERASED: "The dataset was superseded because a document was erased. Train on the newer dataset.",
    Reason.EVENTS_SET_ASIDE: "The broker will never take some events of the outbox. `tailor event dead` lists them; `tailor event replay SERVICE EVENT` sends them again after the cause is mended.",
    Reason.KAFKA_RIGHT_MISSING: "The service's Kafka user lacks a right; the message names the right and the topic or group. Grant it with `python -m deploy.init.topics`, or add the ACL by hand. The service goes on by itself.",
    Reason.EVALUATION_FAILED: "The candidate could not be measured. `tailor adapter list` and evaluation's log say why; then `tailor adapter evaluate ADAPTER`.",
    Reason.IMAGE_NOT_PULLED: "Kubernetes could not pull the worker's image. Check its name and the pull secret.",
    Reason.INVALID_HEADER: "A header of the safetensors file or of the request is malformed. Save the model again as safetensors, or correct the header that the message names.",
    Reason.NO_LOG_PROBABILITIES: "A specialist with private prompts returns no log-probabilities. Ask without them.",
    Reason.NO_LONGER_KEPT: "The specialist stopped keeping drafts before this text was stored. Set `keep_drafts = true` to keep those of the future.",
    Reason.PRIVATE_SCHEMA: "With private prompts, a JSON schema may name people only in `enum` and `const`. Remove names from its other parts.",
    Reason.PROMPT_TOO_LONG: "Prompt and answer together must fit the base's context. Shorten the prompt.",
    Reason.RUN_FAILED: "The run ended without an adapter. `tailor run watch RUN --logs` shows its worker's log.",
    Reason.STARTED_TOO_OFTEN: "The evaluation was interrupted too often. Check evaluation's memory and log, then `tailor adapter evaluate ADAPTER`.",
    Reason.TOO_MUCH_WAITS: "Too many drafts wait for anonymization, so this text was not stored. Add replicas of anonymization.",
    Reason.TOO_OLD: "The draft waited too long for anonymization, so its text was not stored. Start anonymization, or add replicas of it.",
    Reason.TARGET_NOT_REACHED: "The synthesis ended with fewer rows than wanted. Its refusals say why; give more seeds or a finer grid.",
    Reason.TARGET_REACHED: "The synthesis ended with all rows that were wanted. Nothing has to be done.",
    Reason.TEACHER_KEY_REFUSED: "The teacher refused the key. Set a valid one and restart synthetic; the synthesis resumes by itself.",
    Reason.TEACHER_QUOTA: "The quota at the teacher is used up. Raise it; the synthesis resumes by itself, or by `tailor synthesis resume ID`.",
    Reason.TEACHER_UNKNOWN_MODEL: "The endpoint does not have the model. Correct TAILOR_TEACHER_MODEL or the address, and restart synthetic.",
    Reason.WAITS_FOR_ADMISSION: "Kueue has not admitted the run's Job yet, or has evicted it; the message has Kueue's reason. The run starts by itself once the queue has room.",
    Reason.WAITS_FOR_CONTAINER: "The worker's container is being created. The run starts by itself.",
    Reason.WAITS_FOR_IMAGE: "The worker's image is being pulled. The run starts by itself.",
    Reason.WAITS_FOR_NODE: "No node has room for the worker; the message is the scheduler's. Add a GPU node, or wait until one is free.",
    Reason.WAITS_FOR_PLAN: "The run has not been planned yet. It is planned by itself.",
    Reason.WAITS_FOR_POD: "Kubernetes does not create the worker's pods. Correct what the message says, such as a PriorityClass that does not exist; the run starts by itself.",
    Reason.WAITS_FOR_QUOTA: "The worker would exceed the namespace's ResourceQuota; the message names the quota, what is requested and what is in use. Raise the quota, or wait: the run starts by itself when enough is free.",
    Reason.WORKER_DIED: "The worker process ended unexpectedly, for example for lack of memory. The run starts again by itself from its last checkpoint.",
    Reason.WORKER_SILENT: "The worker stopped reporting. The run starts again by itself from its last checkpoint.",
    Reason.ALREADY_EXISTS: "The name is taken. Choose another one.",
    Reason.FAILED_PRECONDITION: "The current state does not allow the call. Change the state that the message names, then repeat the call.",
    Reason.INTERNAL: "A fault in a service. Its log has the place; report it.",
    Reason.INVALID_ARGUMENT: "The request is invalid. Correct the fields that the field violations name.",
    Reason.NOT_FOUND: "There is no such page or thing. Check the address or the id.",
    Reason.METHOD_NOT_ALLOWED: "The HTTP endpoint does not have this method. Use one that docs/inference/openai-api.md lists.",
    Reason.PERMISSION_DENIED: "The key's role does not allow the call. Use a key with a role that the method's comment in `proto/` names.",
    Reason.RESOURCE_EXHAUSTED: "A limit is reached. Retry later.",
    Reason.TOO_SLOW: "The request's body arrived too slowly. Send it faster.",
    Reason.UNAUTHENTICATED: "The caller could not be identified. Send a valid API key.",
    Reason.UNAVAILABLE: "The service does not answer. Retry.",
    Reason.ACCESS_NOT_GRANTED: "The broker refuses to create a user or a rule; the message names it. Sign in as Kafka's administrator (TAILOR_KAFKA_SASL_USERNAME), or create users elsewhere and set TAILOR_KAFKA_ACCESS=rules.",
    Reason.ADAPTER_DOES_NOT_LOAD: "The engine cannot load the adapter, or it cannot be merged into its base. Train it again on this base with a shipped recipe.",
    Reason.ADAPTER_IN_USE: "An answer is still being generated with the adapter. Wait until it ends; the service retries by itself.",
    Reason.ADAPTER_RETIRED: "The adapter was retired or its document was erased. Build and train again, then promote the new adapter.",
    Reason.BUDGET_SPENT: "The rest of the budget is less than the next request can cost. Create another synthesis with a larger budget.",
    Reason.CALL_ENDED: "The caller went away, or its deadline passed. Set a longer deadline and retry.",
    Reason.CANCELLED: "The caller went away before the answer began. Retry if the answer is still wanted.",
    Reason.CANDIDATE_LOST: "Inference has unloaded the candidate, for example in a restart. Evaluation loads it again by itself.",
    Reason.CANNOT_PUBLISH: "Nothing was sent, because some files are invalid. Correct the files that the field violations name, and publish again.",
    Reason.CHAT_REFUSED: "The base's chat template does not accept these messages. Send user and assistant messages in turn, after one optional system message.",
    Reason.CHILD_KILLED: "The process that reads the input was killed, probably for lack of memory. Give the service more memory, or use a smaller file.",
    Reason.CHILD_TIMEOUT: "The input could not be read in time. Retry; if it lasts, check the object store and the size of the input.",
    Reason.CORRUPT_OBJECT: "The named object does not match its digest. `tailor verify` finds every such object, and says how each is made again without a backup.",
    Reason.DATABASE_UNAVAILABLE: "The database does not answer: start it, or correct TAILOR_DATABASE_URL, and the service continues by itself. Or another release wrote it: see [images](kubernetes/images.md#how-do-i-release).",
    Reason.DEADLINE_EXCEEDED: "The call took longer than its timeout. Retry with a longer one.",
    Reason.DETECTOR_UNAVAILABLE: "A detector of kind `remote` does not answer, or answers wrongly; the message names it. Start it, or correct its table in the detectors file; documents wait until then.",
    Reason.DOES_NOT_FIT: "The run does not fit the device, by the forecast. Use the nearest settings that fit, which the message names, a smaller recipe or a larger device.",
    Reason.DRAFT_WITHOUT_TEXT: "The draft's text is not stored, or has expired. Set `keep_drafts = true` in the specialist for the drafts of the future.",
    Reason.DUPLICATE_DOCUMENT_ID: "--document-id names one document. Give exactly one file or --uri with it.",
    Reason.ENGINE_DEAD: "The engine died; its process is started again. Retry in a minute; if it repeats, check inference's memory and log.",
    Reason.EVENT_EXPIRED: "Events expired before they were read; the message names them. Publish the documents again, and raise `retention.ms` of the topic.",
    Reason.EXTERNAL_BUSY: "The external model limits the rate of calls. Evaluation retries by itself; raise the limit at the provider if it lasts.",
    Reason.FIELD_TOO_LONG: "The request has fields that are too long. Shorten those that the field violations name.",
    Reason.GATE_NOT_MET: "The adapter did not pass the gate; the message has the reasons. Improve the data or the recipe and train again, or promote it with `--override --reason`.",
    Reason.GROUP_CHANGED: "The consumer group is rebalancing. The consumer continues by itself.",
    Reason.HOST_FAILED: "The host of the referenced file answered with an error. Check the URL, and that it can be read without authentication; then publish again.",
    Reason.HOST_UNAVAILABLE: "The host of the referenced file did not answer. Check the URL, the host and ingestion's way out to it; ingestion retries by itself.",
    Reason.HTTP_NOT_STARTED: "The web server does not accept connections yet. Wait for `/readyz`, or read the service's log if it lasts.",
    Reason.INCOMPLETE_ADAPTER: "A layer of the adapter lacks one of its two matrices. Train the adapter again.",
    Reason.INCOMPLETE_EVENT: "The event lacks a required field; the message names it. Correct the producer and publish again.",
    Reason.INVALID_CANARY: "The canary's policy is invalid. Correct the fields that the field violations name; docs/registry/promotion.md has their limits.",
    Reason.INVALID_CONFIG: "The adapter's `adapter_config.json` is too large, or is not a JSON object with the expected fields. Train the adapter again.",
    Reason.INVALID_DEFINITION: "The file is not a valid definition of a specialist. Correct what the message names; docs/registry/specialist.toml has every field.",
    Reason.INVALID_EDIT: "The edited text is empty, unchanged or too long. Correct what the field violations say.",
    Reason.INVALID_ERASURE: "The erasure is invalid. Correct the fields that the field violations name: an erasure needs documents, or datasets, and a reason.",
    Reason.INVALID_FEEDBACK: "The feedback is invalid. Correct the fields that the field violations name: the verdict, the stars from 1 to 5, or the lengths of the texts.",
    Reason.INVALID_FILE: "The file cannot be read, or is too large. Check its path and rights, or import it in parts.",
    Reason.INVALID_KEY: "The key's terms are invalid. Correct the fields that the field violations name; a key that is limited to specialists can only create keys that are limited, too.",
    Reason.INVALID_KIND: "The event's `kind` is not in the contract. Use one of those that docs/events.md lists.",
    Reason.INVALID_MANIFEST: "A manifest is too large, or lacks a field. Build the dataset or train the adapter again.",
    Reason.INVALID_MARKS: "The decision or its marks are invalid. Correct what the field violations name: each mark is [start, end, type] within the passage.",
    Reason.INVALID_METRIC: "The specialist names a metric that does not exist, or with invalid settings. Correct it; docs/evaluation/metrics.md lists all metrics.",
    Reason.INVALID_OUTCOME: "The outcome is invalid. Give `minutes`, `satisfaction` from 1 to 5, or both, for a draft or for a specialist.",
    Reason.INVALID_PAGE_SIZE: "The page size is negative. Give 0 for the default, or a positive number.",
    Reason.INVALID_PERSON: "The person cannot be invited. Correct the fields that the field violations name; if your key is limited to specialists, limit the person, too.",
    Reason.INVALID_POLICY: "The policy is invalid or too slow, and was not applied. Correct what the field violations name, and try it with `tailor policy check FILE`.",
    Reason.INVALID_QUESTION: "The question is invalid. Correct the fields that the field violations name.",
    Reason.INVALID_REASON: "The decision stays on record and needs a reason. Give one; the field violations say how long it must be.",
    Reason.INVALID_RECIPE: "The recipe is invalid, or does not fit its base. Correct the setting that the message names; docs/training/recipes.md explains them.",
    Reason.INVALID_REQUEST: "The request is invalid. Correct the fields that the field violations name.",
    Reason.INVALID_SAMPLE: "The sample's size is invalid. Give a number within the limits that the field violations name.",
    Reason.INVALID_SCHEMA: "The JSON schema is not supported; the message says why. Simplify it.",
    Reason.INVALID_SETTINGS_FILE: "The settings file is not TOML, or has an unknown table, setting or value. Correct the place that the message names.",
    Reason.INVALID_SOURCE: "The source of a base is malformed. Use `wheel:PACKAGE`, `path:/DIRECTORY`, `hub:OWNER/NAME[@REVISION]` or `adapter:DIGEST`.",
    Reason.INVALID_SPECIALIST: "The definition is invalid. Correct the fields that the field violations name; docs/registry/specialist.toml has every field.",
    Reason.INVALID_SYNTHESIS: "The synthesis is invalid. Correct the fields that the field violations name; docs/synthetic/synthesis.md explains them.",
    Reason.INVALID_TEXT_OBJECT: "A stored text does not follow its contract. Publish the document again.",
    Reason.INVALID_TOKEN: "The token of the calling service is expired, used before, for another service, or not signed by its issuer. Check the clocks of the machines, and that all services have the same `trust.json`.",
    Reason.INVALID_TOML: "The file cannot be read, or is not TOML in UTF-8. Correct the place that the message names.",
    Reason.INVALID_VALUE: "A value cannot be stored: it is too long, out of range, or has a NUL character. Correct it and send it again.",
    Reason.JUDGEMENT_IN_DATASET: "A dataset that learns from this judgement was built since, so it can no longer be taken back. Rank two new drafts of the prompt on the page **Ask**.",
    Reason.JUDGE_UNAVAILABLE: "The judge model does not answer. Check TAILOR_JUDGE_BASE_URL and the way out to it; the work resumes by itself.",
    Reason.KUBERNETES_BUSY: "The Kubernetes API is busy. Training retries by itself.",
    Reason.KUBERNETES_REFUSED: "The Kubernetes API rejected the worker's Job. Correct the setting in TAILOR_KUBERNETES_* that the message names; then create the run again.",
    Reason.KUBERNETES_UNAVAILABLE: "The Kubernetes API does not answer. Check the API server and the network policy of training; training retries by itself.",
    Reason.MALFORMED_REQUEST: "The request is not a valid protobuf message of this method. Generate the client from `proto/` of this version.",
    Reason.METHOD_NOT_GIVEN: "This key is limited to other methods. Use another key, or create one with `tailor key create NAME --role ROLE --method METHOD`.",
    Reason.MISSING_FILE: "A file of the adapter is missing in the models bucket. Restore it from a backup, or train again.",
    Reason.NEXT_STAGE: "The run waits for the worker of its last stage to end. It continues by itself.",
    Reason.NOTHING_TO_MEASURE: "None of the held-out rows fits the metric. Name other tasks for the metric, or leave it out of the specialist.",
    Reason.NOTHING_TO_ROLL_BACK: "The base is serving. Promote an adapter first.",
    Reason.NOTHING_TO_UNDO: "Only your last decision can be taken back, and a judgement within 15 minutes. Judge or review the item again instead.",
    Reason.NOT_A_POLICY: "A reward adapter scores answers and cannot write any, so it cannot become a base. Name a policy adapter.",
    Reason.NOT_CATALOGUED_YET: "The registry has not read the event of the specialist or adapter yet. It retries by itself.",
    Reason.NOT_FINITE: "A weight is infinite or NaN. Train again with a lower learning rate.",
    Reason.NOT_FOR_THE_WIRE: "A number is out of range, or a text has an unpaired surrogate character. Correct the value that the log names.",
    Reason.NOT_OVERRIDABLE: "The adapter memorised more than the gate allows, which nobody can override. Train again with less repetition of the texts that the message names.",
    Reason.NOT_SAFETENSORS: "The weights' header is malformed or too large. Save the model again as safetensors.",
    Reason.NO_DATASET: "The stage has no dataset yet. Build it with `tailor build NAME`; the run then starts by itself.",
    Reason.NO_HELD_OUT_ROWS: "The dataset has no held-out rows that fit. Publish more documents, or raise `held_out_percent` of the specialist, and build again.",
    Reason.NO_MATPLOTLIB: "Plots need matplotlib. Install it: `pip install 'tailor-platform[plots]'`.",
    Reason.NO_MODEL_TO_COMPARE: "The judge metric compares with a model that this evaluation does not have. Correct `against` of the metric.",
    Reason.NO_PLOT: "This evaluation has no plot. Read its table, or evaluate again with matplotlib installed.",
    Reason.NO_ROWS: "No row was accepted, or none fits. Correct the file by the counts in the message, or raise `batch.max_length` of the recipe.",
    Reason.NO_SCHEMA: "`response_format.json_schema` needs a `schema` that is a JSON object. Give one.",
    Reason.NO_SURROGATE_LEFT: "No unused surrogate was found for a value. Add names to the lists of TAILOR_LISTS_DIR, or mask this type in the policy.",
    Reason.NO_TRAIN_ROWS: "The dataset has no rows to train on. Publish more documents and build again.",
    Reason.OBJECT_STORE_FAILED: "The object store answered with an error. Read its log; the service retries by itself.",
    Reason.OBJECT_STORE_REFUSED: "The service's credentials do not allow access to this bucket. Grant it with `python -m deploy.init.buckets`, or correct TAILOR_S3_ACCESS_KEY and TAILOR_S3_SECRET_KEY.",
    Reason.OBJECT_STORE_UNAVAILABLE: "The object store does not answer. Start it, or correct TAILOR_S3_ENDPOINT; the service continues by itself.",
    Reason.OBJECT_TOO_LARGE: "The object is larger than its limit. Publish it in parts.",
    Reason.OUT_OF_TIME: "The worker exceeded TAILOR_KUBERNETES_DEADLINE_SECONDS. Raise it, or use a smaller recipe.",
    Reason.RATE_EXCEEDED: "The key may call only so often per minute. Wait as long as the error's retry delay says, or ask for a key with a higher rate.",
    Reason.RETIRED_SERVES: "A retired adapter still serves; its successor has not arrived yet. The replica retries by itself.",
    Reason.ROLE_NOT_ADMITTED: "The caller's role does not allow the call. Use a key with a role that the method's comment in `proto/` names.",
    Reason.ROLE_NOT_YOURS_TO_GIVE: "Operators give every role but data protection, data protection gives only its own, and the console gives caller, expert and engineer. Ask somebody who can give it.",
    Reason.ROWS_ERASED: "A document behind the held-out rows was erased. The next dataset is evaluated by itself.",
    Reason.ROW_TOO_LONG: "Prompt and answer of a held-out row exceed the context. Raise TAILOR_MAX_MODEL_LEN of inference, or lower `rows.max_row_tokens` and build again.",
    Reason.RUN_ENDED: "The run has ended and cannot be cancelled. Create a new one if you need other settings.",
    Reason.SAMPLE_REFUSED: "A check refused this row, so it cannot be reviewed. Leave it out of the decisions.",
    Reason.SERVES_ALREADY: "The adapter already serves all callers. Choose another one.",
    Reason.SERVICE_FAILED: "A service answered with an unexpected code, or is of another version. Retry; if it lasts, read its log and update it.",
    Reason.SOURCE_SHARE_UNREACHABLE: "No source may have more than its share of the rows, and there are too few sources. Raise `max_source_percent` of the specialist, or publish documents of more sources.",
    Reason.STALLED: "Nothing has changed for a long time at the step that the message names. Read the logs in `.tailor/logs/`, and `tailor status`.",
    Reason.STOPPED: "The worker was asked to stop. The run continues by itself from its last checkpoint.",
    Reason.TEACHER_BUSY: "The teacher limits the rate of calls. The synthesis resumes by itself; raise the limit at the provider if it lasts.",
    Reason.TEACHER_REFUSED: "The teacher refused this prompt, for example by a filter. The synthesis leaves it out; check the seeds if many are refused.",
    Reason.TEACHER_TIMEOUT: "The teacher did not answer in time. Raise TAILOR_TEACHER_TIMEOUT_SECONDS, or ask for shorter answers; the synthesis resumes by itself.",
    Reason.TEXT_ONLY: "Parts of a message must be text; images and audio are not supported. Send text only.",
    Reason.TOO_LONG: "The request or a text in it is too long. Shorten what the message or the field violations name.",
    Reason.TOPIC_NOT_CONFIGURED: "The broker refuses the configuration of a topic. Correct `proto/topics.yaml` or the broker's limits as the message says, then repeat `python -m deploy.init.topics`.",
    Reason.UNDECODABLE: "The value is not a message of the topic's type. Correct the producer; `tailor event skip SERVICE EVENT --reason WHY` passes over the event.",
    Reason.UNEXPECTED_MODULE: "A tensor of the weights does not belong to an adaptable layer of the base. Train the adapter on this base again.",
    Reason.UNKNOWN_ADAPTER: "The adapter does not exist, or you do not have access to it. `tailor adapter list` lists those that you may see.",
    Reason.UNKNOWN_CONFIG_KEY: "The adapter's configuration has keys that this version does not know. Train the adapter again, or update inference.",
    Reason.UNKNOWN_CREDENTIAL: "The key or the secret is unknown, expired or revoked. Sign in again, or ask an operator for another one.",
    Reason.UNKNOWN_DATASET: "The dataset does not exist, you do not have access to it, or it was not announced yet. Check the digest; `tailor audit` shows a specialist's newest dataset.",
    Reason.UNKNOWN_DRAFT: "The draft does not exist, or you do not have access to it. Check the id; a new draft takes a moment to appear.",
    Reason.UNKNOWN_EVALUATION: "There is no such evaluation, it has no result yet, or it did not measure that model. `tailor adapter list` shows which adapters were evaluated.",
    Reason.UNKNOWN_HOST: "The name of the referenced file's host has no address. Check the URL and the DNS of ingestion; it retries by itself.",
    Reason.UNKNOWN_KEY: "The API key does not exist, is expired or revoked, or you do not have access to it. `tailor key list` lists those that you may see; ask an operator for a new one.",
    Reason.UNKNOWN_METHOD: "The worker does not support the recipe's method. Use the same version of training for the service and its workers.",
    Reason.UNKNOWN_METRIC_SERVICE: "The metric names a service that evaluation does not have. Add it to TAILOR_METRIC_SERVICES of evaluation, or leave the metric out.",
    Reason.UNKNOWN_OBJECT: "The object does not exist, or the key is not a valid name. Check the address, and publish again if the file was deleted.",
    Reason.UNKNOWN_PAGE: "This page does not exist. Check the address, or begin at the console's first page.",
    Reason.UNKNOWN_PASSAGE: "There is no such passage; its document was published again or erased. Take the next one.",
    Reason.UNKNOWN_RECIPE: "There is no recipe of this name. Use one that the message lists, or add its file to TAILOR_RECIPES_DIR.",
    Reason.UNKNOWN_RUN: "There is no such run. `tailor run list` lists all.",
    Reason.UNKNOWN_SAMPLE: "The synthesis does not have this row. `tailor synthesis samples ID` lists its rows.",
    Reason.UNKNOWN_SERVICE: "The name of a service is misspelt, or the service that issued a token is not trusted. Use a name that the message lists, or add the service's public key to `trust.json`.",
    Reason.UNKNOWN_SPECIALIST: "The specialist does not exist, or you do not have access to it. `tailor specialist list` lists those that you may see.",
    Reason.UNKNOWN_SURROGATE: "The vault has no such surrogate of this type. Check its spelling and its type; ask for a full name as PERSON.",
    Reason.UNKNOWN_SYNTHESIS: "The synthesis does not exist, or you do not have access to it. `tailor synthesis list` lists those that you may see.",
    Reason.UNKNOWN_TERM: "No review decided about this text. Give the text exactly as it was marked.",
    Reason.UNKNOWN_TOKEN: "The base's vocabulary does not have a token of the request. Use token ids that are smaller than the vocabulary's size.",
    Reason.UNKNOWN_TOPIC: "The topic does not exist, or you have no right to it. Use one that docs/events.md lists, and check the rights of your user.",
    Reason.UNREADABLE: "The text is no longer in quarantine, or was encrypted with another key. Check that ingestion and anonymization have the same TAILOR_QUARANTINE_KEY; then publish the document again.",
    Reason.UNSAFE_FILE: "A base may have safetensors, JSON and tokenizer files only. Remove the other files.",
    Reason.UNSUPPORTED_ADAPTER: "The adapter uses a feature that cannot be served. Train a LoRA adapter of a causal language model with a shipped recipe.",
    Reason.UNSUPPORTED_TARGET: "The adapter changes layers that cannot be served; the message lists those that can. Correct `adapter.target_modules` of the recipe and train again.",
    Reason.WAITS_FOR_BASE: "The base is not in the models bucket yet. Add it with `tailor model add NAME SOURCE`; the run then starts by itself.",
    Reason.WAITS_FOR_APPROVAL: "The run is forecast above a limit of hours. `tailor run show RUN` says what would fit; `tailor run approve RUN` starts it.",
    Reason.WAITS_FOR_PLACE: "All places for runs are taken. The run starts by itself when one is free; TAILOR_MAX_RUNS raises their number.",
    Reason.WAITS_FOR_RANKINGS: "The run waits for a preference dataset of its specialist. Have experts rank more drafts; it starts by itself.",
    Reason.WAITS_FOR_SPECIALIST: "The run waits for another run of its specialist. It starts by itself.",
    Reason.WAITS_FOR_START: "The worker's pod has a node and is being started. The run starts by itself.",
    Reason.BARRIER_UNAVAILABLE: "The process that reads texts has ended, and does not start again. Look at the memory of its host and the service's log, then retry.",
    Reason.TOO_EXPENSIVE: "Finding personal values in the text took more processor time or memory than a text of its length may, or ended the service twice. Look for long repeated parts, and send it in smaller parts.",
    Reason.WEIGHTS_TOO_LARGE: "The adapter's weights are much larger than the base's: the run has diverged. Train again with a lower learning rate.",
    Reason.WORKER_ENDING: "The worker of a run on an erased document has not ended yet. Training retries by itself.",
    Reason.WRONG_ADAPTER: "Only a policy adapter of this specialist can serve. Name one that `tailor adapter list` lists for it.",
    Reason.WRONG_BASE: "The adapter was trained on another base. Name an adapter that was trained on this base.",
    Reason.WRONG_DATASET_KIND: "The method learns from another kind of rows than the dataset has. Use a dataset of kind `sft` for sft, and of kind `preference` for dpo and reward.",
    Reason.WRONG_PARENT: "The parent adapter is of another specialist, base or kind; the message says which. Name another parent, or none.",
    Reason.WRONG_SECRET: "This is not the password, a valid API key or a person's secret. Check what you pasted, or ask for another invitation.",
    Reason.WRONG_SHAPE: "A tensor's shape or type does not match the base and the rank. Train the adapter on this base again.",
    Reason.WRONG_SPECIALIST: "The dataset was built for another specialist. Name a dataset of this one.",
    Reason.BASE_TOO_LARGE: "The base is larger than the limit. Choose a smaller one, or raise TAILOR_BASE_MAX_GIB of training.",
    Reason.KUBERNETES_FORBIDDEN: "The Kubernetes API denied access. Check the namespace, its quota, and the Role `training-jobs` of k8s/components/training-jobs.",
    Reason.MISSPELT_TOPIC: "This installation does not read the topic. Publish the documents again on the one that the message names.",
    Reason.NO_FREE_PORTS: "There are not enough free ports in a row. Stop other stacks, or set the variable that the message names to another port.",
    Reason.STALE_EPOCH: "Another worker or replica holds the work now, or it was cancelled. Nothing has to be done.",
    Reason.UNKNOWN_MODEL: "The hub does not have the model or the revision. Check its name, and set HF_TOKEN if it is private.",
    Reason.UNKNOWN_WHEEL: "The wheel is not known or not installed, or has no single GGUF file. Use one that the message lists, or install it.",
    Reason.UNSAFE_NAME: "A file name of the manifest is unsafe. Use letters, digits, dots, dashes and underscores only.",
}

HEADER = """\
# Error reasons

Every error carries a canonical gRPC code and one of these reasons (`google.rpc.ErrorInfo.reason`). At HTTP endpoints the code becomes the status in
parentheses. Runs and evaluations use the same reasons, without a code, for what they wait for and why they failed. `make proto` generates this page
from the code.

Retry only ABORTED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED and UNAVAILABLE.

| reason | code | cause and remedy |
|---|---|---|
"""


@dataclass
class Use:
    """Where a reason is used: its canonical codes and the messages given with it, in order of appearance."""

    codes: set[Code] = field(default_factory=set)
    messages: dict[str, None] = field(default_factory=dict)


def read_uses(files: Iterable[Path]) -> dict[str, Use]:
    """Every `Something(Reason.X, "message")` of the files, by reason."""
    uses: dict[str, Use] = defaultdict(Use)
    for path in files:
        for call in _calls(ast.parse(path.read_text(encoding="utf-8"))):
            for place, argument in enumerate(call.args):
                reason = _reason(argument)
                if reason is None:
                    continue
                uses[reason].codes.update(_code(call.func))
                text = _text(call.args[place + 1]) if len(call.args) > place + 1 else ""
                if text:
                    uses[reason].messages[text] = None
    return uses


def render(uses: dict[str, Use]) -> str:
    """The page. Raises SystemExit if a reason has no explanation, or one without a full stop or a remedy."""
    rows, missing, unclear = [], [], []
    for reason in Reason:
        use = uses.get(reason.value, Use())
        explained = EXPLAINED.get(reason)
        texts = [explained] if explained else list(use.messages)[:MAX_MESSAGES]
        if not texts:
            missing.append(reason.value)
        elif not says_what_to_do(texts):
            unclear.append(reason.value)
        codes = ", ".join(
            f"{code.name} ({code.http_status})" for code in sorted(use.codes, key=lambda code: code.value)
        )
        rows.append(
            f"| `{reason.value}` | {codes or '-'} | {'<br>'.join(text.replace('|', chr(92) + '|') for text in texts)} |"
        )
    if missing:
        raise SystemExit(
            f"deploy/errors_page.py: explain {', '.join(missing)} in EXPLAINED, or remove them from Reason"
        )
    if unclear:
        raise SystemExit(
            f"deploy/errors_page.py: explain {', '.join(unclear)} in EXPLAINED: whole sentences, at least one of which says what to do"
        )
    return HEADER + "\n".join(rows) + "\n"


def says_what_to_do(texts: Iterable[str]) -> bool:
    """True if the texts of a reason are whole sentences, and at least one of them names a remedy."""
    return all(text.endswith((".", "?")) for text in texts) and any(REMEDY.search(text) for text in texts)


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _reason(node: ast.expr) -> str | None:
    is_member = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason"
    return node.attr if is_member and isinstance(node, ast.Attribute) and node.attr.isupper() else None


def _code(function: ast.expr) -> list[Code]:
    kind = getattr(errors, function.id, None) if isinstance(function, ast.Name) else None
    return [kind.code] if isinstance(kind, type) and issubclass(kind, TailorError) and kind is not TailorError else []


def _text(node: ast.expr) -> str:
    """A string literal; an f-string has its expressions' names in capitals."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_part(part) for part in node.values)
    return ""


def _part(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    value = part.value if isinstance(part, ast.FormattedValue) else part
    name = value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else ""
    return name.strip("_").upper() or "N"


def main() -> None:
    """Write the page, or compare it."""
    files = sorted(path for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))
    page = render(read_uses(files))
    if "--check" in sys.argv[1:]:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
            raise SystemExit("docs/errors.md is out of date: make proto")
        return
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
