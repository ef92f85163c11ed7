// A shop of the standard library alone, over HTTP/1 and HTTP/2, which says goodbye once it was told to. See gate.py.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

var draining atomic.Bool

func sayGoodbye(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// begin says that a request runs, and gives what says whether it may end.
func begin(r *http.Request) func() bool {
	gate := filepath.Join(r.URL.Query().Get("folder"), r.URL.Query().Get("name"))
	os.WriteFile(gate+".started", nil, 0o644)
	return func() bool {
		_, err := os.Stat(gate + ".go")
		return err == nil
	}
}

func main() {
	shop := http.NewServeMux()
	shop.HandleFunc("POST /drain", func(w http.ResponseWriter, r *http.Request) { draining.Store(true) })
	shop.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	shop.HandleFunc("GET /work", func(w http.ResponseWriter, r *http.Request) {
		for open := begin(r); !open(); {
			time.Sleep(10 * time.Millisecond)
		}
		fmt.Fprint(w, "done")
	})
	shop.HandleFunc("POST /upload", func(w http.ResponseWriter, r *http.Request) {
		begin(r)
		bytes, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, `{"bytes": %d}`, bytes)
	})
	shop.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for open := begin(r); !open(); {
			fmt.Fprint(w, "data: tick\n\n")
			w.(http.Flusher).Flush()
			time.Sleep(100 * time.Millisecond)
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := http.Server{Handler: sayGoodbye(shop), Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	panic(server.Serve(listener))
}
