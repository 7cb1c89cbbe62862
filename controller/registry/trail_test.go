package registry_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"muster/controller/registry"
	"muster/controller/store/boltstore"
	"muster/shared/kind"
	"muster/shared/object"
)

func TestTrailIsBounded(t *testing.T) {
	st, err := boltstore.Open(filepath.Join(t.TempDir(), "db"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r, err := registry.Open(t.Context(), st, object.All(), registry.Options{Head: "h", Now: func() time.Time { return now }, AuditRecords: 100, AuditAge: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	record := func(n int) {
		for i := range n {
			if err := r.Record(t.Context(), kind.Author{Name: "jo"}, registry.Entry{Action: "exec", Name: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := func() []registry.Entry {
		t.Helper()
		if err := r.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		all, err := r.Audit(t.Context(), registry.Trail{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	record(150)
	if all := left(); len(all) != 100 || all[0].Name != "50" || all[99].Name != "149" {
		t.Errorf("%d records are left, from %s on", len(all), all[0].Name)
	}
	now = now.Add(25 * time.Hour)
	record(3)
	if all := left(); len(all) != 3 || all[0].Name != "0" {
		t.Errorf("a day later %d are left", len(all))
	}
	now = now.Add(-time.Hour) // a clock that is set back keeps the order
	record(1)
	if all := left(); len(all) != 4 || all[3].Time >= all[2].Time || all[3].ID <= all[2].ID {
		t.Errorf("%+v", all)
	}
}
