package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// body is one whose Close is seen, and wakes who reads.
type body struct {
	io.Reader
	closed chan struct{}
}

func newBody(r io.Reader) *body { return &body{r, make(chan struct{})} }

func (b *body) Close() error {
	close(b.closed)
	return nil
}

// waiting is a body that has nothing until it is closed.
type waiting struct{ *body }

func (w waiting) Read([]byte) (int, error) {
	<-w.closed
	return 0, io.ErrClosedPipe
}

// closeAnswer closes an answer where there is one.
func closeAnswer(resp *http.Response) {
	if resp != nil {
		resp.Body.Close()
	}
}

func roundTrip(t *testing.T, ctx context.Context, h http.HandlerFunc, method string, body io.Reader, length int64) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, "http://host.invalid/v2/x?y=z", body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		r.ContentLength = length
	}
	return inProcess{h}.RoundTrip(r)
}

// TestInProcessAsOverTheWire compares what handlers and clients see with what they see of net/http.
func TestInProcessSeesRequests(t *testing.T) {
	resp, err := roundTrip(t, t.Context(), func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil || string(raw) != "body" || r.ContentLength != 4 || r.Header.Get("Content-Length") != "4" {
			t.Errorf("body %q of %d bytes, header %v, %v", raw, r.ContentLength, r.Header, err)
		}
		if r.Host != "host.invalid" || r.URL.Path != "/v2/x" || r.URL.RawQuery != "y=z" || r.URL.Host != "" || r.RequestURI != "/v2/x?y=z" || r.TLS != nil {
			t.Errorf("host %q, address %v, %q", r.Host, r.URL, r.RequestURI)
		}
		w.Header().Set("X-Answer", "yes")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "answer")
	}, http.MethodPut, newBody(strings.NewReader("body")), 4)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || string(raw) != "answer" || resp.StatusCode != http.StatusTeapot || resp.Header.Get("X-Answer") != "yes" || resp.ContentLength != -1 {
		t.Fatalf("%s %q, %v", resp.Status, raw, err)
	}
}

func TestInProcessAnswersBeforeTheBodyIsRead(t *testing.T) {
	sent := newBody(strings.NewReader(strings.Repeat("x", 10<<20)))
	resp, err := roundTrip(t, t.Context(), func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusForbidden)
	}, http.MethodPut, sent, 10<<20)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := io.ReadAll(resp.Body); err != nil || string(raw) != "no\n" {
		t.Fatalf("%q, %v", raw, err)
	}
	resp.Body.Close()
	<-sent.closed
}

// TestInProcessStreamsBothWays has the handler send back what it reads, piece by piece, more than
// anything could hold in between.
func TestInProcessStreamsBothWays(t *testing.T) {
	pr, pw := io.Pipe()
	resp, err := roundTrip(t, t.Context(), func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_, _ = io.Copy(w, r.Body)
	}, http.MethodPost, pr, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for range 10 {
		piece := bytes.Repeat([]byte("piece"), 1000)
		if _, err := pw.Write(piece); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(piece))
		if _, err := io.ReadFull(resp.Body, got); err != nil || !bytes.Equal(got, piece) {
			t.Fatalf("other bytes came back, %v", err)
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) != 0 {
		t.Fatalf("%d bytes, %v", len(rest), err)
	}
}

func TestInProcessEndsWithItsContext(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"reading": func(_ http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); err == nil {
				t.Error("the body has an end")
			}
		},
		"waiting": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			sent := waiting{newBody(nil)}
			time.AfterFunc(time.Millisecond, cancel)
			resp, err := roundTrip(t, ctx, func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				h(w, r)
			}, http.MethodPut, sent, -1)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			closeAnswer(resp)
			<-ended
			<-sent.closed
		})
	}
}

// TestInProcessEndsWithTheAnswer: who closes an answer, or ends its context, lets the handler go.
func TestInProcessEndsWithTheAnswer(t *testing.T) {
	for _, byClose := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		resp, err := roundTrip(t, ctx, func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(w, endless{})
			<-r.Context().Done()
			ended <- err
		}, http.MethodGet, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
			t.Fatal(err)
		}
		if byClose {
			resp.Body.Close()
		} else {
			cancel()
		}
		if err := <-ended; err == nil {
			t.Error("the handler has written without end")
		}
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("the client takes the answer for whole")
		}
		cancel()
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestInProcessBodiesThatAreNotWhatTheySay(t *testing.T) {
	broken := errors.New("the source is broken")
	for name, c := range map[string]struct {
		body io.Reader
		size int64
		want error
	}{
		"too short": {strings.NewReader("ab"), 3, io.ErrUnexpectedEOF},
		"broken":    {io.MultiReader(strings.NewReader("ab"), failing{broken}), -1, broken},
	} {
		sent := newBody(c.body)
		resp, err := roundTrip(t, t.Context(), func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); !errors.Is(err, c.want) {
				t.Errorf("%s: the handler reads %v", name, err)
			}
			w.WriteHeader(http.StatusAccepted)
		}, http.MethodPut, sent, c.size)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: error %v", name, err)
		}
		closeAnswer(resp)
		<-sent.closed
	}
	resp, err := roundTrip(t, t.Context(), func(_ http.ResponseWriter, r *http.Request) {
		if raw, err := io.ReadAll(r.Body); err != nil || string(raw) != "ab" {
			t.Errorf("too long: %q, %v", raw, err)
		}
	}, http.MethodPut, newBody(strings.NewReader("abc")), 2)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestInProcessAnswersThatAreNotWhole(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "abc")
		},
		"broken off": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "abc")
			panic(http.ErrAbortHandler)
		},
	} {
		resp, err := roundTrip(t, t.Context(), h, http.MethodGet, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := io.ReadAll(resp.Body); err == nil || string(raw) != "abc" {
			t.Errorf("%s: %q, %v", name, raw, err)
		}
		resp.Body.Close()
	}
	resp, err := roundTrip(t, t.Context(), func(http.ResponseWriter, *http.Request) { panic("early") }, http.MethodGet, nil, 0)
	if err == nil {
		t.Error("a handler that fails has answered")
	}
	closeAnswer(resp)
	resp, err = roundTrip(t, t.Context(), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "2")
		if n, err := io.WriteString(w, "abc"); n != 2 || !errors.Is(err, http.ErrContentLength) {
			t.Errorf("wrote %d, %v", n, err)
		}
	}, http.MethodGet, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := io.ReadAll(resp.Body); err != nil || string(raw) != "ab" {
		t.Errorf("%q, %v", raw, err)
	}
	resp.Body.Close()
}

// TestInProcessLeavesNothing has every way to end leave no goroutine.
func TestInProcessLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 100 {
		resp, err := roundTrip(t, t.Context(), func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, 10)
			_, _ = io.WriteString(w, "answer")
		}, http.MethodPut, newBody(endless{}), -1)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := io.ReadAll(resp.Body); err != nil || string(raw) != "answer" {
			t.Fatalf("%q, %v", raw, err)
		}
		resp.Body.Close()
	}
	for runtime.NumGoroutine() > before+10 {
		runtime.Gosched() // the test's time limit is the judge
	}
}
