package initramfs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"muster/initramfs/modindex"
)

// selection gathers modules and what they need.
type selection struct {
	tree    *tree
	release string
	modules map[string]*module
	failed  map[string]error // wanted, and there, but not usable
	bytes   int
}

type module struct {
	data []byte
	info modinfo
}

// selectAll takes what is wanted and makes sure of what is required.
func (s *selection) selectAll(extra []string) error {
	cards := 0
	for _, g := range wanted() {
		for _, name := range g.names {
			err := s.take(name, nil)
			if s.bytes > maxTotal {
				return fmt.Errorf("initramfs: the modules in %s have more than %d MiB; strip their debugging symbols", s.tree.dir, maxTotal>>20)
			}
			if err != nil && !errors.Is(err, errMissing) {
				s.failed[name] = err
			}
			if g.reason == network && (err == nil || s.tree.builtIn[name]) {
				cards++
			}
		}
	}
	if cards == 0 {
		return fmt.Errorf("initramfs: no driver for any network card in %s (virtio_net, e1000e, igb, ixgbe, mlx5_core, …): a node could not be reached", s.tree.dir)
	}
	for _, name := range required() {
		if err := s.demand(name); err != nil {
			return err
		}
	}
	for _, name := range extra {
		if err := s.demand(modindex.CanonicalName(name)); err != nil {
			return err
		}
	}
	return nil
}

var errMissing = errors.New("missing")

// demand takes a module that must be there, or in the kernel.
func (s *selection) demand(name string) error {
	if s.tree.builtIn[name] {
		return nil
	}
	err := s.take(name, nil)
	if errors.Is(err, errMissing) {
		return fmt.Errorf("initramfs: module %s is not in %s, and modules.builtin there does not list it", name, s.tree.dir)
	}
	if err != nil {
		return fmt.Errorf("initramfs: module %s in %s: %w", name, s.tree.dir, err)
	}
	return nil
}

// take adds a module after all that it needs. above are those that led to it,
// to notice a circle.
func (s *selection) take(name string, above []string) error {
	if s.modules[name] != nil {
		return nil
	}
	if _, ok := s.tree.files[name]; !ok {
		if len(above) > 0 {
			return fmt.Errorf("it needs %s, which is missing", name)
		}
		return errMissing
	}
	if slices.Contains(above, name) {
		return fmt.Errorf("it needs itself: %s, %s", strings.Join(above, ", "), name)
	}
	m, err := s.load(name)
	if err != nil {
		return err
	}
	above = append(above, name)
	for _, dep := range m.info.depends {
		dep = modindex.CanonicalName(dep)
		if s.tree.builtIn[dep] {
			continue
		}
		if err := s.take(dep, above); err != nil {
			return err
		}
	}
	s.modules[name] = m
	s.bytes += len(m.data)
	for _, dep := range m.info.softdeps {
		// By name only: those given by alias work when a wanted module has it.
		_ = s.take(modindex.CanonicalName(dep), nil)
	}
	return nil
}

// load reads a module and checks that it is one, and for the same kernel as
// the others.
func (s *selection) load(name string) (*module, error) {
	data, err := s.tree.read(name)
	if err != nil {
		return nil, err
	}
	info, err := parseModinfo(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.tree.files[name], err)
	}
	if s.release == "" {
		s.release = info.release
	}
	if info.release != s.release {
		return nil, fmt.Errorf("%s is for kernel %s, the others are for %s", s.tree.files[name], info.release, s.release)
	}
	return &module{data, info}, nil
}

// needs gives all that must be loaded before a module, in loading order.
func (s *selection) needs(name string) []modindex.Need {
	w := walk{s: s, seen: map[string]int{name: -1}}
	w.visit(name, false)
	return w.needs
}

type walk struct {
	s     *selection
	seen  map[string]int // place in needs; -1 for the module itself
	needs []modindex.Need
}

func (w *walk) visit(name string, optional bool) {
	info := w.s.modules[name].info
	for _, dep := range info.softdeps {
		for _, provider := range w.s.providers(modindex.CanonicalName(dep)) {
			w.need(provider, true)
		}
	}
	for _, dep := range info.depends {
		if dep = modindex.CanonicalName(dep); w.s.modules[dep] != nil {
			w.need(dep, optional)
		}
	}
}

func (w *walk) need(name string, optional bool) {
	if i, ok := w.seen[name]; ok {
		if i >= 0 && !optional && w.needs[i].Optional {
			w.needs[i].Optional = false
			w.harden(name)
		}
		return
	}
	w.seen[name] = -1
	w.visit(name, optional)
	w.seen[name] = len(w.needs)
	w.needs = append(w.needs, modindex.Need{Name: name, Optional: optional})
}

// harden makes what an optional module needs as necessary as it became itself.
func (w *walk) harden(name string) {
	for _, dep := range w.s.modules[name].info.depends {
		if i, ok := w.seen[modindex.CanonicalName(dep)]; ok && i >= 0 {
			w.need(modindex.CanonicalName(dep), false)
		}
	}
}

// providers gives the packed modules of a name, or else of an alias.
func (s *selection) providers(name string) []string {
	if s.modules[name] != nil {
		return []string{name}
	}
	var names []string
	for module, m := range s.modules {
		if slices.ContainsFunc(m.info.aliases, func(a string) bool { return modindex.CanonicalName(a) == name }) {
			names = append(names, module)
		}
	}
	slices.Sort(names)
	return names
}
