package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"muster/shared/client"
	"muster/shared/fault"
	"muster/shared/hostlist"
)

// watched is a set of node states as the head has it.
type watched struct {
	Name    string
	Seq     uint64
	Members map[string][]struct{ Name string }
}

// waitUntil waits until a selector picks every one of the nodes. The head looks
// at it as nodes change, and tells.
func (m *muster) waitUntil(ctx context.Context, names []string, selector string, timeout time.Duration) error {
	const label = "here"
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var set watched
	defer func() {
		if set.Name == "" {
			return
		}
		// Also where the wait was interrupted: the head keeps only some sets.
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		m.client.Call(after, "DELETE", client.Path("waitfor", set.Name), nil, nil) // a restart of the head forgets it, too
	}()
	missing := names
	for {
		var err error
		if set.Name == "" {
			err = m.client.Call(limited, "POST", client.Path("nodes", "waitfor"), map[string]any{"states": map[string]string{label: selector}}, &set)
		} else {
			err = m.client.Call(limited, "GET", client.Path("waitfor", set.Name)+"?after="+strconv.FormatUint(set.Seq, 10), nil, &set)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case limited.Err() != nil:
			m.complain(fmt.Sprintf("not of all nodes %s after %v: %s", selector, timeout, hostlist.Fold(missing)))
			return status(1)
		case fault.Is(err, fault.NotFound) && set.Name != "": // it was restarted
			set = watched{}
			continue
		case fault.Is(err, fault.Unavailable):
			select {
			case <-limited.Done():
			case <-time.After(retryAfter):
			}
			continue
		case err != nil:
			return err
		}
		in := map[string]bool{}
		for _, n := range set.Members[label] {
			in[n.Name] = true
		}
		missing = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return in[n] })
		if len(missing) == 0 {
			return nil
		}
	}
}

// checkWait says what is wrong with what is to be waited for.
func checkWait(states []string, until string, timeout time.Duration) error {
	switch {
	case timeout <= 0:
		return errors.New("--timeout must be positive")
	case len(states) > 0 && until != "":
		return errors.New("wait for states or with --until, not for both: a selector can have states too")
	case len(states) == 0 && until == "":
		return errors.New("wait for what? Name a state, or give --until SELECTOR")
	}
	for _, st := range states {
		if !slices.Contains(nodeStates, st) {
			return fmt.Errorf("%q is none of the states %v", st, nodeStates)
		}
	}
	return nil
}
