"""Health of the services, by the gRPC health protocol."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

HEALTH_SECONDS = 1.5


class HealthClient:
    """Health of the services, by the gRPC health protocol."""

    def __init__(self, channels: dict[str, grpc.Channel]) -> None:
        self._stubs = {name: health_pb2_grpc.HealthStub(channel) for name, channel in channels.items()}

    def is_healthy(self, service: str) -> bool:
        """True if the service answers and serves."""
        try:
            answer = self._stubs[service].Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_SECONDS)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
