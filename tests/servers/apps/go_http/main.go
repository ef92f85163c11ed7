// Go's net/http: /hello, and /slow?seconds=N. With a second argument it has a handler for SIGTERM that calls Shutdown.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	http.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	http.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		seconds, _ := strconv.ParseFloat(r.URL.Query().Get("seconds"), 64)
		time.Sleep(time.Duration(seconds * float64(time.Second)))
		fmt.Fprint(w, "done")
	})
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1]}
	if len(os.Args) == 2 {
		panic(server.ListenAndServe())
	}
	go server.ListenAndServe()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	<-asked
	server.Shutdown(context.Background())
}
