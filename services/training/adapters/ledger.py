"""The costs of a specialist besides its runs, from the registry's ledger."""

import grpc

from tailor.api.registry.v1 import reports_pb2, reports_pb2_grpc
from tailor.rpc.channel import wire_errors

LEDGER_SECONDS = 20


class RegistryLedger:
    """Asks the registry. Prices in other currencies than the given one do not count."""

    def __init__(self, channel: grpc.Channel, currency: str) -> None:
        self._stub = reports_pb2_grpc.ReportServiceStub(channel)
        self._currency = currency

    def this_month(self, specialist: str) -> float:
        """The price of everything but runs in this calendar month (UTC) so far. Blocks. Raises Unavailable while the registry is silent."""
        request = reports_pb2.GetLedgerRequest(specialist=specialist)
        with wire_errors("registry"):
            lines = self._stub.GetLedger(request, timeout=LEDGER_SECONDS).lines
        return sum(
            line.amount
            for line in lines
            if line.kind != reports_pb2.LEDGER_KIND_COMPUTE and line.currency == self._currency
        )
