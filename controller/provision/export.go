package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"muster/shared/fault"
	"muster/shared/template"
)

// Files gives a kickstart and all that it includes, by name: what another head
// needs to serve it.
func (p *Provision) Files(name string) (map[string]string, error) {
	out := map[string]string{}
	return out, p.collect(name, out)
}

func (p *Provision) collect(name string, out map[string]string) error {
	if _, ok := out[name]; ok {
		return nil
	}
	if len(out) >= template.MaxIncludes {
		return fault.New(fault.Conflict, "The kickstart includes more than %d files.", template.MaxIncludes)
	}
	text, err := p.files.read(name)
	if err != nil {
		return err
	}
	out[name] = text
	parts, err := template.Parse(text)
	if err != nil {
		return fault.New(fault.Conflict, "%s, %v.", name, err)
	}
	for _, part := range parts {
		if part.Ref != nil && part.Ref.Func == "include" {
			if err := p.collect(part.Ref.Key, out); err != nil {
				return err
			}
		}
	}
	return nil
}

// Add writes kickstarts that are not there yet. One that is there and differs
// is an error, and then nothing is written. undo removes what was.
func (p *Provision) Add(all map[string]string) (undo func(), err error) {
	if len(all) > template.MaxIncludes {
		return nil, fault.Invalidf("%d kickstarts are too many, at most %d are taken.", len(all), template.MaxIncludes)
	}
	for name, text := range all {
		if err := p.compare(name, text); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(p.files.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var written []string
	undo = func() { p.remove(written) }
	for name, text := range all {
		if _, err := root.Stat(name); err == nil {
			continue
		}
		err := root.MkdirAll(path.Dir(name), 0o755)
		if err == nil {
			err = write(root, name, text)
		}
		if err != nil {
			undo()
			return nil, fmt.Errorf("storing the kickstart %s: %w", name, err)
		}
		written = append(written, name)
	}
	return undo, nil
}

func (p *Provision) remove(names []string) {
	for _, name := range names {
		root, err := os.OpenRoot(p.files.dir)
		if err == nil {
			err = errors.Join(root.Remove(name), root.Close())
		}
		if err != nil {
			p.opt.Log.Warn("a failed import left a kickstart", "name", name, "error", err)
		}
	}
}

// compare says why a kickstart cannot be added.
func (p *Provision) compare(name, text string) error {
	if len(text) > template.MaxText || strings.ContainsRune(text, 0) {
		return fault.Invalidf("The kickstart %.100q has more than %d bytes, or is no text.", name, template.MaxText)
	}
	have, err := p.files.read(name)
	switch {
	case fault.Is(err, fault.NotFound):
		return nil
	case err != nil:
		return err
	case have != text:
		return fault.New(fault.Conflict, "A kickstart %s with another text is in this head's kickstart directory: rename it, or make them equal.", name)
	}
	return nil
}

// write makes a new file, whole or not at all.
func write(root *os.Root, name, text string) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(0o644))
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, root.Remove(name))
	}
	return nil
}
