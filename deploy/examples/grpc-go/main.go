// A gRPC server that ends without a failed call: GOAWAY as soon as it is told that the pod drains, its health in step, and
// GracefulStop on SIGTERM.
//
// Port 9000 is for calls. Port 9090 is for the pod alone: POST /drain for gracekeeper's --notify, and /metrics with the two
// counters of go-grpc-middleware, which its preset go-grpc:// reads.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/golang/protobuf/ptypes/wrappers"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
)

// While the pod drains, a client that still comes is sent away again after this long.
const visit = time.Second

// quotes is the service. Its descriptor is what protoc-gen-go-grpc makes of
//
//	service Quotes {
//	  rpc Get(google.protobuf.StringValue) returns (google.protobuf.StringValue);
//	  rpc Watch(google.protobuf.StringValue) returns (stream google.protobuf.StringValue);
//	}
var quotes = grpc.ServiceDesc{
	ServiceName: "quotes.Quotes",
	HandlerType: (*interface{})(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Get", Handler: get}},
	Streams:     []grpc.StreamDesc{{StreamName: "Watch", Handler: watch, ServerStreams: true}},
}

// get answers after as long as the request says: "300ms".
func get(_ interface{}, ctx context.Context, decode func(interface{}) error, around grpc.UnaryServerInterceptor) (interface{}, error) {
	request := new(wrappers.StringValue)
	if err := decode(request); err != nil {
		return nil, err
	}
	info := &grpc.UnaryServerInfo{FullMethod: "/quotes.Quotes/Get"}
	return around(ctx, request, info, func(context.Context, interface{}) (interface{}, error) {
		took, _ := time.ParseDuration(request.Value)
		time.Sleep(took)
		return &wrappers.StringValue{Value: "quote"}, nil
	})
}

// watch sends a quote every tenth of a second, for as long as the request says: "5s".
func watch(_ interface{}, stream grpc.ServerStream) error {
	request := new(wrappers.StringValue)
	if err := stream.RecvMsg(request); err != nil {
		return err
	}
	took, _ := time.ParseDuration(request.Value)
	for left := took / (100 * time.Millisecond); left > 0; left-- {
		if err := stream.SendMsg(&wrappers.StringValue{Value: "quote"}); err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return stream.SendMsg(&wrappers.StringValue{Value: "end"})
}

// counters are go-grpc-middleware's; with its providers/prometheus these lines are not needed.
type counters struct {
	sync.Mutex
	started, handled map[string]int
}

func (c *counters) count(series map[string]int, method string) {
	c.Lock()
	defer c.Unlock()
	series[method]++
}

func (c *counters) unary(ctx context.Context, request interface{}, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (interface{}, error) {
	c.count(c.started, info.FullMethod)
	defer c.count(c.handled, info.FullMethod)
	return next(ctx, request)
}

func (c *counters) stream(server interface{}, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	c.count(c.started, info.FullMethod)
	defer c.count(c.handled, info.FullMethod)
	return next(server, stream)
}

func (c *counters) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	c.Lock()
	defer c.Unlock()
	for name, series := range map[string]map[string]int{"started": c.started, "handled": c.handled} {
		fmt.Fprintf(w, "# TYPE grpc_server_%s_total counter\n", name)
		for method, count := range series {
			service, call := split(method)
			fmt.Fprintf(w, "grpc_server_%s_total{grpc_service=%q,grpc_method=%q} %d\n", name, service, call, count)
		}
	}
}

// split divides "/quotes.Quotes/Get".
func split(method string) (service, call string) {
	for at := len(method) - 1; at > 0; at-- {
		if method[at] == '/' {
			return method[1:at], method[at+1:]
		}
	}
	return "", method
}

// door is the listener of one server. It closes without closing the port.
type door struct {
	net.Listener
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case connection := <-d.accepted:
		return connection, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

// app serves the port with one server after another: GracefulStop says GOAWAY and takes no new connections, but as long as
// routes lead here, there have to be answers.
type app struct {
	sync.Mutex
	port    net.Listener
	health  *health.Server
	calls   *counters
	door    *door
	servers []*grpc.Server
}

// open has a new server take the connections that come from now on.
func (a *app) open(more ...grpc.ServerOption) {
	server := grpc.NewServer(append(more, grpc.UnaryInterceptor(a.calls.unary), grpc.StreamInterceptor(a.calls.stream))...)
	server.RegisterService(&quotes, struct{}{})
	healthpb.RegisterHealthServer(server, a.health)
	next := &door{Listener: a.port, accepted: make(chan net.Conn), closed: make(chan struct{})}
	go server.Serve(next)
	a.door, a.servers = next, append(a.servers, server)
}

// serve hands each connection to the server of that moment, until the port is closed.
func (a *app) serve() {
	for {
		connection, err := a.port.Accept()
		if err != nil {
			return
		}
		for taken := false; !taken; {
			a.Lock()
			now := a.door
			a.Unlock()
			select {
			case now.accepted <- connection:
				taken = true
			case <-now.closed:
			}
		}
	}
}

// drain has all clients connect anew, elsewhere as soon as routes have changed. Calls and streams under way go on.
func (a *app) drain() {
	a.Lock()
	defer a.Unlock()
	if len(a.servers) > 1 {
		return
	}
	a.health.Shutdown()
	a.open(grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: visit}))
	go a.servers[0].GracefulStop()
}

// stop lets all that is under way end.
func (a *app) stop() {
	a.Lock()
	defer a.Unlock()
	a.health.Shutdown()
	a.port.Close()
	for _, server := range a.servers {
		server.GracefulStop()
	}
}

func main() {
	port, err := net.Listen("tcp", ":9000")
	if err != nil {
		log.Fatal(err)
	}
	calls := &counters{started: map[string]int{}, handled: map[string]int{}}
	a := &app{port: port, health: health.NewServer(), calls: calls}
	a.health.SetServingStatus("quotes.Quotes", healthpb.HealthCheckResponse_SERVING)
	a.open()
	go a.serve()

	http.HandleFunc("/drain", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			a.drain()
		}
	})
	http.Handle("/metrics", calls)
	go http.ListenAndServe("127.0.0.1:9090", nil)

	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	<-asked
	a.stop()
}
