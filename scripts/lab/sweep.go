package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// workDir makes a directory for the files of what runs in the network. Close
// leaves it to the caller; Sweep removes it.
func (n *Network) workDir() (string, error) { return os.MkdirTemp("", n.Name+"_") }

// Sweep removes what labs left whose process was killed before it could: their
// networks with all that runs in them, and their files. It reports what it
// removes.
func Sweep(log *slog.Logger) error {
	networks, err := filepath.Glob(filepath.Join(netnsDir, namespacePrefix+"*"))
	if err != nil {
		return err
	}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), namespacePrefix+"*_*"))
	if err != nil {
		return err
	}
	var names []string
	for _, path := range slices.Concat(networks, dirs) {
		name, _, _ := strings.Cut(filepath.Base(path), "_")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var failed []error
	for _, name := range names {
		if lock, err := holdLock(name); err == nil { // else its owner lives
			log.Info("removing what an interrupted run left", "network", name)
			failed = append(failed, removeNamespace(name), removeFiles(name), os.Remove(lock.Name()), lock.Close())
		}
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("clearing away what an interrupted run left: %w", err)
	}
	return nil
}

func removeFiles(name string) error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), name+"_*"))
	for _, dir := range dirs {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}
