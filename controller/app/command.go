package app

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Serve is the command `muster serve`.
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
		head, err := New(cmd.Context(), cfg, log, level, version)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
		defer stop()
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
		go func() {
			for range hup {
				again := Defaults()
				flags := cmd.Flags()
				if err := again.Fill(flags, getenv, file); err != nil {
					log.Error("not reloaded", "error", err)
					continue
				}
				if flags.Changed("log-level") {
					again.LogLevel = cfg.LogLevel
				}
				if err := head.Reload(again); err != nil {
					log.Error("not reloaded", "error", err)
				}
			}
		}()
		return head.Run(ctx, nil)
	}
	return cmd
}

func (c *Config) level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return l, fmt.Errorf("--log-level %q is none of debug, info, warn, error", c.LogLevel)
	}
	return l, nil
}
