package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// checkTimeout bounds each try of a check, checkEvery is the time between two of them.
	checkTimeout = 10 * time.Second
	checkEvery   = time.Second
	// maxHealthAnswer bounds what is read of an answer, maxAnswerShown what an error shows of it, in bytes.
	maxHealthAnswer = 64 << 10
	maxAnswerShown  = 200
)

// HTTPCheck is a request to a Service and the answer that is wanted.
type HTTPCheck struct {
	Service string
	Port    int
	// Path may have a query; empty is "/".
	Path string
	// Status is the wanted one; 0 is any from 200 to 299. Redirects are not followed.
	Status int
	// TLS asks by HTTPS. The API server does not look at the certificate.
	TLS bool
}

func (c HTTPCheck) String() string {
	return fmt.Sprintf("%s://%s:%d/%s", c.scheme(), c.Service, c.Port, strings.TrimPrefix(c.Path, "/"))
}

func (c HTTPCheck) scheme() string {
	if c.TLS {
		return "https"
	}
	return "http"
}

// CheckHTTP asks a Service by the proxy of the API server, until the answer is the wanted one or timeout is over; 0 is that of the
// Cluster. It needs no way into the network of the cluster but the right to get services/proxy. The API server's own answers, such as that
// no pod is ready, never are the wanted one. An error is a *[CheckError] with the last answer; it wraps a *[ForbiddenError]
// where the right is missing.
func (c *Cluster) CheckHTTP(ctx context.Context, namespace string, check HTTPCheck, timeout time.Duration) error {
	e := &CheckError{What: clean(check.String()), Namespace: namespace}
	return c.check(ctx, e, timeout, func(ctx context.Context, s *session) (done bool, err error) {
		a, err := s.ask(ctx, namespace, check, checkTimeout)
		if err != nil {
			e.Last = clean(err.Error())
			return false, nil
		}
		if a.status != nil {
			if err := a.forbidden(namespace); err != nil {
				return false, err
			}
			e.Last = clean(fmt.Sprintf("from the cluster: %d %s", a.code, a.status.Message))
			return false, nil
		}
		e.Last = clean(fmt.Sprintf("%d %s", a.code, a.shown))
		if check.Status == 0 {
			return a.code >= 200 && a.code <= 299, nil
		}
		return a.code == check.Status, nil
	})
}

// CheckTCP looks whether something listens at a port of a Service, by the proxy of the API server, which connects to a ready pod behind it;
// see [Cluster.CheckHTTP] for rights and errors. The proxy does so for Services with pods only.
//
// The proxy speaks HTTP only. So a request is sent, and whatever comes of it but a failure to connect means that something listens: an
// answer, one that is no HTTP, a connection that is closed or reset. The API server tells these apart in words only ("error trying to
// reach service: dial tcp …: connection refused"), which decide here, because there is nothing else. A server that takes a connection and says
// nothing to what it does not understand counts as listening once the API server itself would have given up connecting, after 35 seconds;
// with a shorter timeout it counts as not listening.
func (c *Cluster) CheckTCP(ctx context.Context, namespace, service string, port int, timeout time.Duration) error {
	e := &CheckError{What: clean(fmt.Sprintf("tcp://%s:%d", service, port)), Namespace: namespace}
	return c.check(ctx, e, timeout, func(ctx context.Context, s *session) (done bool, err error) {
		begun := time.Now()
		a, err := s.ask(ctx, namespace, HTTPCheck{Service: service, Port: port}, silence)
		if errors.Is(err, context.DeadlineExceeded) && time.Since(begun) >= silence {
			return true, nil
		}
		if err != nil {
			e.Last = clean(err.Error())
			return false, nil
		}
		if a.status == nil || connected(a.status.Message) {
			return true, nil
		}
		if err := a.forbidden(namespace); err != nil {
			return false, err
		}
		e.Last = clean(fmt.Sprintf("from the cluster: %d %s", a.code, a.status.Message))
		return false, nil
	})
}

// silence is how long a server may say nothing: the API server gives up connecting after 30 seconds.
const silence = 35 * time.Second

// connected says whether the API server had a connection to the pod before it failed to get an answer.
func connected(message string) bool {
	failure, ok := strings.CutPrefix(message, "error trying to reach service: ")
	return ok && !strings.HasPrefix(failure, "dial ") && !strings.HasPrefix(failure, "proxyconnect ")
}

func (c *Cluster) check(ctx context.Context, e *CheckError, timeout time.Duration, try func(context.Context, *session) (bool, error)) error {
	if timeout <= 0 {
		timeout = c.timeout
	}
	s, err := c.open(ctx, e.Namespace)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		done, err := try(ctx, s)
		if done {
			return nil
		}
		if err == nil {
			select {
			case <-time.After(checkEvery):
				continue
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		e.Err = err
		return e
	}
}

// answer is what the proxy of the API server said.
type answer struct {
	code  int
	shown string
	// status is set where it is the API server's own.
	status *metav1.Status
}

func (a *answer) forbidden(namespace string) error {
	if a.code != http.StatusForbidden || a.status == nil {
		return nil
	}
	return &ForbiddenError{Verb: "get", Resource: "services/proxy", Namespace: namespace, Err: &apierrors.StatusError{ErrStatus: *a.status}}
}

func (s *session) ask(ctx context.Context, namespace string, check HTTPCheck, timeout time.Duration) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	path, err := url.Parse("/" + strings.TrimPrefix(check.Path, "/"))
	if err != nil {
		return nil, err
	}
	name := check.Service + ":" + strconv.Itoa(check.Port)
	if check.TLS {
		name = "https:" + name
	}
	to := s.clientset.CoreV1().RESTClient().Get().Namespace(namespace).Resource("services").Name(name).SubResource("proxy").URL()
	to.Path, to.RawQuery = strings.TrimSuffix(to.Path, "/")+path.Path, path.RawQuery
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := s.http.Do(req)
	if err != nil {
		var asked *url.Error
		if errors.As(err, &asked) {
			err = asked.Err // the address is that of the API server, and says nothing
		}
		return nil, err
	}
	body, readErr := io.ReadAll(io.LimitReader(resp.Body, maxHealthAnswer))
	if err := firstError(readErr, resp.Body.Close()); err != nil {
		return nil, err
	}
	a := &answer{code: resp.StatusCode, shown: string(body[:min(len(body), maxAnswerShown)])}
	status := &metav1.Status{}
	if resp.StatusCode >= 400 && json.Unmarshal(body, status) == nil && status.Kind == "Status" && status.APIVersion == "v1" {
		a.status = status
	}
	return a, nil
}
