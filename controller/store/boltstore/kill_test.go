package boltstore_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/controller/store"
	"muster/controller/store/boltstore"
)

const victimEnv = "BOLTSTORE_TEST_VICTIM"

func TestMain(m *testing.M) {
	if path := os.Getenv(victimEnv); path != "" {
		fmt.Fprintln(os.Stderr, victim(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// victim writes from many sides until it is killed, and prints a line
// "key revision" for each write that was acknowledged.
func victim(path string) error {
	s, err := boltstore.Open(path, boltstore.Options{})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	failed := make(chan error)
	for i := range 16 {
		go func() {
			for n := 0; ; n++ {
				key := fmt.Sprintf("%d.%d.%d", os.Getpid(), i, n)
				revision, err := s.Update(context.Background(), func(tx store.Tx) error {
					return tx.Put(key, []byte(strings.Repeat(key, 1+n%40)))
				})
				if err != nil {
					failed <- err
				}
				mu.Lock()
				fmt.Println(key, revision)
				mu.Unlock()
			}
		}()
	}
	return <-failed
}

func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	acknowledged := map[string]uint64{}
	for range 6 {
		before := len(acknowledged)
		killOne(t, path, acknowledged)
		s := open(t, path, boltstore.Options{})
		if len(acknowledged) == before {
			t.Fatal("the victim acknowledged nothing")
		}
		checkAfterKill(t, s, acknowledged)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d acknowledged writes, all there", len(acknowledged))
}

// killOne lets a victim write for a random time after its first line.
func killOne(t *testing.T, path string, acknowledged map[string]uint64) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), victimEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var timer *time.Timer
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // a line cut off is no acknowledgement
		}
		key, revision, _ := strings.Cut(strings.TrimSpace(line), " ")
		if acknowledged[key], err = strconv.ParseUint(revision, 10, 64); err != nil {
			t.Errorf("the victim printed %q", line)
		}
		if timer == nil {
			timer = time.AfterFunc(rand.N(300*time.Millisecond), func() { cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the victim ended by itself: %v", err)
	}
}

// checkAfterKill wants every acknowledged write in place and the feed to be,
// put together, exactly what the store holds.
func checkAfterKill(t *testing.T, s store.Store, acknowledged map[string]uint64) {
	t.Helper()
	fed := checkFeed(t, s, s.Revision())
	stored := 0
	err := s.View(t.Context(), func(tx store.Tx) error {
		for p, err := range tx.Scan("", "") {
			if err != nil {
				return err
			}
			stored++
			if fed[p.Key] != string(p.Value) {
				t.Errorf("the store and its feed disagree about %q", p.Key)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if stored != len(fed) {
		t.Errorf("the store holds %d keys and its feed %d", stored, len(fed))
	}
	for key, revision := range acknowledged {
		if _, ok := fed[key]; !ok || revision > s.Revision() {
			t.Errorf("%q was acknowledged as revision %d and is lost", key, revision)
		}
	}
}
