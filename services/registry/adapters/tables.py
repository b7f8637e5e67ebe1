"""The tables of the registry's database. A change needs a migration in `migrations/versions/`."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.events.outbox import outbox_table
from tailor.jobs import jobs_table
from tailor.listing import listed_columns
from tailor.rows import MessageColumn

metadata = MetaData()

specialists = Table(
    "specialists",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("payload", MessageColumn(models_pb2.SpecialistChanged), nullable=False),
    Column("deleted", Boolean, nullable=False),
    *listed_columns(),
)

servings = Table(
    "servings",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("generation", BigInteger, primary_key=True),
    Column("adapter_digest", String(64), nullable=False),
    Column("payload", MessageColumn(models_pb2.SpecialistServing), nullable=False),
)

# The current version of every anonymised document.
documents = Table(
    "documents",
    metadata,
    Column("document_id", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("source", String(64), nullable=False, index=True),
    Column("department", String(64), nullable=False),
    Column("confidentiality", String(64), nullable=False),
    Column("publisher", String(64), nullable=False, server_default=""),
    Column("payload", MessageColumn(documents_pb2.DocumentAnonymized), nullable=False),
    Column("format", String(32), nullable=False),
    Column("language", String(16), nullable=False),
    Column("char_count", BigInteger, nullable=False),
    Column("findings", JSONB, nullable=False),
    # Characters that ingestion left out, by kind.
    Column("removed", JSONB, nullable=False, server_default="{}"),
    # The transaction that wrote the row.
    Column("changed", BigInteger, nullable=False, index=True),
    *listed_columns(),
)

submissions = Table(
    "submissions",
    metadata,
    Column("submission_id", String(64), primary_key=True),
    Column("document_id", String(64), nullable=False, index=True),
    Column("state", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("findings", JSON, nullable=False),
    # The rejection; empty in other states.
    Column("payload", MessageColumn(documents_pb2.DocumentRejected), nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now(), index=True),
    # Labels and format as far as they are known; the stage only of rejected submissions.
    Column("source", String(64), nullable=False),
    Column("department", String(64), nullable=False),
    Column("confidentiality", String(64), nullable=False),
    Column("publisher", String(64), nullable=False, server_default=""),
    Column("format", String(32), nullable=False),
    Column("stage", String(16), nullable=False),
    *listed_columns(),
)

facts = Table(
    "facts",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("fact_id", String(160), primary_key=True),
    Column("specialist", String(63), nullable=False, index=True),
    Column("position", BigInteger, Identity(), nullable=False, index=True),
    Column("payload", LargeBinary, nullable=False),
    *listed_columns(),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("evaluation_id", String(64), primary_key=True),
    Column("adapter_digest", String(64), nullable=False, index=True),
    Column("specialist", String(63), nullable=False, index=True),
    Column("decision", String(16), nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("position", BigInteger, Identity(), nullable=False),
    Column("payload", MessageColumn(models_pb2.AdapterEvaluated), nullable=False),
)

judgements = Table(
    "judgements",
    metadata,
    Column("judgement_id", String(64), primary_key=True),
    Column("specialist", String(63), nullable=False, index=True),
    Column("payload", MessageColumn(drafts_pb2.JudgementRecorded), nullable=False),
    # True once the expert took it back. It stays, so that a repeated call does not record it again.
    Column("retracted", Boolean, nullable=False, server_default="false"),
)

# Drafts whose texts are stored, for the queue of those who judge them.
stored_drafts = Table(
    "stored_drafts",
    metadata,
    Column("draft_id", String(64), primary_key=True),
    Column("specialist", String(63), nullable=False),
    Column("prompt_digest", String(64), nullable=False),
    Column("answer_digest", String(64), nullable=False),
    Column("is_callers", Boolean, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    # Documents of the row whose prompt was drawn; empty if somebody sent it.
    Column("drawn_from", ARRAY(String(64)), nullable=False, server_default="{}"),
    Index("ix_stored_drafts_specialist_create_time", "specialist", "create_time"),
    Index("ix_stored_drafts_drawn_from", "drawn_from", postgresql_using="gin"),
)

# What experts did with prompts. The judgement is empty for a prompt that was skipped.
expert_decisions = Table(
    "expert_decisions",
    metadata,
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("expert_id", String(64), nullable=False),
    Column("specialist", String(63), nullable=False),
    Column("prompt_digest", String(64), nullable=False),
    Column("judgement_id", String(64), nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    UniqueConstraint("expert_id", "specialist", "prompt_digest", "judgement_id"),
    Index("ix_expert_decisions_specialist_create_time", "specialist", "create_time"),
    Index("ix_expert_decisions_expert_position", "expert_id", "specialist", "position"),
)

# One row for each draft and caller. A changed one keeps its position.
feedback = Table(
    "feedback",
    metadata,
    Column("feedback_id", String(64), primary_key=True),
    Column("draft_id", String(64), nullable=False),
    Column("specialist", String(63), nullable=False, index=True),
    Column("adapter_digest", String(64), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("edited_text", Text, nullable=False),
    Column("stars", Integer, nullable=False),
    Column("comment", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, index=True),
    Column("position", BigInteger, Identity(), nullable=False, index=True),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("outcome_id", String(64), primary_key=True),
    Column("draft_id", String(64), nullable=False, index=True),
    Column("specialist", String(63), nullable=False, index=True),
    Column("generation", BigInteger, nullable=False),
    Column("adapter_digest", String(64), nullable=False),
    Column("minutes", Float, nullable=False),
    Column("satisfaction", Integer, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
)

# What became of each draft: by its deliverable, or else by feedback.
final_texts = Table(
    "final_texts",
    metadata,
    Column("draft_id", String(64), primary_key=True),
    Column("document_id", String(64), nullable=False, index=True),
    Column("specialist", String(63), nullable=False, index=True),
    Column("generation", BigInteger, nullable=False),
    Column("adapter_digest", String(64), nullable=False),
    Column("share", Float),
    Column("create_time", DateTime(timezone=True), nullable=False),
)

# The device time of each answer.
serving_uses = Table(
    "serving_uses",
    metadata,
    Column("draft_id", String(64), primary_key=True),
    Column("specialist", String(63), nullable=False),
    Column("device", String(128), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Index("ix_serving_uses_specialist_create_time", "specialist", "create_time"),
)

# The files of each dataset and adapter. Several owners can share a file.
stored_files = Table(
    "stored_files",
    metadata,
    # Digest of the dataset or adapter.
    Column("owner", String(64), primary_key=True),
    Column("sha256", String(64), primary_key=True, index=True),
    Column("specialist", String(63), nullable=False, index=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("delete_time", DateTime(timezone=True)),
)

# The seconds of judgements whose duration is known. Nothing else about them is stored here, and nothing by expert is read from it.
judging_times = Table(
    "judging_times",
    metadata,
    Column("judgement_id", String(64), primary_key=True),
    Column("specialist", String(63), nullable=False, index=True),
    Column("seconds", Float, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("key_id", String(64), primary_key=True),
    Column("secret_sha256", String(64), nullable=False, unique=True),
    Column("name", String(64), nullable=False),
    Column("role", String(32), nullable=False),
    Column("specialists", JSON, nullable=False),
    Column("revoked", Boolean, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("expire_time", DateTime(timezone=True)),
    Column("methods", JSON, nullable=False),
    Column("calls_per_minute", BigInteger, nullable=False),
    Column("created_by", String(64), nullable=False),
)

# People who may sign in to the console. A text is empty if the person has none.
people = Table(
    "people",
    metadata,
    Column("person_id", String(64), primary_key=True),
    Column("position", BigInteger, Identity(), nullable=False, unique=True),
    Column("name", String(64), nullable=False),
    Column("mail", String(254), nullable=False),
    Column("role", String(32), nullable=False),
    Column("specialists", JSON, nullable=False),
    Column("secret_sha256", String(64), nullable=False, server_default=""),
    # Their account at the OpenID provider.
    Column("issuer", String(512), nullable=False, server_default=""),
    Column("subject", String(255), nullable=False, server_default=""),
    Column("invitation_sha256", String(64), nullable=False, server_default=""),
    # Set until the person has signed in.
    Column("invitation_expire_time", DateTime(timezone=True)),
    Column("invited_by", String(64), nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("removed", Boolean, nullable=False),
    Index("ix_people_mail", "mail", unique=True, postgresql_where=text("mail <> ''")),
    Index("ix_people_secret_sha256", "secret_sha256", unique=True, postgresql_where=text("secret_sha256 <> ''")),
    Index(
        "ix_people_invitation_sha256",
        "invitation_sha256",
        unique=True,
        postgresql_where=text("invitation_sha256 <> ''"),
    ),
    Index("ix_people_subject", "issuer", "subject", unique=True, postgresql_where=text("subject <> ''")),
)

# Sessions on the console, of people and of keys.
sessions = Table(
    "sessions",
    metadata,
    Column("session_sha256", String(64), primary_key=True),
    Column("holder_id", String(64), nullable=False, index=True),
    Column("expire_time", DateTime(timezone=True), nullable=False, index=True),
)

# The last report of each inference replica.
replicas = Table(
    "replicas",
    metadata,
    Column("name", String(253), primary_key=True),
    Column("base", String(128), nullable=False, index=True),
    Column("seen_time", DateTime(timezone=True), nullable=False),
    Column("leaving", Boolean, nullable=False),
    Column("adapter_digest", String(64), nullable=False),
)

canaries = Table(
    "canaries",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("generation", BigInteger, primary_key=True),
    Column("adapter_digest", String(64), nullable=False),
    Column("policy", JSON, nullable=False),
    Column("start_time", DateTime(timezone=True), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("end_time", DateTime(timezone=True)),
    # Counted once it has ended.
    Column("canary_arm", JSON, nullable=False),
    Column("incumbent_arm", JSON, nullable=False),
    # Adapter that passed the gate while the canary was running.
    Column("waiting", String(64), nullable=False, server_default=""),
)

# Calls of specialists with a running canary.
canary_calls = Table(
    "canary_calls",
    metadata,
    Column("draft_id", String(64), primary_key=True),
    Column("specialist", String(63), nullable=False, index=True),
    Column("generation", BigInteger, nullable=False),
    Column("canary", Boolean, nullable=False),
    Column("failed", Boolean, nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("first_token_seconds", Float),
    Column("token_seconds", Float),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("event_id", String(64), primary_key=True),
    Column("topic", String(128), nullable=False),
)

erasures = Table(
    "erasures",
    metadata,
    Column("erasure_id", String(64), primary_key=True),
    Column("position", BigInteger, Identity(), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("awaits", JSON, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("receipt_body", Text),
    Column("receipt_signature", LargeBinary),
    Column("receipt_public_key", LargeBinary),
)

erased_documents = Table(
    "erased_documents",
    metadata,
    Column("erasure_id", String(64), primary_key=True),
    Column("document_id", String(64), primary_key=True, index=True),
    Column("lifted", Boolean, nullable=False, server_default="false"),
    # True for a document that stays: what was derived from its earlier versions is forgotten.
    Column("superseded", Boolean, nullable=False, server_default="false"),
)

# Datasets with rows of versions that a replay superseded. Adapters that were trained on one are tainted when they arrive.
superseded_datasets = Table(
    "superseded_datasets",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("erasure_id", String(64), nullable=False),
)

forgotten = Table(
    "forgotten",
    metadata,
    Column("erasure_id", String(64), primary_key=True),
    Column("document_id", String(64), primary_key=True),
    Column("service", String(64), primary_key=True),
    Column("counts", JSON, nullable=False),
    Column("datasets", JSON, nullable=False),
)

taints = Table(
    "taints",
    metadata,
    Column("adapter_digest", String(64), primary_key=True),
    Column("specialist", String(63), nullable=False),
    Column("erasure_id", String(64), nullable=False, index=True),
    Column("retired", Boolean, nullable=False),
)

# Datasets whose documents are all in `dataset_documents`, with the parts of their manifests that are shown.
datasets = Table(
    "datasets",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("skipped", JSONB, nullable=False),
    Column("train_tokens", BigInteger, nullable=False),
    Column("held_out_tokens", BigInteger, nullable=False),
    Column("imports", JSONB, nullable=False, server_default="[]"),
    Column("languages", JSONB, nullable=False, server_default="{}"),
    Column("teacher_tokens", BigInteger, nullable=False, server_default="0"),
)

dataset_documents = Table(
    "dataset_documents",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("document_id", String(64), primary_key=True, index=True),
)

# Origins of each adapter: dataset, parent, reward adapter, and the adapter that was merged into its base.
adapters = Table(
    "adapters",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("dataset_digest", String(64), nullable=False, index=True),
    Column("parent_digest", String(64), nullable=False, index=True),
    Column("reward_digest", String(64), nullable=False, index=True, server_default=""),
    Column("base_adapter_digest", String(64), nullable=False, index=True, server_default=""),
)

# Adapters whose drafts are among the pairs of a dataset.
dataset_adapters = Table(
    "dataset_adapters",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("adapter_digest", String(64), primary_key=True, index=True),
)

# Adapters that passed the gate of a specialist whose promotions need approval.
approvals = Table(
    "approvals",
    metadata,
    Column("adapter_digest", String(64), primary_key=True),
    Column("specialist", String(63), nullable=False, index=True),
    Column("position", BigInteger, Identity(), nullable=False),
    Column("state", String(16), nullable=False),
)

# Operators' decisions. Rows are never changed.
operator_decisions = Table(
    "operator_decisions",
    metadata,
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("specialist", String(63), nullable=False, index=True),
    Column("adapter_digest", String(64), nullable=False, index=True),
    Column("generation", BigInteger, nullable=False),
    Column("key_id", String(64), nullable=False),
    # Anonymised.
    Column("reason", Text, nullable=False),
    # The gate's verdict at the time; none if there was none.
    Column("verdict_decision", String(16)),
    Column("verdict_reasons", JSON(none_as_null=True)),
    Column("create_time", DateTime(timezone=True), nullable=False),
)

# Entries at the top of a specialist's leaderboard: digests of adapters, or names of models without tuning.
pins = Table(
    "pins",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("entry", String(128), primary_key=True),
)

outbox = outbox_table(metadata)
jobs = jobs_table(metadata)
