package release

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sealift/sealift/internal/ledger"
)

// secretsAPI is the part of an API server that keeps Secrets.
type secretsAPI struct {
	mu      sync.Mutex
	secrets map[string]*corev1.Secret
	version int
	// deaf are answers that get lost after the request was done, by method.
	deaf map[string]int
	// forbidden refuses a method.
	forbidden string
}

func (a *secretsAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if !strings.Contains(r.URL.Path, "/secrets") {
		_, _ = io.WriteString(w, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"sealift"}}`)
		return
	}
	if r.Method == a.forbidden {
		refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden)
		return
	}
	_, name, _ := strings.Cut(r.URL.Path, "/secrets/")
	body, _ := io.ReadAll(r.Body)
	sent := &corev1.Secret{}
	_ = json.Unmarshal(body, sent)
	var answer any
	switch have := a.secrets[name]; {
	case r.Method == http.MethodGet && name == "":
		list := &corev1.SecretList{TypeMeta: metav1.TypeMeta{Kind: "SecretList", APIVersion: "v1"}}
		for _, s := range a.secrets {
			if _, ok := s.Labels[recordLabel]; ok {
				list.Items = append(list.Items, *s)
			}
		}
		answer = list
	case r.Method == http.MethodPost && a.secrets[sent.Name] != nil:
		refuse(w, http.StatusConflict, metav1.StatusReasonAlreadyExists)
		return
	case r.Method != http.MethodPost && have == nil:
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	case r.Method == http.MethodPut && sent.ResourceVersion != have.ResourceVersion:
		refuse(w, http.StatusConflict, metav1.StatusReasonConflict)
		return
	case r.Method == http.MethodDelete:
		delete(a.secrets, name)
		answer = &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess}
	case r.Method == http.MethodGet:
		answer = have
	default:
		a.version++
		sent.ResourceVersion = strconv.Itoa(a.version)
		a.secrets[sent.Name] = sent
		answer = sent
	}
	if a.deaf[r.Method] > 0 {
		a.deaf[r.Method]--
		panic(http.ErrAbortHandler)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func newLedger(t *testing.T) (*Ledger, *secretsAPI) {
	t.Helper()
	api := &secretsAPI{secrets: map[string]*corev1.Secret{}, deaf: map[string]int{}}
	srv := httptest.NewServer(api)
	t.Cleanup(srv.Close)
	c := &Cluster{server: srv.URL, log: slog.New(slog.DiscardHandler), lease: leaseTimesOf(0)}
	c.open = func(ctx context.Context, _ string) (*session, error) {
		clientset, err := kubernetes.NewForConfig(&rest.Config{
			Host: srv.URL, Transport: &gate{next: http.DefaultTransport, ctx: ctx}, QPS: 1000, Burst: 1000,
			ContentConfig: rest.ContentConfig{ContentType: "application/json"},
		})
		return &session{clientset: clientset}, err
	}
	return c.Ledger("sealift"), api
}

func TestLedger(t *testing.T) {
	l, api := newLedger(t)
	ctx := t.Context()
	if s, v, err := l.Read(ctx, "shop"); s != nil || v != "" || err != nil {
		t.Fatalf("of nothing: %v, %q, %v", s, v, err)
	}
	s := &ledger.State{Name: "shop"}
	one, err := l.Write(ctx, s, "")
	if err != nil || s.Serial != 1 {
		t.Fatalf("serial %d, %v", s.Serial, err)
	}
	two, err := l.Write(ctx, s, one)
	if err != nil || s.Serial != 2 || two == one {
		t.Fatalf("serial %d, %v", s.Serial, err)
	}
	got, v, err := l.Read(ctx, "shop")
	if err != nil || v != two || got.Serial != 2 {
		t.Fatalf("%+v, %q, %v", got, v, err)
	}
	for name, version := range map[string]string{"an old one": one, "none": ""} {
		other := &ledger.State{Name: "shop", ClockFloor: "2026-01-01T00:00:00Z"}
		if _, err := l.Write(ctx, other, version); !errors.As(err, new(*ConflictError)) || other.Serial != 0 {
			t.Errorf("over %s: serial %d, %v", name, other.Serial, err)
		}
	}
	if err := l.WriteValues(ctx, "shop", "id-1", []byte("said")); err != nil {
		t.Fatal(err)
	}
	if names, err := l.Bundles(ctx); err != nil || len(names) != 1 || names[0] != "shop" {
		t.Errorf("bundles are %v, %v", names, err)
	}
	if raw, err := l.ReadValues(ctx, "shop", "id-1"); err != nil || string(raw) != "said" {
		t.Errorf("values are %q, %v", raw, err)
	}
	if err := l.DropValues(ctx, "shop", []string{"id-2"}); err != nil {
		t.Fatal(err)
	}
	if raw, err := l.ReadValues(ctx, "shop", "id-1"); err != nil || raw != nil {
		t.Errorf("dropped values are %q, %v", raw, err)
	}
	if err := l.Forget(ctx, "shop", two); err != nil || len(api.secrets) != 0 {
		t.Errorf("%d Secrets are left, %v", len(api.secrets), err)
	}
}

// TestLedgerLostAnswers: a write whose answer is lost is no conflict with itself.
func TestLedgerLostAnswers(t *testing.T) {
	l, api := newLedger(t)
	s := &ledger.State{Name: "shop"}
	api.deaf[http.MethodPost] = 1
	version, err := l.Write(t.Context(), s, "")
	if err != nil || s.Serial != 1 {
		t.Fatalf("creating: serial %d, %v", s.Serial, err)
	}
	api.deaf[http.MethodPut] = 2
	if _, err := l.Write(t.Context(), s, version); err != nil || s.Serial != 2 {
		t.Fatalf("updating: serial %d, %v", s.Serial, err)
	}
}

func TestLedgerForbidden(t *testing.T) {
	l, api := newLedger(t)
	for method, verb := range map[string]string{http.MethodGet: "get", http.MethodPost: "create"} {
		api.forbidden = method
		var err error
		if verb == "get" {
			_, _, err = l.Read(t.Context(), "shop")
		} else {
			_, err = l.Write(t.Context(), &ledger.State{Name: "shop"}, "")
		}
		var forbidden *ForbiddenError
		if !errors.As(err, &forbidden) || forbidden.Verb != verb || forbidden.Resource != "secrets" || forbidden.Namespace != "sealift" {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// TestLedgerRefusesWhatItFinds: a Secret may hold anything, also something that grows without end.
func TestLedgerRefusesWhatItFinds(t *testing.T) {
	l, api := newLedger(t)
	huge, err := pack(make([]byte, ledger.MaxBytes+1))
	if err != nil {
		t.Fatal(err)
	}
	other, err := ledger.Encode(&ledger.State{Name: "mail"})
	if err != nil {
		t.Fatal(err)
	}
	swapped, err := pack(other)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"nothing": nil, "no gzip": []byte("x"), "too much": huge, "another bundle's": swapped} {
		api.secrets["sealift.shop"] = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "sealift.shop"}, Data: map[string][]byte{stateKey: data}}
		if _, _, err := l.Read(t.Context(), "shop"); !errors.As(err, new(*ledger.StateError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
