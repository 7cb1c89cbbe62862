package bootiso

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"muster/shared/fault"
)

// build makes one ISO.
type build struct {
	dir  string // temporary
	grub string
	plan Plan
}

// The modules that GRUB needs to find the ISO and to start a kernel.
var (
	modules     = []string{"iso9660", "search", "search_fs_file", "configfile", "normal", "linux", "echo", "sleep", "reboot", "test", "serial", "terminal", "part_msdos", "part_gpt", "fat", "boot"}
	biosModules = []string{"biosdisk"}
	uefiModules = []string{"efi_gop", "all_video"}
)

// The platforms, by the names of GRUB's directories.
const (
	bios = "i386-pc"
	uefi = "x86_64-efi"
)

// marker is the file by which GRUB finds the ISO among the disks.
const marker = "/boot/muster.iso"

// prepare makes everything but the ISO itself.
func (b *build) prepare(ctx context.Context) error {
	config, err := b.config()
	if err == nil {
		err = b.tools()
	}
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"grub.cfg":  config,
		"early.cfg": "search --no-floppy --set=root --file " + marker + "\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n",
		"marker":    "muster\n",
	} {
		if err := os.WriteFile(b.path(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	early := b.path("early.cfg")
	efi := "BOOTX64.EFI"
	for _, args := range [][]string{
		append([]string{"grub-mkimage", "-d", filepath.Join(b.grub, bios), "-O", "i386-pc-eltorito", "-p", "/boot/grub", "-c", early, "-o", b.path("bios.img")}, append(biosModules, modules...)...),
		append([]string{"grub-mkimage", "-d", filepath.Join(b.grub, uefi), "-O", uefi, "-p", "/boot/grub", "-c", early, "-o", b.path(efi)}, append(uefiModules, modules...)...),
		{"mformat", "-C", "-f", "2880", "-N", "4d555354", "-i", b.path("efi.img"), "::"},
		{"mmd", "-i", b.path("efi.img"), "::/EFI", "::/EFI/BOOT"},
		{"mcopy", "-i", b.path("efi.img"), b.path(efi), "::/EFI/BOOT/" + efi},
	} {
		if err := run(ctx, args); err != nil {
			return err
		}
	}
	return nil
}

func (b *build) path(name string) string { return filepath.Join(b.dir, name) }

// packagesOf says where Debian and Ubuntu have what is needed.
var packagesOf = map[string]string{"xorriso": "xorriso", "mformat": "mtools", "mmd": "mtools", "mcopy": "mtools", "grub-mkimage": "grub-common", bios: "grub-pc-bin", uefi: "grub-efi-amd64-bin"}

// tools says which tools are missing, all of them at once.
func (b *build) tools() error {
	missing := map[string]bool{}
	var names []string
	lack := func(what string) {
		if pkg := packagesOf[what]; !missing[pkg] {
			missing[pkg] = true
			names = append(names, pkg)
		}
	}
	for _, tool := range []string{"xorriso", "mformat", "mmd", "mcopy", "grub-mkimage"} {
		if _, err := exec.LookPath(tool); err != nil {
			lack(tool)
		}
	}
	for _, platform := range []string{bios, uefi} {
		if _, err := os.Stat(filepath.Join(b.grub, platform, "moddep.lst")); err != nil {
			lack(platform)
		}
	}
	if names != nil {
		return fault.New(fault.Unavailable, "Making an ISO needs tools that this head lacks: apt-get install %s", strings.Join(names, " "))
	}
	return nil
}

// config is GRUB's: no menu, it boots at once.
func (b *build) config() (string, error) {
	words, err := words(b.plan.Cmdline)
	if err != nil {
		return "", err
	}
	var s strings.Builder
	s.WriteString("set timeout=0\nset gfxpayload=keep\nif serial --unit=0 --speed=115200; then terminal_output console serial; fi\n")
	fmt.Fprintf(&s, "echo 'muster: loading the kernel'\nlinux /boot/kernel %s\n", strings.Join(words, " "))
	if len(b.plan.Initrds) > 0 {
		s.WriteString("initrd")
		for i := range b.plan.Initrds {
			fmt.Fprintf(&s, " /boot/initrd%d", i)
		}
		s.WriteString("\n")
	}
	s.WriteString("boot\necho 'muster: the kernel could not be started; trying again in 10 seconds'\nsleep 10\nreboot\n")
	return s.String(), nil
}

// words takes a command line apart as the kernel does and quotes the words for
// GRUB, which puts double quotes around one with blanks by itself.
func words(line string) ([]string, error) {
	for _, r := range line {
		if r < ' ' && r != '\t' || r > '~' || r == '\'' || r == '\\' {
			return nil, fault.New(fault.Conflict, "The boot configuration's cmdline has the character %q, which GRUB would change: use other ASCII characters.", r)
		}
	}
	if strings.Count(line, `"`)%2 != 0 {
		return nil, fault.New(fault.Conflict, `The boot configuration's cmdline has a " without its other one.`)
	}
	quoted := false
	fields := strings.FieldsFunc(line, func(r rune) bool {
		quoted = quoted != (r == '"')
		return !quoted && (r == ' ' || r == '\t')
	})
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = "'" + strings.ReplaceAll(f, `"`, "") + "'"
	}
	return out, nil
}

// start makes the ISO, which comes from the reader. wait must be called after
// that was read, and says whether the ISO is complete.
func (b *build) start(ctx context.Context) (iso io.Reader, wait func() error, err error) {
	args := []string{"-as", "mkisofs", "-quiet", "-graft-points", "-r", "-iso-level", "3", "-V", "MUSTER", "-o", "-",
		"-b", "boot/grub/bios.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "--grub2-boot-info",
		"--grub2-mbr", filepath.Join(b.grub, bios, "boot_hybrid.img"),
		"--efi-boot", "efi.img", "-efi-boot-part", "--efi-boot-image", "--protective-msdos-label",
		"/boot/grub/bios.img=" + b.path("bios.img"), "/boot/grub/grub.cfg=" + b.path("grub.cfg"), "/efi.img=" + b.path("efi.img"),
		marker + "=" + b.path("marker"), "/boot/kernel=" + b.plan.Kernel}
	for i, path := range b.plan.Initrds {
		args = append(args, fmt.Sprintf("/boot/initrd%d=%s", i, path))
	}
	cmd := exec.CommandContext(ctx, "xorriso", args...)
	said := &tail{}
	cmd.Stderr = said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	return out, func() error {
		out.Close() // where the client has gone, xorriso must not wait for it
		if err := cmd.Wait(); err != nil {
			return errors.Join(ctx.Err(), fmt.Errorf("xorriso: %w: %s", err, said))
		}
		return nil
	}, nil
}

func run(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	said := &tail{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Run(); err != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("%s: %w: %s", args[0], err, said))
	}
	return nil
}

// tail keeps the end of what a tool says.
type tail struct{ buf bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if over := t.buf.Len() - 4096; over > 0 {
		t.buf.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(t.buf.String()) }
