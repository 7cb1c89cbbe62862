package app

import (
	"os"
	"path/filepath"
	"time"

	"muster/controller/auth"
	"muster/controller/cluster"
)

func (h *Head) clusterInfo() *cluster.Info {
	return &cluster.Info{
		Objects: h.reg, Head: h.name, UID: h.self.UID, Version: h.version, Bundle: h.ca.Bundle, Now: time.Now,
		Auth: map[string]any{
			"methods":    []string{"password", "socket", "ssh-key"},
			"expires_in": int(auth.DefaultAccess.Seconds()), "refresh_expires_in": int(auth.DefaultRefresh.Seconds()),
		},
		Monitoring: map[string]any{"report_every": h.cfg.ReportEvery},
		DatabaseSize: func() int64 {
			info, err := os.Stat(filepath.Join(h.cfg.Data, databaseFile))
			if err != nil {
				return 0
			}
			return info.Size()
		},
	}
}
