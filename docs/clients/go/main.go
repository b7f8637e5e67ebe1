// Asks a specialist for a draft, whole and as a stream.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	inferencev1 "example.com/drafts/gen/tailor/api/inference/v1"
)

func main() {
	// Use credentials.NewTLS in production: a key must not travel in clear text.
	connection, err := grpc.NewClient(os.Getenv("TAILOR_INFERENCE_ADDRESS"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := inferencev1.NewInferenceServiceClient(connection)

	call, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	call = metadata.AppendToOutgoingContext(call, "authorization", "Bearer "+os.Getenv("TAILOR_API_KEY"))

	request := &inferencev1.GenerateRequest{
		Model:    "engagement-reports",
		Prompt:   "Write a memo on daily rest.",
		Sampling: &inferencev1.Sampling{MaxTokens: 48},
	}
	answer, err := client.Generate(call, request)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n(draft %s)\n", answer.Text, answer.DraftId)

	stream, err := client.StreamGenerate(call, &inferencev1.StreamGenerateRequest{Request: request})
	if err != nil {
		log.Fatal(err)
	}
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(piece.Text)
	}
	fmt.Println()
}
