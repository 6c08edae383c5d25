package faultproxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/oci/faultproxy"
)

// store is a server that has one document of 1000 bytes and keeps what it is sent, also where that
// was cut.
type store struct {
	mu   sync.Mutex
	kept [][]byte
}

var document = bytes.Repeat([]byte("0123456789"), 100)

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	got, err := io.ReadAll(r.Body)
	if len(got) > 0 || err != nil {
		s.mu.Lock()
		s.kept = append(s.kept, got)
		s.mu.Unlock()
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(document)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(document[:300])
		_, _ = w.Write(document[300:])
	}
}

func (s *store) last() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == 0 {
		return nil
	}
	return s.kept[len(s.kept)-1]
}

// answered is what a client got.
type answered struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// ask sends one request on a connection of its own.
func ask(t *testing.T, s *faultproxy.Server, method, path string, body []byte) answered {
	t.Helper()
	patience := time.Minute
	if strings.HasPrefix(path, "/stall") {
		patience = 300 * time.Millisecond // it is the client that gives up
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.Addr+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return answered{err: err}
	}
	defer resp.Body.Close()
	a := answered{status: resp.StatusCode, header: resp.Header}
	a.body, a.err = io.ReadAll(resp.Body)
	return a
}

// TestKinds: what each kind does to a request, as client and server see it.
func TestKinds(t *testing.T) {
	sent := bytes.Repeat([]byte("abcdefghij"), 100)
	flipped := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	}
	words := func(a answered) error {
		if a.err != nil || !strings.Contains(string(a.body), faultproxy.Words) {
			return fmt.Errorf("got %d %q, %w", a.status, a.body, a.err)
		}
		return nil
	}
	want := func(ok bool, a answered) error {
		if !ok {
			return fmt.Errorf("got %d, %d bytes, %w", a.status, len(a.body), a.err)
		}
		return nil
	}
	for kind, c := range map[faultproxy.Kind]struct {
		method, path string
		rule         faultproxy.Rule
		check        func(answered, *store) error
	}{
		faultproxy.TooManyRequests: {http.MethodGet, "/", faultproxy.Rule{RetryAfter: "0"}, func(a answered, _ *store) error {
			if a.status != 429 || a.header.Get("Retry-After") != "0" {
				return fmt.Errorf("got %d, Retry-After %q", a.status, a.header.Get("Retry-After"))
			}
			return words(a)
		}},
		faultproxy.Unavailable: {http.MethodGet, "/", faultproxy.Rule{}, func(a answered, _ *store) error {
			if a.status != 503 || a.header["Retry-After"] != nil {
				return fmt.Errorf("got %d, Retry-After %q", a.status, a.header["Retry-After"])
			}
			return words(a)
		}},
		faultproxy.InternalError: {http.MethodGet, "/", faultproxy.Rule{}, func(a answered, _ *store) error {
			return errors.Join(words(a), want(a.status == 500, a))
		}},
		faultproxy.Drop: {http.MethodPut, "/", faultproxy.Rule{}, func(a answered, s *store) error {
			return want(a.err != nil && s.last() == nil, a)
		}},
		faultproxy.Reset: {http.MethodGet, "/", faultproxy.Rule{}, func(a answered, _ *store) error {
			return want(errors.Is(a.err, syscall.ECONNRESET), a)
		}},
		faultproxy.CutBody: {http.MethodGet, "/", faultproxy.Rule{At: 400}, func(a answered, _ *store) error {
			return want(errors.Is(a.err, io.ErrUnexpectedEOF) && bytes.Equal(a.body, document[:400]), a)
		}},
		faultproxy.CutRequest: {http.MethodPut, "/", faultproxy.Rule{At: 400}, func(a answered, s *store) error {
			return want(a.err != nil && bytes.Equal(s.last(), sent[:400]), a)
		}},
		faultproxy.CorruptBody: {http.MethodGet, "/", faultproxy.Rule{At: 299}, func(a answered, _ *store) error {
			return want(a.err == nil && bytes.Equal(a.body, flipped(document, 299)), a)
		}},
		faultproxy.CorruptRequest: {http.MethodPut, "/", faultproxy.Rule{At: 5000}, func(a answered, s *store) error {
			return want(a.err == nil && bytes.Equal(s.last(), flipped(sent, 500)) && bytes.Equal(a.body, document), a)
		}},
		faultproxy.ShortBody: {http.MethodGet, "/", faultproxy.Rule{At: 250}, func(a answered, _ *store) error {
			return want(a.err == nil && bytes.Equal(a.body, document[:250]), a)
		}},
		faultproxy.StallBody: {http.MethodGet, "/stall", faultproxy.Rule{At: 10}, func(a answered, _ *store) error {
			return want(errors.Is(a.err, context.DeadlineExceeded) && bytes.Equal(a.body, document[:10]), a)
		}},
		faultproxy.StallRequest: {http.MethodPut, "/stall", faultproxy.Rule{At: 10}, func(a answered, s *store) error {
			return want(errors.Is(a.err, context.DeadlineExceeded) && s.last() == nil, a)
		}},
	} {
		t.Run(string(kind), func(t *testing.T) {
			back := &store{}
			c.rule.Kind, c.rule.Times = kind, 1
			s := faultproxy.Start(t, back, c.rule)
			var body []byte
			if c.method == http.MethodPut {
				body = sent
			}
			a := ask(t, s, c.method, c.path, body)
			if kind != faultproxy.StallRequest {
				s.Wait()
			}
			if err := c.check(a, back); err != nil {
				t.Fatal(err)
			}
			if st := s.Stats(); st.Faults != 1 || st.By[kind] != 1 || st.Requests != 1 {
				t.Fatalf("counted %+v", st)
			}
			// That was all: the next one passes whole.
			s.Restart()
			a = ask(t, s, c.method, "/", body)
			if a.err != nil || !bytes.Equal(a.body, document) || !bytes.Equal(back.last(), body) && kind != faultproxy.StallRequest {
				t.Fatalf("then got %d, %d bytes, %v", a.status, len(a.body), a.err)
			}
			if st := s.Stats(); st.Faults != 0 || st.Up != int64(len(body)) || st.Down != int64(len(document)) {
				t.Fatalf("then counted %+v", st)
			}
			// What stalls does not keep the proxy from ending, and the server has got the part.
			s.Close()
			if kind == faultproxy.StallRequest && !bytes.Equal(back.last(), sent[:10]) {
				t.Fatalf("the server has got %q", back.last())
			}
		})
	}
}

