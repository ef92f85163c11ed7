// A client of the gRPC examples: client ADDRESS. Each of its channels is kept for ever and carries calls and streams; one is
// hardly used. How many have ended well is at port 9000; /stop lets what is under way end, and then it tells what failed.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/golang/protobuf/ptypes/wrappers"
	"google.golang.org/grpc"
)

const (
	busyChannels = 3
	callers      = 3
	seldom       = 4 * time.Second
	pause        = 200 * time.Millisecond
)

// loss is a call without its answer.
type loss struct {
	Lost  string `json:"lost"`
	Pod   string `json:"pod"`
	Began int64  `json:"began"`
	Ended int64  `json:"ended"`
}

var (
	lock  sync.Mutex
	good  int
	lost  []loss
	stop  = make(chan struct{})
	once  sync.Once
	watch = &grpc.StreamDesc{StreamName: "Watch", ServerStreams: true}
)

func millis() int64 { return time.Now().UnixNano() / int64(time.Millisecond) }

func stopped() bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

// made keeps what became of one call. None is tried again by this client, but for what gRPC itself does.
func made(what string, err error, at int64) {
	lock.Lock()
	defer lock.Unlock()
	if err == nil {
		good++
		return
	}
	lost = append(lost, loss{what + ": " + err.Error(), "", at, millis()})
}

func calls(channel *grpc.ClientConn, pause time.Duration) {
	for !stopped() {
		took := []int{0, 20, 50}[rand.Intn(3)]
		if rand.Intn(10) == 0 {
			took = []int{300, 2000}[rand.Intn(2)]
		}
		at := millis()
		request := &wrappers.StringValue{Value: fmt.Sprintf("%dms", took)}
		made("call", channel.Invoke(context.Background(), "/quotes.Quotes/Get", request, new(wrappers.StringValue)), at)
		select {
		case <-stop:
		case <-time.After(pause):
		}
	}
}

// whole reads a stream to its end.
func whole(channel *grpc.ClientConn) error {
	stream, err := channel.NewStream(context.Background(), watch, "/quotes.Quotes/Watch")
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&wrappers.StringValue{Value: fmt.Sprintf("%ds", 1+rand.Intn(6))}); err != nil && err != io.EOF {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	last := ""
	for {
		quote := new(wrappers.StringValue)
		if err := stream.RecvMsg(quote); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		last = quote.Value
	}
	if last != "end" {
		return fmt.Errorf("the stream ended with %q", last)
	}
	return nil
}

func streams(channel *grpc.ClientConn) {
	for !stopped() {
		at := millis()
		made("stream", whole(channel), at)
		// A stream that cannot begin fails at once, and without end.
		select {
		case <-stop:
		case <-time.After(pause):
		}
	}
}

func opened() *grpc.ClientConn {
	channel, err := grpc.Dial(os.Args[1], grpc.WithInsecure())
	if err != nil {
		panic(err)
	}
	return channel
}

func main() {
	rand.Seed(time.Now().UnixNano())
	began := millis()
	var all sync.WaitGroup
	start := func(work func()) {
		all.Add(1)
		go func() {
			defer all.Done()
			work()
		}()
	}
	rare := opened()
	start(func() { calls(rare, seldom) })
	for i := 0; i < busyChannels; i++ {
		channel := opened()
		for j := 0; j < callers; j++ {
			start(func() { calls(channel, 20*time.Millisecond) })
		}
		start(func() { streams(channel) })
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stop" {
			once.Do(func() { close(stop) })
		}
		lock.Lock()
		defer lock.Unlock()
		fmt.Fprint(w, good)
	})
	go http.ListenAndServe(":9000", nil)
	all.Wait()
	losses := map[string]int{}
	out := json.NewEncoder(os.Stdout)
	for _, one := range lost {
		losses[strings.SplitN(one.Lost, ":", 2)[0]]++
		out.Encode(one)
	}
	out.Encode(map[string]interface{}{"requests": good + len(lost), "failed": len(lost), "losses": losses, "began": began,
		"ended": millis(), "pods": map[string]int{}})
}
