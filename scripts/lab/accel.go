package lab

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// kvmTrial is how long a kernel may take under KVM to come to its end; it takes about two seconds.
const kvmTrial = 20 * time.Second

// Accelerator says whether machines can run on KVM ("kvm") or must be
// emulated ("tcg"). Having /dev/kvm is not enough: nested in another
// hypervisor it may abort at the first unusual instruction, in the firmware or
// in the kernel. So a real kernel is started once on UEFI firmware, and the
// answer kept until the host boots again.
func Accelerator(ctx context.Context, assets *Assets, log *slog.Logger) (string, error) {
	if kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return "tcg", nil
	} else {
		kvm.Close()
	}
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	c := cache{dir: assets.Cache, log: log}
	dir, err := c.entry(ctx, "accelerator", string(bootID), func(ctx context.Context, dir string) error {
		accel := "tcg"
		if err := tryKVM(ctx, dir, assets.Kernel); err == nil {
			accel = "kvm"
		} else if ctx.Err() != nil {
			return context.Cause(ctx)
		} else {
			log.Info("KVM cannot run a kernel here, emulating", "error", err)
		}
		return os.WriteFile(filepath.Join(dir, "accel"), []byte(accel), 0o644)
	})
	if err != nil {
		return "", err
	}
	accel, err := os.ReadFile(filepath.Join(dir, "accel"))
	return string(accel), err
}

func tryKVM(ctx context.Context, dir, kernel string) error {
	ctx, cancel := context.WithTimeout(ctx, kvmTrial)
	defer cancel()
	// Without a root file system the kernel panics at the end of its start, and with it the machine ends.
	spec := Spec{Name: "trial", Firmware: UEFI, Memory: 512, CPUs: 1, Kernel: kernel, Cmdline: "console=ttyS0 panic=-1"}
	f, err := layFiles(dir, spec)
	if err != nil {
		return err
	}
	f.accel = "kvm"
	args, err := qemu(spec, f)
	if err != nil {
		return err
	}
	out, err := output(ctx, exec.Command(args[0], append(args[1:], "-no-reboot")...))
	if !strings.Contains(out, "Unable to mount root fs") {
		lines := strings.Split(strings.TrimSpace(plain(out)), "\n")
		return fmt.Errorf("the kernel did not start (%v); its last line: %s", err, lines[len(lines)-1])
	}
	return nil
}
