// Package metrics tells monitoring systems how the head and its nodes are:
// Prometheus asks, InfluxDB is sent it.
//
// Nothing is kept here but counters of the head itself; what nodes report is
// read from what the fleet has, when it is asked for. Reading takes an access
// token, as with all of the API: Prometheus sends one as a bearer token. Where
// an admin gives it an address of its own (--metrics), whoever reaches that
// may read without one. The package must not decide what is good or bad:
// scripts/monitoring has rules for that.
package metrics

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"muster/controller/api"
)

// Node is one node at this moment.
type Node struct {
	UID, Name, IP string
	State         string
	Since         time.Time // of the state
	Linked        bool
	Reported      time.Time // zero: never
	Status        map[string]json.RawMessage
	Hardware      json.RawMessage
}

// Options are what New needs.
type Options struct {
	Nodes   func() []Node
	Counts  func() (reports, refused uint64)
	Cluster func() string // its name, for the targets' labels; may be empty
	Version string
	Now     func() time.Time
}

// Metrics answers.
type Metrics struct {
	opt   Options
	head  *prometheus.Registry
	boots prometheus.Counter
	steps *prometheus.HistogramVec
}

// New makes it.
func New(opt Options) *Metrics {
	m := &Metrics{
		opt: opt, head: prometheus.NewRegistry(),
		boots: prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_boots_total", Help: "Boots that ended with the node up."}),
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "muster_boot_step_seconds", Help: "How long the steps of boots took; total is from the first to the last.",
			Buckets: []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640},
		}, []string{"step"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "muster_head_info", Help: "The version of the head's program.", ConstLabels: prometheus.Labels{"version": opt.Version}})
	info.Set(1)
	counter := func(name, help string, pick func(taken, refused uint64) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(pick(opt.Counts())) })
	}
	m.head.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info, m.boots, m.steps, states{opt.Nodes},
		counter("muster_reports_total", "Reports of nodes that were taken.", func(taken, _ uint64) uint64 { return taken }),
		counter("muster_reports_refused_total", "Reports of nodes that broke a bound.", func(_, refused uint64) uint64 { return refused }),
	)
	return m
}

// Booted counts a boot that ended: how long each step took, and all of it, in
// seconds.
func (m *Metrics) Booted(steps map[string]float64, total float64) {
	m.boots.Inc()
	for step, seconds := range steps {
		m.steps.WithLabelValues(step).Observe(seconds)
	}
	m.steps.WithLabelValues("total").Observe(total)
}

// Root is where the metrics lie: where Prometheus looks by itself, and beside
// that.
const Root = "/metrics"

// Routes are the endpoints.
func (m *Metrics) Routes() []api.Route {
	return []api.Route{
		{Method: "GET", Path: Root, Permission: "ClusterRead", Doc: "Metrics of the head, for Prometheus.", Handler: m.getHead, Raw: "text/plain"},
		{Method: "GET", Path: Root + "/nodes", Permission: "NodesRead", Doc: "Metrics of all nodes, for Prometheus.", Handler: m.getNodes, Raw: "text/plain"},
		{Method: "GET", Path: Root + "/targets", Permission: "NodesRead", Doc: "The nodes as targets for Prometheus' http_sd, for exporters that run on them.", Handler: m.getTargets, Raw: "application/json",
			Query: []api.Param{{Name: "port", Type: "integer", Doc: "of the exporter on the nodes; 9100 unless given"}}},
	}
}

// Open serves the metrics without asking who wants them: for an address that
// only those reach who may.
func (m *Metrics) Open() http.Handler {
	mux := http.NewServeMux()
	for _, r := range m.Routes() {
		mux.HandleFunc(r.Method+" "+r.Path, func(w http.ResponseWriter, req *http.Request) {
			if err := r.Handler(w, req); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		})
	}
	return mux
}

func (m *Metrics) getHead(w http.ResponseWriter, r *http.Request) error {
	promhttp.HandlerFor(m.head, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	return nil
}

// states counts the nodes by state when it is asked.
type states struct{ nodes func() []Node }

// nodeStates are those that a node can be in.
func nodeStates() []string { return []string{"up", "booting", "down", "failed", "unknown"} }

func (s states) descriptions() (byState, linked *prometheus.Desc) {
	return prometheus.NewDesc("muster_nodes", "Nodes by state.", []string{"state"}, nil),
		prometheus.NewDesc("muster_links", "Nodes whose agent is connected.", nil, nil)
}

// Describe implements prometheus.Collector.
func (s states) Describe(to chan<- *prometheus.Desc) {
	a, b := s.descriptions()
	to <- a
	to <- b
}

// Collect implements prometheus.Collector.
func (s states) Collect(to chan<- prometheus.Metric) {
	byState, linked := s.descriptions()
	count, links := map[string]int{}, 0
	for _, n := range s.nodes() {
		count[n.State]++
		if n.Linked {
			links++
		}
	}
	for _, state := range nodeStates() {
		to <- prometheus.MustNewConstMetric(byState, prometheus.GaugeValue, float64(count[state]), state)
	}
	to <- prometheus.MustNewConstMetric(linked, prometheus.GaugeValue, float64(links))
}
