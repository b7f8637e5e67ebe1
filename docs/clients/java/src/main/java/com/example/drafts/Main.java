package com.example.drafts;

import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;
import java.util.concurrent.TimeUnit;
import tailor.api.inference.v1.Inference.GenerateRequest;
import tailor.api.inference.v1.Inference.Sampling;
import tailor.api.inference.v1.Inference.StreamGenerateRequest;
import tailor.api.inference.v1.InferenceServiceGrpc;

/** Asks a specialist for a draft, whole and as a stream. */
public final class Main {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  public static void main(String[] arguments) throws InterruptedException {
    // Use TlsChannelCredentials in production: a key must not travel in clear text.
    var channel =
        Grpc.newChannelBuilder(System.getenv("TAILOR_INFERENCE_ADDRESS"), InsecureChannelCredentials.create()).build();
    var metadata = new Metadata();
    metadata.put(AUTHORIZATION, "Bearer " + System.getenv("TAILOR_API_KEY"));
    var client =
        InferenceServiceGrpc.newBlockingStub(channel)
            .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata));
    var request =
        GenerateRequest.newBuilder()
            .setModel("engagement-reports")
            .setPrompt("Write a memo on daily rest.")
            .setSampling(Sampling.newBuilder().setMaxTokens(48))
            .build();

    var answer = client.withDeadlineAfter(2, TimeUnit.MINUTES).generate(request);
    System.out.printf("%s%n(draft %s)%n", answer.getText(), answer.getDraftId());

    var stream = StreamGenerateRequest.newBuilder().setRequest(request).build();
    client
        .withDeadlineAfter(2, TimeUnit.MINUTES)
        .streamGenerate(stream)
        .forEachRemaining(piece -> System.out.print(piece.getText()));
    System.out.println();
    channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
  }

  private Main() {}
}
