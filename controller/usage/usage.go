// Package usage tells how much a cluster was used: node-hours by state from the
// head's own records and, where an admin has set that up, the jobs of Slurm.
//
// What the accounting is set to is kept in the cluster's record. The package
// keeps nothing itself and must not run anything but sacct.
package usage

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/kind"
	"muster/shared/object"
)

// Objects is what the package needs of the registry.
type Objects interface {
	Look() kind.Look
	Modify(ctx context.Context, by kind.Author, kindName, id string, fn func(tx kind.Tx, obj kind.Object) error) error
}

// Day is one day of the head's own records.
type Day struct {
	Date    string             `json:"date"`    // 2006-01-02, UTC
	Hours   map[string]float64 `json:"hours"`   // node-hours by state
	Watched float64            `json:"watched"` // hours of the day that a head saw
}

// Usage answers.
type Usage struct {
	Objects Objects
	// Days gives the head's records, both days included.
	Days func(from, to time.Time) []Day
	Now  func() time.Time
}

// Routes are the endpoints.
func (u *Usage) Routes() []api.Route {
	return []api.Route{
		{Method: "GET", Path: api.Root + "/cluster/usage", Permission: "ClusterRead", Doc: "Node-hours by state, and jobs where Slurm is set up; ?from=YYYY-MM-DD&to=YYYY-MM-DD, the last 30 days unless given.", Handler: u.get, Answer: answer{},
			Query: []api.Param{{Name: "from", Doc: "the first day, YYYY-MM-DD in UTC; 29 days before the last when not given"}, {Name: "to", Doc: "the last day; today when not given"}}},
		{Method: "GET", Path: api.Root + "/cluster/accountant", Permission: "ClusterRead", Doc: "Where the cluster's usage comes from.", Handler: u.getAccountant, Answer: object.Accountant{}},
		{Method: "PUT", Path: api.Root + "/cluster/accountant", Permission: "ClusterWrite", Doc: "Say where the cluster's usage comes from: {\"type\": head, slurm or none}; slurm takes sacct, timeout and cluster.", Handler: u.putAccountant, Body: object.Accountant{}, Answer: api.Nothing{}},
	}
}

// Bounds on the period, and on how long sacct may take.
const (
	usualDays   = 30
	maxDays     = 1100
	usualTime   = 30 // seconds
	maxTime     = 300
	dayForm     = "2006-01-02"
	sacctBinary = "sacct"
)

// answer is what a period's usage is.
type answer struct {
	From       string             `json:"from"`
	To         string             `json:"to"` // both days included, UTC
	Accountant string             `json:"accountant"`
	NodeHours  map[string]float64 `json:"node_hours"` // by state, and their total
	Watched    float64            `json:"watched"`    // hours that a head saw
	Days       []Day              `json:"days"`
	Jobs       *Jobs              `json:"jobs,omitempty"`
}

func (u *Usage) get(w http.ResponseWriter, r *http.Request) error {
	a := u.accountant()
	if a.Type == object.AccountNone {
		return fault.New(fault.Conflict, "No accounting is configured, so nothing is known of the usage: PUT {\"type\":\"head\"} to /api/v1/cluster/accountant.")
	}
	from, to, err := u.period(r.URL.Query())
	if err != nil {
		return err
	}
	out := answer{From: from.Format(dayForm), To: to.Format(dayForm), Accountant: a.Type, NodeHours: map[string]float64{"total": 0}, Days: u.Days(from, to)}
	for _, d := range out.Days {
		out.Watched += d.Watched
		for state, hours := range d.Hours {
			out.NodeHours[state] += hours
			out.NodeHours["total"] += hours
		}
	}
	if a.Type == object.AccountSlurm {
		if out.Jobs, err = jobs(r.Context(), a, from, to); err != nil {
			return err
		}
	}
	return api.Data(w, out)
}

