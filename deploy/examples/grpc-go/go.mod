module example/quotes

go 1.25

require (
	github.com/golang/protobuf v1.5.4
	google.golang.org/grpc v1.83.1
)
