"""The gRPC method that follows documents forward to datasets and adapters."""

import grpc

from services.registry.adapters.sql import Begin
from services.registry.domain import Learner
from services.registry.handlers import erasures
from tailor.api.registry.v1 import lineage_pb2, lineage_pb2_grpc
from tailor.codec import encode
from tailor.rpc.auth import current_caller


class LineageServicer(lineage_pb2_grpc.LineageServiceServicer):
    """Translates calls."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin

    def ListLearners(
        self, request: lineage_pb2.ListLearnersRequest, context: grpc.ServicerContext
    ) -> lineage_pb2.ListLearnersResponse:
        """A key that is limited to specialists sees only what was made for them."""
        del context
        datasets, learners = erasures.list_learners(self._begin, list(request.document_ids))
        caller = current_caller()
        visible = [learner for learner in learners if caller.may_use(learner.adapter.specialist)]
        if caller.specialists:
            datasets = sorted({learner.adapter.dataset_digest for learner in visible} & set(datasets))
        return lineage_pb2.ListLearnersResponse(dataset_digests=datasets, learners=map(_from_learner, visible))


def _from_learner(learner: Learner) -> lineage_pb2.Learner:
    standing = {"serving": learner.serving, "tainted": learner.tainted, "retired": learner.retired}
    return encode(lineage_pb2.Learner, learner.adapter, adapter_digest=learner.adapter.digest, **standing)
