"""The registry's panel of experts, over gRPC."""

import grpc

from services.console.ports import PanelReader
from tailor.api.registry.v1 import panel_pb2, panel_pb2_grpc
from tailor.rpc.channel import wire_errors

GROUP_SECONDS = 15


class PanelClient(PanelReader):
    """The panel. Every call has a deadline."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = panel_pb2_grpc.PanelServiceStub(channel)

    def propose_guidelines(self, specialist: str) -> panel_pb2.ProposeGuidelinesResponse:
        request = panel_pb2.ProposeGuidelinesRequest(specialist=specialist)
        with wire_errors("registry"):
            return self._stub.ProposeGuidelines(request, timeout=GROUP_SECONDS)
