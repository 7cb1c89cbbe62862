package app

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"muster/controller/api"
	"muster/controller/boots"
	"muster/controller/fleet"
	"muster/controller/metrics"
	"muster/controller/selection"
	"muster/shared/object"
	"muster/shared/service"
)

// monitoringRoutes are those that tell how boots go and how all is.
func (h *Head) monitoringRoutes(nodes *selection.Selection) []api.Route {
	h.metrics = metrics.New(metrics.Options{
		Nodes: h.monitored, Counts: h.fleet.Counts, Version: h.version, Now: time.Now,
		Cluster: func() string { return h.cluster().ClusterName },
	})
	if h.cfg.OTLP != "" {
		h.tracer = boots.NewTracer(boots.Tracer{
			URL: h.cfg.OTLP, Head: h.name, Version: h.version, Name: h.nodeName, Log: h.log, Client: http.DefaultClient,
		})
	}
	stats := &boots.Boots{Nodes: h.reg, Select: nodes.SelectBy, Now: time.Now, Last: func(uid string) (boots.Boot, bool) {
		b, ok := h.fleet.LastBoot(uid)
		return boots.Boot(b), ok
	}}
	return append(stats.Routes(), h.metrics.Routes()...)
}

// booted counts a boot and sends it on. The fleet is locked: it only takes note.
func (h *Head) booted(uid string, b fleet.Boot) {
	h.metrics.Booted(boots.Boot(b).Took())
	if h.tracer != nil {
		h.tracer.Note(uid, boots.Boot(b))
	}
}

func (h *Head) cluster() *object.Cluster {
	if o, ok := h.reg.Look().Oldest(object.KindCluster); ok {
		return o.(*object.Cluster)
	}
	return &object.Cluster{}
}

func (h *Head) nodeName(uid string) string {
	if o, ok := h.reg.Look().Get(object.KindNode, uid); ok {
		return o.(*object.Node).Name
	}
	return uid
}

// monitored gives all nodes as they are now.
func (h *Head) monitored() []metrics.Node {
	all := h.reg.All(object.KindNode)
	out := make([]metrics.Node, len(all))
	for i, o := range all {
		n, s := o.(*object.Node), h.fleet.Snapshot(o.Base().UID)
		out[i] = metrics.Node{
			UID: n.UID, Name: n.Name, State: s.State, Since: s.Since, Linked: s.Linked, Reported: s.Reported, Status: s.Status, Hardware: s.Hardware,
		}
		if n.IP != nil {
			out[i].IP = *n.IP
		}
	}
	return out
}

// monitoringParts are what runs for it, where it is configured.
func (h *Head) monitoringParts() []service.Part {
	var parts []service.Part
	if h.tracer != nil {
		parts = append(parts, service.Part{Name: "traces", Doc: "Sends boots as OpenTelemetry traces to " + h.cfg.OTLP + ".", Run: h.tracer.Run})
	}
	if h.cfg.Influx != "" {
		writer := &metrics.Influx{
			Metrics: h.metrics, URL: h.cfg.Influx, Every: time.Duration(h.cfg.ReportEvery) * time.Second, Client: http.DefaultClient, Log: h.log,
			Token: func() string { return h.cluster().InfluxToken },
		}
		parts = append(parts, service.Part{Name: "influx", Doc: "Writes the nodes' numbers to InfluxDB.", Run: writer.Run})
	}
	if h.cfg.Metrics != "" {
		parts = append(parts, h.openMetrics())
	}
	return parts
}

// openMetrics is the listener that asks nobody who he is.
func (h *Head) openMetrics() service.Part {
	var l net.Listener
	return service.Part{
		Name: "metrics", Doc: "Gives the metrics to Prometheus without a token.",
		Listen: func(ctx context.Context) (err error) {
			l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", h.cfg.Metrics)
			return err
		},
		Run: func(ctx context.Context) error {
			srv := &http.Server{
				Handler: h.metrics.Open(), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader, WriteTimeout: time.Minute,
				ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
			}
			stop := context.AfterFunc(ctx, func() { srv.Close() })
			err := srv.Serve(l)
			if stop() { // not told to stop: the listener failed
				return err
			}
			return nil
		},
	}
}
