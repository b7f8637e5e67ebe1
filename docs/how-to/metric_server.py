"""An example of a metric service: the share of an answer's sentences that are short.

Run it with `python metric_server.py 0.0.0.0:9443 CERTIFICATE KEY`. It needs `grpcio` and the code that protoc makes from
`proto/tailor/api/evaluation/v1/metric.proto`; here that is in the client package.
"""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from tailor.api.evaluation.v1 import metric_pb2, metric_pb2_grpc

MAX_REQUEST_BYTES = 4 * 1024 * 1024


class ShortSentences(metric_pb2_grpc.MetricServiceServicer):
    """Measures the metric `short_sentences`; its parameter `max_words` is 20 unless the specialist sets it."""

    def Measure(self, request: metric_pb2.MeasureRequest, context: grpc.ServicerContext) -> metric_pb2.MeasureResponse:
        if request.metric != "short_sentences":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "unknown metric")
        max_words = int(json.loads(request.parameters_json or "{}").get("max_words", 20))
        response = metric_pb2.MeasureResponse()
        for row in request.rows:
            sentences = [sentence for sentence in re.split(r"[.!?]+\s*", row.answer) if sentence.strip()]
            short = sum(len(sentence.split()) <= max_words for sentence in sentences)
            # Every sentence counts once, so that long answers weigh more. An answer without sentences is left out.
            if sentences:
                response.values.add(position=row.position, value=short / len(sentences), weight=len(sentences))
        return response


def serve(address: str, certificate: Path | None = None, key: Path | None = None) -> tuple[grpc.Server, int]:
    """Start the service, with TLS if there is a certificate. Returns it with its port."""
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", MAX_REQUEST_BYTES)])
    metric_pb2_grpc.add_MetricServiceServicer_to_server(ShortSentences(), server)
    if certificate and key:
        pair = (key.read_bytes(), certificate.read_bytes())
        port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port(address)
    server.start()
    return server, port


if __name__ == "__main__":
    serve(sys.argv[1], *map(Path, sys.argv[2:4]))[0].wait_for_termination()
