package auth

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"

	"muster/controller/auth/keyfile"
	"muster/shared/fault"
)

// clusterPassFile, in the data directory, holds the password by which a
// machine that is to become a head shows that it belongs to the cluster. It is
// made at the first start; whoever wants another one writes it there.
const clusterPassFile = "cluster-password"

// clusterUser is for whom failures of that password are counted: no user has
// such a name, see checkUser.
const clusterUser = "\x00cluster"

// ensureClusterPassword makes the password on the first start: 26 characters,
// 130 bits, easy to type.
func ensureClusterPassword(dir string) error {
	_, err := keyfile.LoadOrCreate(filepath.Join(dir, clusterPassFile), func() ([]byte, error) {
		return []byte(rand.Text() + "\n"), nil
	})
	if err != nil {
		return fmt.Errorf("the password of the cluster: %w", err)
	}
	return nil
}

// VerifyClusterPassword is nil for the cluster's password, Unauthenticated for
// another one, TooMany (with a Retry-After header set) for whoever guesses:
// failures count as those of logins do, and against the same bounds.
func (s *Service) VerifyClusterPassword(w http.ResponseWriter, r *http.Request, given string) error {
	attempt, wait := s.limits.begin(s.clientAddr(r), clusterUser)
	if attempt == nil {
		return slowDown(w, wait)
	}
	err := s.clusterPassword(given)
	attempt.done(err)
	if err != nil {
		s.cfg.Log.Info("cluster password refused", "from", s.clientAddr(r), "reason", err)
	}
	return err
}

func (s *Service) clusterPassword(given string) error {
	path := filepath.Join(s.cfg.DataDir, clusterPassFile)
	want, err := keyfile.Read(path) // each time: an admin may have written another one
	if err != nil {
		return fmt.Errorf("the password of the cluster: %w", err)
	}
	if want = bytes.TrimSpace(want); len(want) == 0 {
		return &fault.Error{Code: fault.Unavailable, Reason: "This head has no password for the cluster: write one to " + clusterPassFile + " in its data directory.",
			Err: errors.New(path + " is empty")}
	}
	a, b := sha256.Sum256(want), sha256.Sum256([]byte(given))
	if subtle.ConstantTimeCompare(a[:], b[:]) == 0 {
		return fault.New(fault.Unauthenticated, "That is not the password of this cluster; root finds it on the head, in %s of the data directory.", clusterPassFile)
	}
	return nil
}
