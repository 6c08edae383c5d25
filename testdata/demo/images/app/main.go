// App is the one program in every demo image. Its argument says what it does:
//
//	serve   answer HTTP on $PORT (8080): / says which version this is, /ready whether to send it
//	        traffic (200, or 503 for ever where $NEVER_READY is set); end in peace on SIGTERM
//	job     say that the work is done
//	fail    exit with 3
//	pause   wait for a signal, as the container that holds a pod's namespaces does
//
// It speaks just enough HTTP by itself: net/http would more than double its size and the time that
// a first build takes.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	mode := "serve"
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	switch mode {
	case "serve":
		if err := serve(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "app:", err)
			os.Exit(1)
		}
	case "job":
		fmt.Printf("job of version %s: done\n", version)
	case "fail":
		fmt.Fprintf(os.Stderr, "job of version %s: failing, as it was told to\n", version)
		os.Exit(3)
	case "pause":
		<-ctx.Done()
	default:
		fmt.Fprintf(os.Stderr, "app: unknown mode %q; want serve, job, fail or pause\n", mode)
		os.Exit(1)
	}
}

// serve answers until the context ends, and then waits for the answers it has begun.
func serve(ctx context.Context) error {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", ":"+port)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	fmt.Printf("version %s listens on %s\n", version, listener.Addr())

	var answers sync.WaitGroup
	defer answers.Wait()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			fmt.Println("stopping")
			return nil
		}
		if err != nil {
			return err
		}
		answers.Go(func() { answer(conn) })
	}
}

// answer reads one request and answers it; a connection carries no second one.
func answer(conn net.Conn) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return
	}
	request := bufio.NewScanner(conn)
	request.Scan()
	fields := strings.Fields(request.Text()) // method, path, protocol
	for request.Scan() && request.Text() != "" {
		// The headers say nothing that matters here.
	}
	status, body := "200 OK", ""
	switch {
	case len(fields) != 3 || fields[0] != "GET":
		status = "400 Bad Request"
	case fields[1] == "/":
		host, _ := os.Hostname()
		body = fmt.Sprintf("version %s on %s\n", version, host)
	case fields[1] == "/ready" && os.Getenv("NEVER_READY") != "":
		status = "503 Service Unavailable"
	case fields[1] == "/ready":
	default:
		status = "404 Not Found"
	}
	fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, len(body), body)
}