// TestSchedules: which requests go wrong.
func TestSchedules(t *testing.T) {
	for name, c := range map[string]struct {
		rule faultproxy.Rule
		ask  string // M/path, M being the first letter of the method
		want string // x where it goes wrong
	}{
		"all":                  {faultproxy.Rule{}, "G/a G/a P/b", "xxx"},
		"every third":          {faultproxy.Rule{Every: 3}, "G/a G/a G/b G/a G/a G/a", "..x..x"},
		"skip":                 {faultproxy.Rule{Skip: 2}, "G/a G/a G/b G/a", "..xx"},
		"skip, every other":    {faultproxy.Rule{Skip: 1, Every: 2}, "G/a G/a G/b G/a G/a", "..x.x"},
		"first tries":          {faultproxy.Rule{FirstTries: 2}, "G/a G/a G/b G/a P/a G/b G/b", "xxx.xx."},
		"first tries, by key":  {faultproxy.Rule{FirstTries: 1, Key: func(r *http.Request) string { return r.URL.RawQuery }}, "G/a?x G/b?x G/b?y P/c", "x.xx"},
		"the query counts not": {faultproxy.Rule{FirstTries: 1}, "G/a?x=1 G/a?x=2 G/a", "x.."},
		"times":                {faultproxy.Rule{Times: 2}, "G/a G/a G/b", "xx."},
		"method":               {faultproxy.Rule{Methods: []string{http.MethodPut}}, "G/a P/a G/b P/b", ".x.x"},
		"path":                 {faultproxy.Rule{Path: regexp.MustCompile("^/b")}, "G/a P/a G/b P/b/c G/ab", "..xx."},
		"size":                 {faultproxy.Rule{MinBody: 11, Kind: faultproxy.CorruptRequest}, "G/a P/short P/longer-than-ten-bytes", "..x"},
		"size of an answer":    {faultproxy.Rule{MinBody: 1001, Kind: faultproxy.CutBody}, "G/a G/a", ".."},
		"no body, no fault":    {faultproxy.Rule{Kind: faultproxy.CutBody}, "H/a G/a", ".x"},
		"nothing to cut":       {faultproxy.Rule{Kind: faultproxy.CutRequest}, "G/a P/a", "xx"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.rule.Kind == "" {
				c.rule.Kind = faultproxy.InternalError
			}
			s := faultproxy.Start(t, &store{}, c.rule)
			got := ""
			for _, one := range strings.Fields(c.ask) {
				method, path := map[byte]string{'G': http.MethodGet, 'H': http.MethodHead, 'P': http.MethodPut}[one[0]], one[1:]
				var body []byte
				if method == http.MethodPut {
					body = []byte(path)
				}
				before := s.Stats().Faults
				_ = ask(t, s, method, path, body)
				s.Wait()
				got += map[bool]string{true: "x", false: "."}[s.Stats().Faults > before]
			}
			if got != c.want {
				t.Fatalf("%s: %s, want %s", c.ask, got, c.want)
			}
		})
	}
}

