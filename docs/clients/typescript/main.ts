// Asks a specialist for a draft, whole and as a stream.
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

type Piece = { draft_id: string; text: string };

const contract = loadSync("tailor/api/inference/v1/inference.proto", {
  includeDirs: ["../../../proto"],
  keepCase: true,
  longs: Number,
  defaults: true,
});
const { InferenceService } = (grpc.loadPackageDefinition(contract) as any).tailor.api.inference.v1;

// Use grpc.credentials.createSsl() in production: a key must not travel in clear text.
const client = new InferenceService(process.env.TAILOR_INFERENCE_ADDRESS, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${process.env.TAILOR_API_KEY}`);
const deadline = Date.now() + 120_000;

const request = { model: "engagement-reports", prompt: "Write a memo on daily rest.", sampling: { max_tokens: 48 } };
const answer = await new Promise<Piece>((resolve, reject) =>
  client.Generate(request, metadata, { deadline }, (error: grpc.ServiceError | null, reply: Piece) =>
    error ? reject(error) : resolve(reply),
  ),
);
console.log(`${answer.text}\n(draft ${answer.draft_id})`);

for await (const piece of client.StreamGenerate({ request }, metadata, { deadline }) as AsyncIterable<Piece>) {
  process.stdout.write(piece.text);
}
console.log();
client.close();
