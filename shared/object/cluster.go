package object

import (
	"bytes"
	"encoding/json"
	"strconv"

	"muster/shared/kind"
)

// Cluster holds the settings of the whole; there is exactly one.
type Cluster struct {
	kind.Meta
	DefaultGroup   string      `json:"default_group,omitempty"`
	Naming         string      `json:"naming,omitempty"`
	AcceptNewNodes bool        `json:"accept_new_nodes"`
	DefaultDistro  string      `json:"default_distro,omitempty"`
	InfluxToken    string      `json:"influx_token,omitempty"`
	ClusterName    string      `json:"cluster_name,omitempty"`
	ClusterID      string      `json:"cluster_id,omitempty"`
	AuthConfig     kind.Values `json:"auth_config,omitempty"`
	Accountant     *Accountant `json:"accountant,omitempty"`
}

// The accounting systems.
const (
	AccountNone  = "none"  // no usage is told
	AccountHead  = "head"  // the head's own records of what nodes did; the default
	AccountSlurm = "slurm" // those, and the jobs that Slurm's sacct tells of
)

// Accountants names them.
func Accountants() []string { return []string{AccountHead, AccountSlurm, AccountNone} }

// Accountant says where the cluster's usage comes from.
type Accountant struct {
	Type    string `json:"type,omitempty"`
	Sacct   string `json:"sacct,omitempty"`   // path of the program, where it is not in the usual places
	Timeout int    `json:"timeout,omitempty"` // seconds that it may take
	Cluster string `json:"cluster,omitempty"` // which of Slurm's clusters; its default one when empty
}

func cluster() *kind.Spec {
	return &kind.Spec{
		Name: KindCluster, Title: "Cluster", Singleton: true,
		Doc:   "The settings of the whole cluster.",
		New:   func() kind.Object { return &Cluster{} },
		Read:  "ClusterRead",
		Write: "ClusterWrite",
		Fields: meta(
			kind.Field{Path: "default_group", Summary: "the attribute group that every node has before all others", Source: kind.User, Format: kind.Reference, Ref: KindAttrib},
			kind.Field{Path: "naming", Summary: "the naming pool of nodes that name none", Source: kind.User, Format: kind.Reference, Ref: KindNamingpool},
			kind.Field{Path: "accept_new_nodes", Summary: "create a node for an unknown machine that wants to boot", Source: kind.User, Format: kind.Bool},
			kind.Field{Path: "default_distro", Summary: "the distribution used where none is named", Source: kind.User, Format: kind.Text},
			kind.Field{Path: "influx_token", Summary: "the token for InfluxDB and Grafana", Source: kind.User, Format: kind.Line, Secret: true},
			kind.Field{Path: "cluster_name", Summary: "the cluster's name", Source: kind.User, Format: kind.Line},
			kind.Field{Path: "cluster_id", Summary: "the cluster's identifier with the vendor, a number or text", Source: kind.User, Format: identifier},
			kind.Field{Path: "auth_config", Summary: "settings of the login", Source: kind.User, Format: kind.Settings, Secret: true},
			kind.Field{Path: "accountant", Summary: "where the cluster's usage comes from; set through /cluster/accountant", Source: kind.Head, Format: kind.Shown("object")},
		),
		Columns: []string{"cluster_name", "default_group", "naming", "accept_new_nodes"},
	}
}

// identifier is a line of text; a number is as good.
var identifier = kind.Format{Name: "identifier", Text: kind.Line.Text, Parse: func(raw json.RawMessage) (any, error) {
	if n, err := strconv.ParseUint(string(bytes.TrimSpace(raw)), 10, 64); err == nil {
		return strconv.FormatUint(n, 10), nil
	}
	return kind.Line.Parse(raw)
}}
