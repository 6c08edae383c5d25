package registry

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics count what a Front does, for Prometheus. They are of this one registry, whatever else
// counts in the process.
type Metrics struct {
	all                  *prometheus.Registry
	requests             *prometheus.CounterVec
	seconds              *prometheus.HistogramVec
	bytesIn, bytesOut    *prometheus.CounterVec
	inFlight             prometheus.Gauge
	failedLogins, noLine prometheus.Counter
}

// NewMetrics returns metrics. Space says how many bytes are free where the content is, and how many
// there are in all; nil where nothing is stored.
func NewMetrics(space func() (free, total int64, ok bool)) *Metrics {
	const prefix = "sealift_registry_"
	labels := []string{"method", "class"}
	m := &Metrics{
		all:          prometheus.NewRegistry(),
		requests:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "requests_total", Help: "Requests that were answered."}, []string{"method", "class", "code"}),
		seconds:      prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + "request_seconds", Help: "How long requests took.", Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10, 60, 600}}, labels),
		bytesIn:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "received_bytes_total", Help: "Bytes of the bodies of requests."}, labels),
		bytesOut:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "sent_bytes_total", Help: "Bytes of the bodies of answers."}, labels),
		inFlight:     prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "in_flight_requests", Help: "Requests that are being answered."}),
		failedLogins: prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "failed_logins_total", Help: "Requests with credentials that are not right."}),
		noLine:       prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "access_log_lost_total", Help: "Lines that the access log could not take."}),
	}
	m.all.MustRegister(m.requests, m.seconds, m.bytesIn, m.bytesOut, m.inFlight, m.failedLogins, m.noLine)
	if space != nil {
		m.all.MustRegister(spaceOf(prefix, "free", space, func(free, _ int64) int64 { return free }), spaceOf(prefix, "total", space, func(_, total int64) int64 { return total }))
	}
	return m
}

// spaceOf is a gauge of the file system.
func spaceOf(prefix, name string, space func() (free, total int64, ok bool), pick func(free, total int64) int64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + "store_" + name + "_bytes", Help: "Bytes of the store's file system: " + name + ". -1 where it does not say."}, func() float64 {
		free, total, ok := space()
		if !ok {
			return -1
		}
		return float64(pick(free, total))
	})
}

// Handler answers with the metrics in the text format of Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.all, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

func (m *Metrics) begin() {
	if m != nil {
		m.inFlight.Inc()
	}
}

func (m *Metrics) end(r *http.Request, status int, in, out int64, took time.Duration) {
	if m == nil {
		return
	}
	m.inFlight.Dec()
	method, class := methodOf(r.Method), classOf(r.URL.Path)
	m.requests.WithLabelValues(method, class, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(method, class).Observe(took.Seconds())
	m.bytesIn.WithLabelValues(method, class).Add(float64(in))
	m.bytesOut.WithLabelValues(method, class).Add(float64(out))
}

func (m *Metrics) lostLine() {
	if m != nil {
		m.noLine.Inc()
	}
}

func (m *Metrics) failedLogin() {
	if m != nil {
		m.failedLogins.Inc()
	}
}

// methodOf keeps clients from making up labels.
func methodOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return method
	}
	return "other"
}

// classOf is what a path is for.
func classOf(path string) string {
	switch path {
	case "/v2", "/v2/":
		return "base"
	case "/v2/_catalog":
		return "catalog"
	case "/healthz", "/readyz":
		return "health"
	case "/metrics":
		return "metrics"
	case tokenPath:
		return "token"
	}
	if !strings.HasPrefix(path, "/v2/") {
		return "other"
	}
	switch {
	case strings.Contains(path, "/blobs/uploads/"):
		return "upload"
	case strings.Contains(path, "/blobs/"):
		return "blob"
	case strings.Contains(path, "/manifests/"):
		return "manifest"
	case strings.HasSuffix(path, "/tags/list"):
		return "tags"
	case strings.Contains(path, "/referrers/"):
		return "referrers"
	}
	return "other"
}
