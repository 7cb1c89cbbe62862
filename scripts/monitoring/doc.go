// Package monitoring is what a site puts beside its head: how Prometheus reads
// it, alert rules, and a dashboard for Grafana. It has no code, only a test
// that holds the files to the metrics that there are.
package monitoring
