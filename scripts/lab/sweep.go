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
	left := map[string][]string{} // networks, by who owns them
	for _, path := range slices.Concat(networks, dirs) {
		name, _, _ := strings.Cut(filepath.Base(path), "_")
		if of := owner(name); !slices.Contains(left[of], name) {
			left[of] = append(left[of], name)
		}
	}
	var failed []error
	for of, names := range left {
		lock, err := holdLock(of)
		if err != nil {
			continue // its owner lives
		}
		for _, name := range names {
			log.Info("removing what an interrupted run left", "network", name)
			failed = append(failed, removeNamespace(name), removeFiles(name))
		}
		failed = append(failed, os.Remove(lock.Name()), lock.Close())
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("clearing away what an interrupted run left: %w", err)
	}
	return nil
}

// owner is the network that another one was made beside, such as that of a
// machine that is no QEMU process: muster-lab-PID-N of muster-lab-PID-N-node.
func owner(name string) string {
	parts := strings.Split(strings.TrimPrefix(name, namespacePrefix), "-")
	return namespacePrefix + strings.Join(parts[:min(2, len(parts))], "-")
}

func removeFiles(name string) error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), name+"_*"))
	for _, dir := range dirs {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}
