package app

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"muster/shared/rlimit"
)

// openFiles is how many a head asks the system for: each node's link takes one.
const openFiles = 1 << 17

// Serve is the command `muster serve`. The head runs until its context ends,
// which main does on SIGTERM and SIGINT.
func Serve(version string, getenv func(string) string, stderr io.Writer) *cobra.Command {
	cfg, file := Defaults(), ""
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the head: the API, the boot services, everything",
		Long: "Run the head until it gets SIGTERM or SIGINT; SIGHUP reloads.\n\n" +
			"Every flag is also a key of the configuration file and an environment variable:\n" +
			"--boot-interface is boot-interface in the file and MUSTER_BOOT_INTERFACE.",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cfg.Flags(cmd.Flags())
	cmd.Flags().StringVar(&file, "config", getenv("MUSTER_CONFIG"), "configuration file, TOML")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := cfg.Fill(cmd.Flags(), getenv, file); err != nil {
			return err
		}
		level := &slog.LevelVar{}
		first, err := cfg.level()
		if err != nil {
			return err
		}
		level.Set(first)
		log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
		if have, err := rlimit.Files(openFiles); err != nil || have < openFiles {
			log.Debug("fewer open files than asked for: each node takes one", "may have", have, "wanted", openFiles, "error", err)
		}
		head, err := New(cmd.Context(), cfg, log, level, version)
		if err != nil {
			return err
		}
		reread := func() error {
			again := Defaults()
			if err := again.Fill(cmd.Flags(), getenv, file); err != nil {
				return err
			}
			if cmd.Flags().Changed("log-level") {
				again.LogLevel = cfg.LogLevel // a flag wins, also later
			}
			return head.Reload(again)
		}
		head.RereadBy(reread)
		stop := onHangup(reread, log)
		defer stop()
		if getenv("GOGC") == "" {
			go boundGarbage(cmd.Context())
		}
		return head.Run(cmd.Context(), nil)
	}
	return cmd
}

// onHangup calls reload at each SIGHUP until stop is called.
func onHangup(reload func() error, log *slog.Logger) (stop func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		for range hup {
			if err := reload(); err != nil {
				log.Error("not reloaded", "error", err)
			}
		}
	}()
	return func() {
		signal.Stop(hup)
		close(hup)
	}
}

func (c *Config) level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return l, fmt.Errorf("--log-level %q is none of debug, info, warn, error", c.LogLevel)
	}
	return l, nil
}
