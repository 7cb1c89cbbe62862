package object

import (
	"testing"

	"muster/shared/kind"
)

// All panics on a wrong declaration; this test is where that is found.
func TestDeclarations(t *testing.T) {
	for _, s := range All() {
		obj := s.New()
		if obj.Base() == nil {
			t.Errorf("%s: no Meta", s.Name)
		}
		for _, f := range s.Fields {
			if f.Sub != kind.NoSub && f.Source != kind.User {
				t.Errorf("%s.%s: users reach a field that they cannot write", s.Name, f.Path)
			}
		}
		for _, n := range s.Names {
			if f, _ := s.Field(n); !f.Unique {
				t.Errorf("%s: %s identifies objects but is not unique", s.Name, n)
			}
		}
	}
}