// period reads the days that a request names.
func (u *Usage) period(q url.Values) (from, to time.Time, err error) {
	day := func(key string, usual time.Time) time.Time {
		text := q.Get(key)
		if text == "" || err != nil {
			return usual
		}
		at, wrong := time.Parse(dayForm, text)
		if wrong != nil {
			err = fault.Invalidf("%s: %.80q is not one day such as 2030-12-31.", key, text)
		}
		return at
	}
	to = day("to", u.Now().UTC().Truncate(24*time.Hour))
	if from = day("from", to.AddDate(0, 0, 1-usualDays)); err != nil {
		return from, to, err
	}
	if to.Before(from) || to.Sub(from) > maxDays*24*time.Hour {
		return from, to, fault.Invalidf("from %s to %s is not a period of 1 to %d days.", from.Format(dayForm), to.Format(dayForm), maxDays)
	}
	return from, to, nil
}

func (u *Usage) accountant() object.Accountant {
	if o, ok := u.Objects.Look().Oldest(object.KindCluster); ok {
		if a := o.(*object.Cluster).Accountant; a != nil {
			return *a
		}
	}
	return object.Accountant{Type: object.AccountHead}
}

func (u *Usage) getAccountant(w http.ResponseWriter, r *http.Request) error {
	return api.Data(w, u.accountant())
}

func (u *Usage) putAccountant(w http.ResponseWriter, r *http.Request) error {
	var a object.Accountant
	if err := api.Decode(w, r, &a); err != nil {
		return err
	}
	if a.Type == "" {
		a.Type = object.AccountHead
	}
	if err := check(a); err != nil {
		return err
	}
	err := u.Objects.Modify(r.Context(), api.By(r), object.KindCluster, "", func(_ kind.Tx, o kind.Object) error {
		o.(*object.Cluster).Accountant = &a
		return nil
	})
	if err != nil {
		return err
	}
	return api.OK(w)
}

// clusterName is what Slurm takes as the name of a cluster, and no more: it
// becomes an argument.
var clusterName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}$`)

func check(a object.Accountant) error {
	if !slices.Contains(object.Accountants(), a.Type) {
		return fault.Invalidf("type: %.80q is none of %s.", a.Type, strings.Join(object.Accountants(), ", "))
	}
	if a.Type != object.AccountSlurm {
		if a.Sacct != "" || a.Timeout != 0 || a.Cluster != "" {
			return fault.Invalidf("sacct, timeout and cluster belong to the type %s only.", object.AccountSlurm)
		}
		return nil
	}
	if a.Timeout < 0 || a.Timeout > maxTime {
		return fault.Invalidf("timeout: %d is not between 1 and %d seconds.", a.Timeout, maxTime)
	}
	if a.Cluster != "" && !clusterName.MatchString(a.Cluster) {
		return fault.Invalidf("cluster: %.80q is not the name of a Slurm cluster.", a.Cluster)
	}
	_, err := program(a.Sacct)
	return err
}

// program gives the path of sacct: where an admin says, or where distributions
// put it. The head runs as root: only a program of that name which nobody but
// root, or the head's own user, can change is run.
func program(configured string) (string, error) {
	places := []string{"/usr/bin/sacct", "/usr/local/bin/sacct", "/opt/slurm/bin/sacct"}
	if configured != "" {
		if !filepath.IsAbs(configured) || filepath.Clean(configured) != configured || filepath.Base(configured) != sacctBinary {
			return "", fault.Invalidf("sacct: %.200q is not the full path of a program named %s.", configured, sacctBinary)
		}
		places = []string{configured}
	}
	for _, path := range places {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 || info.Mode()&0o022 != 0 || st.Uid != 0 && int(st.Uid) != os.Getuid() {
			return "", fault.New(fault.Conflict, "sacct: %s must be a program that belongs to root and that nobody else can write.", path)
		}
		return path, nil
	}
	return "", fault.New(fault.Conflict, "sacct: there is no %s: install Slurm's client on this head, or say where it is.", strings.Join(places, " nor "))
}
