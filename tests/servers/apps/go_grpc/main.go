// A gRPC server without a schema: Hello, and Slow, whose message is a number of seconds. With a second argument it has a
// handler for SIGTERM that calls GracefulStop.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"
)

// raw takes messages as they are.
type raw struct{}

func (raw) Marshal(v interface{}) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(b []byte, v interface{}) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}
func (raw) Name() string   { return "raw" }
func (raw) String() string { return "raw" }

func unary(answer func(request string) string) func(interface{}, context.Context, func(interface{}) error, grpc.UnaryServerInterceptor) (interface{}, error) {
	return func(_ interface{}, _ context.Context, decode func(interface{}) error, _ grpc.UnaryServerInterceptor) (interface{}, error) {
		var request []byte
		if err := decode(&request); err != nil {
			return nil, err
		}
		response := []byte(answer(string(request)))
		return &response, nil
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer(grpc.CustomCodec(raw{}))
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "shop.Shop", HandlerType: (*interface{})(nil), Methods: []grpc.MethodDesc{
		{MethodName: "Hello", Handler: unary(func(string) string { return "hello" })},
		{MethodName: "Slow", Handler: unary(func(request string) string {
			seconds, _ := strconv.ParseFloat(request, 64)
			time.Sleep(time.Duration(seconds * float64(time.Second)))
			return "done"
		})},
	}}, struct{}{})
	if len(os.Args) > 2 {
		go func() {
			asked := make(chan os.Signal, 1)
			signal.Notify(asked, syscall.SIGTERM)
			<-asked
			server.GracefulStop()
		}()
	}
	fmt.Println(server.Serve(listener))
}
