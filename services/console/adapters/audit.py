"""The audit over gRPC: counts from the registry, near-duplicates from synthetic."""

import grpc

from services.console.adapters.convert import time, word
from services.console.audits import Audit, Bin, Dimension, Estimate, Found, Group, NearDuplicates, Rejected
from tailor.api.registry.v1 import audit_pb2, registry_pb2_grpc
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.rpc.channel import wire_errors

COUNT_SECONDS = 15


class AuditClient:
    """Satisfies `domain.Auditing`."""

    def __init__(self, registry: grpc.Channel, synthetic: grpc.Channel) -> None:
        self._registry = registry_pb2_grpc.RegistryServiceStub(registry)
        self._synthetic = synthetic_pb2_grpc.SyntheticServiceStub(synthetic)

    def audit(self, specialist: str) -> Audit:
        """The counts."""
        request = audit_pb2.GetAuditRequest(specialist=specialist)
        with wire_errors("registry"):
            return audit(self._registry.GetAudit(request, timeout=COUNT_SECONDS))

    def near_duplicates(self, specialist: str) -> NearDuplicates:
        """The near-duplicates among what is compared so far; every call compares more."""
        request = synthetic_pb2.CountNearDuplicatesRequest(specialist=specialist)
        with wire_errors("synthetic"):
            wire = self._synthetic.CountNearDuplicates(request, timeout=COUNT_SECONDS)
        return NearDuplicates(wire.documents, wire.compared, wire.near_duplicates, wire.groups, wire.threshold)


def audit(wire: audit_pb2.GetAuditResponse) -> Audit:
    """An audit."""
    totals, lengths, estimate = wire.totals, wire.lengths, wire.estimate
    return Audit(
        documents=totals.documents,
        characters=totals.characters,
        findings=totals.findings,
        dimensions=tuple(map(_dimension, wire.dimensions)),
        min_chars=lengths.min_chars,
        max_chars=lengths.max_chars,
        mean_chars=lengths.mean_chars,
        percentiles=dict(sorted(lengths.percentiles.items())),
        histogram=tuple(Bin(one.from_chars, one.below_chars, one.documents) for one in lengths.histogram),
        types=tuple(Found(one.entity_type, one.values, one.documents, one.per_thousand_chars) for one in wire.findings),
        rejected=tuple(Rejected(one.reason, one.format, one.stage, one.submissions) for one in wire.rejections),
        duplicates=wire.duplicates,
        estimate=Estimate(estimate.tokens, estimate.tokens_per_second, estimate.run_id, estimate.seconds),
        create_time=time(wire.create_time),
    )


def _dimension(wire: audit_pb2.AuditDimension) -> Dimension:
    return Dimension(
        name=word(audit_pb2.AuditField.Name(wire.field), "AUDIT_FIELD_"),
        groups=tuple(Group(one.value, one.documents, one.characters, one.findings) for one in wire.groups),
        more_values=wire.more_values,
    )
