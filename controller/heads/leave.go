package heads

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"

	"muster/controller/api"
	"muster/shared/fault"
	"muster/shared/object"
)

// leave takes this head's record away and ends the program: what is no part of
// the cluster must not go on answering its nodes. Another head must be there to
// take over.
func (h *Heads) leave(w http.ResponseWriter, r *http.Request) error {
	others := len(h.opt.Objects.All(object.KindHead)) - 1
	if others < 1 {
		return fault.New(fault.Conflict, "This is the only head: without it there is no cluster.")
	}
	down, err := h.down(r.Context())
	if err != nil {
		return err
	}
	if len(down) >= others {
		return fault.New(fault.Conflict, "None of the other heads answers (%s): without this one the cluster would have none.", down[0].Reason)
	}
	if err := h.markLeft(); err != nil {
		return err
	}
	if err := h.opt.Objects.Delete(r.Context(), itself, object.KindHead, h.opt.Self.UID); err != nil {
		return errors.Join(err, os.Remove(h.opt.Left))
	}
	h.opt.Log.Warn("this head leaves the others, as it was told", "from", api.CallerOf(r.Context()).Addr)
	context.AfterFunc(r.Context(), h.opt.End) // once this is answered
	return api.Data(w, map[string]any{"left": h.opt.Self.UID, "remaining": others})
}

// markLeft notes on disk that this head has left.
func (h *Heads) markLeft() error {
	f, err := os.OpenFile(h.opt.Left, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_SYNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(h.opt.Self.UID + "\n")
	return errors.Join(err, f.Close())
}

// mayReturn refuses to start a head that has left, until an admin of the
// others, or of this machine, wants it back.
func (h *Heads) mayReturn() error {
	if _, err := os.Stat(h.opt.Left); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, known := h.opt.Objects.Look().Get(object.KindHead, h.opt.Self.UID); known {
		return os.Remove(h.opt.Left)
	}
	return fmt.Errorf("this head has left its cluster: remove %s to start it again as a member", h.opt.Left)
}
