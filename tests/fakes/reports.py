"""The registry's reports of a month in this process."""

from typing import Any

from tailor.api.registry.v1 import reports_pb2, reports_pb2_grpc


class FakeReports(reports_pb2_grpc.ReportServiceServicer):
    """Answers with the figures that a test sets, and records the requests of ledgers."""

    def __init__(self) -> None:
        self.ledger = reports_pb2.GetLedgerResponse()
        self.generations = reports_pb2.ListGenerationsResponse()
        self.asked: list[reports_pb2.GetLedgerRequest] = []

    def GetLedger(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return self.ledger

    def ListGenerations(self, request: Any, context: Any) -> Any:
        return self.generations
