// spiffe-client is a client of the SPIFFE Workload API on go-spiffe. It prints what it gets as
// JSON, a document a line, and never a private key.
//
//	spiffe-client x509              fetch the X.509 context once
//	spiffe-client watch             print each X.509 context and each error, until it is stopped
//	spiffe-client jwt AUDIENCE FOR  fetch JWT-SVIDs for AUDIENCE, and validate them for FOR
//	spiffe-client get URL ID        GET over mutual TLS from the server that has this SPIFFE ID
//	spiffe-client files DIRECTORY   verify svid.pem of a directory by its bundle_map.json
//	spiffe-client serve ID          serve HTTP over mutual TLS to the client that has this SPIFFE ID
//
// SPIFFE_ENDPOINT_SOCKET says where the Workload API is. What fails is printed as well, with the
// gRPC code that it has, and ends the program with status 1.
package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
)

// patience is how long anything may take that is not to last.
const patience = 30 * time.Second

var errUsage = errors.New("main.go says at its head what there is to do")

type document map[string]any

func main() {
	if err := run(os.Args[1:]); err != nil {
		printError(err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	endless := context.Background()
	brief, cancel := context.WithTimeout(endless, patience)
	defer cancel()
	if len(arguments) == 0 {
		return errUsage
	}
	switch command, rest := arguments[0], arguments[1:]; {
	case command == "x509" && len(rest) == 0:
		return fetchX509(brief)
	case command == "watch" && len(rest) == 0:
		return workloadapi.WatchX509Context(endless, watcher{})
	case command == "jwt" && len(rest) == 2:
		return fetchJWT(brief, rest[0], rest[1])
	case command == "files" && len(rest) == 1:
		return verifyFiles(rest[0])
	case command == "get" && len(rest) == 2:
		return get(brief, rest[0], rest[1])
	case command == "serve" && len(rest) == 1:
		return serve(endless, rest[0])
	default:
		return errUsage
	}
}

func fetchX509(ctx context.Context) error {
	fetched, err := workloadapi.FetchX509Context(ctx)
	if err != nil {
		return err
	}
	return printX509Context(fetched)
}

// watcher prints updates and errors; after an error go-spiffe tries again, later each time.
type watcher struct{}

func (watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	if err := printX509Context(update); err != nil {
		printError(err)
	}
}

func (watcher) OnX509ContextWatchError(err error) {
	printError(err)
}

// printX509Context prints an X.509 context if its SVIDs are good by its own bundles.
func printX509Context(received *workloadapi.X509Context) error {
	var svids []document
	for _, svid := range received.SVIDs {
		id, err := verify(svid, received)
		if err != nil {
			return err
		}
		leaf := svid.Certificates[0]
		svids = append(svids, document{
			"spiffe_id":    svid.ID.String(),
			"verified":     id.String(),
			"hint":         svid.Hint,
			"serial":       leaf.SerialNumber.Text(16),
			"not_before":   leaf.NotBefore.Unix(),
			"not_after":    leaf.NotAfter.Unix(),
			"certificates": len(svid.Certificates),
		})
	}
	bundles := document{}
	for _, bundle := range received.Bundles.Bundles() {
		bundles[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	printLine(document{"received": time.Now().Unix(), "svids": svids, "bundles": bundles})
	return nil
}

// verify asks go-spiffe whether the chain leads to the bundle, and crypto/x509 whether that is so
// for servers and for clients: go-spiffe itself takes any extended key usage.
func verify(svid *x509svid.SVID, received *workloadapi.X509Context) (spiffeid.ID, error) {
	id, _, err := x509svid.Verify(svid.Certificates, received.Bundles)
	if err != nil {
		return id, err
	}
	bundle, err := received.Bundles.GetX509BundleForTrustDomain(id.TrustDomain())
	if err != nil {
		return id, err
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range bundle.X509Authorities() {
		roots.AddCert(root)
	}
	for _, intermediate := range svid.Certificates[1:] {
		intermediates.AddCert(intermediate)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := svid.Certificates[0].Verify(x509.VerifyOptions{
			Roots:         roots,
			Intermediates: intermediates,
			KeyUsages:     []x509.ExtKeyUsage{usage},
		})
		if err != nil {
			return id, err
		}
	}
	return id, nil
}

func fetchJWT(ctx context.Context, audience, validateFor string) error {
	client, err := workloadapi.New(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	svids, err := client.FetchJWTSVIDs(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return err
	}
	bundles, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	for _, svid := range svids {
		token := svid.Marshal()
		_, there := client.ValidateJWTSVID(ctx, token, validateFor)
		_, here := jwtsvid.ParseAndValidate(token, bundles, []string{validateFor})
		printLine(document{
			"spiffe_id": svid.ID.String(),
			"audience":  svid.Audience,
			"expiry":    svid.Expiry.Unix(),
			"hint":      svid.Hint,
			"validated": document{"by_the_api": outcome(there), "locally": outcome(here)},
		})
	}
	return nil
}

// verifyFiles reads a bundle map as gRPC does, a bundle of each trust domain by go-spiffe.
func verifyFiles(directory string) error {
	svid, err := x509svid.Load(filepath.Join(directory, "svid.pem"), filepath.Join(directory, "key.pem"))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(directory, "bundle_map.json"))
	if err != nil {
		return err
	}
	var read struct {
		TrustDomains map[string]json.RawMessage `json:"trust_domains"`
	}
	if err := json.Unmarshal(text, &read); err != nil {
		return err
	}
	set, bundles := spiffebundle.NewSet(), document{}
	for name, text := range read.TrustDomains {
		domain, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return err
		}
		bundle, err := spiffebundle.Parse(domain, text)
		if err != nil {
			return err
		}
		set.Add(bundle)
		bundles[name] = document{"x509": len(bundle.X509Authorities()), "jwt": len(bundle.JWTAuthorities())}
	}
	id, _, err := x509svid.Verify(svid.Certificates, set)
	if err != nil {
		return err
	}
	printLine(document{"verified": id.String(), "bundles": bundles})
	return nil
}

// get asks over HTTP/1.1 and over HTTP/2, each on a connection of its own.
func get(ctx context.Context, url, server string) error {
	id, err := spiffeid.FromString(server)
	if err != nil {
		return err
	}
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	for _, isHTTP2 := range []bool{false, true} {
		transport := &http.Transport{
			TLSClientConfig:   tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(id)),
			ForceAttemptHTTP2: isHTTP2,
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		response.Body.Close()
		printLine(document{
			"protocol": response.Proto,
			"status":   response.StatusCode,
			"body":     string(body),
		})
	}
	return nil
}

// serve answers each request with the SPIFFE ID of its client.
func serve(ctx context.Context, client string) error {
	id, err := spiffeid.FromString(client)
	if err != nil {
		return err
	}
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	printLine(document{"address": listener.Addr().String()})
	server := http.Server{
		TLSConfig: tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(id)),
		Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			peer, err := x509svid.IDFromCert(request.TLS.PeerCertificates[0])
			if err != nil {
				http.Error(response, err.Error(), http.StatusInternalServerError)
				return
			}
			fmt.Fprint(response, peer)
		}),
	}
	return server.ServeTLS(listener, "", "")
}

// outcome is the gRPC code of an error, which is Unknown for those that did not come by gRPC.
func outcome(err error) string {
	return status.Code(err).String()
}

func printError(err error) {
	printLine(document{"error": outcome(err), "message": err.Error()})
}

func printLine(line document) {
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		panic(err)
	}
}
