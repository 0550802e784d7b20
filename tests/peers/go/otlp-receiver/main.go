// otlp-receiver takes traces as a collector does, over gRPC and over HTTP with protobuf, on the data
// library of the OpenTelemetry Collector. It prints a line of JSON with its two addresses, and then
// one for each export: how it came, its headers, and the spans in OTLP's JSON.
//
//	otlp-receiver                 in plain text
//	otlp-receiver CERT KEY        with TLS, from two PEM files
package main

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"

	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
)

var printing sync.Mutex

func print(document any) {
	printing.Lock()
	defer printing.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(document); err != nil {
		log.Fatal(err)
	}
}

func received(protocol string, headers map[string][]string, request ptraceotlp.ExportRequest) {
	spans, err := (&ptrace.JSONMarshaler{}).MarshalTraces(request.Traces())
	if err != nil {
		log.Fatal(err)
	}
	print(map[string]any{
		"protocol": protocol,
		"headers":  headers,
		"traces":   json.RawMessage(spans),
	})
}

type grpcServer struct {
	ptraceotlp.UnimplementedGRPCServer
}

func (grpcServer) Export(
	ctx context.Context, request ptraceotlp.ExportRequest,
) (ptraceotlp.ExportResponse, error) {
	headers, _ := metadata.FromIncomingContext(ctx)
	received("grpc", headers, request)
	return ptraceotlp.NewExportResponse(), nil
}

func serveHTTP(answer http.ResponseWriter, asked *http.Request) {
	if asked.Method != http.MethodPost || asked.URL.Path != "/v1/traces" {
		http.NotFound(answer, asked)
		return
	}
	var body io.Reader = asked.Body
	if asked.Header.Get("content-encoding") == "gzip" {
		unpacked, err := gzip.NewReader(body)
		if err != nil {
			http.Error(answer, err.Error(), http.StatusBadRequest)
			return
		}
		body = unpacked
	}
	bytes, err := io.ReadAll(body)
	request := ptraceotlp.NewExportRequest()
	if err == nil {
		err = request.UnmarshalProto(bytes)
	}
	if err != nil {
		http.Error(answer, err.Error(), http.StatusBadRequest)
		return
	}
	headers := map[string][]string{}
	for name, values := range asked.Header {
		headers[strings.ToLower(name)] = values
	}
	received("http/protobuf", headers, request)
	response, err := ptraceotlp.NewExportResponse().MarshalProto()
	if err != nil {
		log.Fatal(err)
	}
	answer.Header().Set("content-type", "application/x-protobuf")
	if _, err := answer.Write(response); err != nil {
		log.Print(err)
	}
}

func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func main() {
	overGRPC, overHTTP := listen(), listen()
	var options []grpc.ServerOption
	plain := overHTTP
	if len(os.Args) == 3 {
		certificate, err := tls.LoadX509KeyPair(os.Args[1], os.Args[2])
		if err != nil {
			log.Fatal(err)
		}
		config := &tls.Config{Certificates: []tls.Certificate{certificate}}
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
		plain = tls.NewListener(overHTTP, config)
	}
	server := grpc.NewServer(options...)
	ptraceotlp.RegisterGRPCServer(server, &grpcServer{})
	print(map[string]string{
		"grpc": overGRPC.Addr().String(),
		"http": overHTTP.Addr().String(),
	})
	go func() { log.Fatal(http.Serve(plain, http.HandlerFunc(serveHTTP))) }()
	log.Fatal(server.Serve(overGRPC))
}
