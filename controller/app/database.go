package app

import (
	"context"
	"time"

	"muster/controller/database"
	"muster/controller/usage"
)

func (h *Head) newDatabase() *database.Database {
	return &database.Database{
		Objects: h.reg, Telemetry: h.fleet, Log: h.log,
		Files: func(ctx context.Context, remove bool) ([]database.File, error) {
			got, err := h.library.Unused(ctx, remove)
			out := make([]database.File, 0, len(got))
			for _, f := range got {
				out = append(out, database.File(f))
			}
			return out, err
		},
	}
}

func (h *Head) newUsage() *usage.Usage {
	return &usage.Usage{Objects: h.reg, Now: time.Now, Days: func(from, to time.Time) []usage.Day {
		got := h.fleet.Usage(from, to)
		out := make([]usage.Day, 0, len(got))
		for _, d := range got {
			out = append(out, usage.Day(d))
		}
		return out
	}}
}
