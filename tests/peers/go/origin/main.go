// An HTTP server on Go's own library that tells what it is asked, over HTTP/1.1 and, with prior
// knowledge, over HTTP/2 without TLS. It prints {"port": ...}, and then a line of JSON for each
// request that it has read to its end.
package main

import (
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
)

type seen struct {
	ID       string              `json:"id"`
	Method   string              `json:"method"`
	Target   string              `json:"target"`
	Host     string              `json:"host"`
	Body     string              `json:"body"`
	Trailers map[string][]string `json:"trailers"`
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	var lines sync.Mutex
	print := func(line any) {
		lines.Lock()
		defer lines.Unlock()
		if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
			log.Fatal(err)
		}
	}
	print(map[string]int{"port": listener.Addr().(*net.TCPAddr).Port})
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{
		Protocols: protocols,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			id := r.Header.Get("x-request-id")
			print(seen{id, r.Method, r.RequestURI, r.Host, string(body), r.Trailer})
			io.WriteString(w, r.Method+" "+r.RequestURI)
		}),
	}
	log.Fatal(server.Serve(listener))
}