// TestRulesInTurn: the first rule whose turn it is counts.
func TestRulesInTurn(t *testing.T) {
	s := faultproxy.Start(t, &store{},
		faultproxy.Rule{Kind: faultproxy.Unavailable, Times: 1}, faultproxy.Rule{Kind: faultproxy.InternalError, Times: 1, Words: "mine"})
	for i, want := range []int{503, 500, 200} {
		if a := ask(t, s, http.MethodGet, "/", nil); a.status != want || (want == 500) != strings.Contains(string(a.body), "mine") {
			t.Fatalf("request %d: %d %s, want %d", i, a.status, a.body, want)
		}
	}
}

// TestDownAndUp: while it is down connections are refused; then it is where it was.
func TestDownAndUp(t *testing.T) {
	s := faultproxy.Start(t, &store{})
	addr := s.Addr
	if a := ask(t, s, http.MethodGet, "/", nil); a.err != nil {
		t.Fatal(a.err)
	}
	s.Down()
	s.Down()
	if a := ask(t, s, http.MethodGet, "/", nil); !errors.Is(a.err, syscall.ECONNREFUSED) {
		t.Fatalf("while down: %v", a.err)
	}
	if err := errors.Join(s.Up(), s.Up()); err != nil || s.Addr != addr {
		t.Fatalf("%s, was %s: %v", s.Addr, addr, err)
	}
	if a := ask(t, s, http.MethodGet, "/", nil); a.err != nil || s.Stats().Requests != 2 {
		t.Fatalf("%v, %+v", a.err, s.Stats())
	}
}

// TestWhen: what is to be done when something has passed is done once, before the next byte passes,
// or before the request.
func TestWhen(t *testing.T) {
	s := faultproxy.Start(t, &store{})
	calls := 0
	s.When(func(st faultproxy.Stats) bool { return st.Down > 1000 }, func() { calls++; s.Down() })
	if a := ask(t, s, http.MethodGet, "/", nil); a.err != nil || calls != 0 {
		t.Fatalf("%d calls, %v", calls, a.err)
	}
	_ = ask(t, s, http.MethodGet, "/", nil)
	s.Wait()
	// The document is written in two pieces.
	if st := s.Stats(); calls != 1 || st.Down != 1300 && st.Down != 2000 {
		t.Fatalf("%d calls, %+v", calls, st)
	}
	if err := s.Up(); err != nil {
		t.Fatal(err)
	}
	if a := ask(t, s, http.MethodGet, "/", nil); a.err != nil || calls != 1 {
		t.Fatalf("%d calls, %v", calls, a.err)
	}
	back := &store{}
	s = faultproxy.Start(t, back)
	s.When(func(st faultproxy.Stats) bool { return st.Requests == 1 }, s.Down)
	if a := ask(t, s, http.MethodPut, "/", document); a.err == nil {
		t.Fatalf("the request that was not to pass: %d", a.status)
	}
}

// TestUpstream: a server behind an address is passed on to, bodies and all; where nobody listens
// there, the connection is closed.
func TestUpstream(t *testing.T) {
	back := &store{}
	server := httptest.NewServer(back)
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := faultproxy.Start(t, faultproxy.Upstream(base))
	if a := ask(t, s, http.MethodPut, "/", document); a.err != nil || !bytes.Equal(a.body, document) || !bytes.Equal(back.last(), document) {
		t.Fatalf("%d, %d bytes, %v", a.status, len(a.body), a.err)
	}
	s.Set(faultproxy.Rule{Kind: faultproxy.CutBody, At: 100})
	if a := ask(t, s, http.MethodGet, "/", nil); !errors.Is(a.err, io.ErrUnexpectedEOF) || !bytes.Equal(a.body, document[:100]) {
		t.Fatalf("cut: %d, %d bytes, %v", a.status, len(a.body), a.err)
	}
	s.Set()
	server.Close()
	if a := ask(t, s, http.MethodGet, "/", nil); a.err == nil {
		t.Fatalf("without a server: %d", a.status)
	}
}
