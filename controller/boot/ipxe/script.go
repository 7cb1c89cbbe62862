package ipxe

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"

	"muster/controller/boot"
	"muster/shared/wire"
)

// iPXE has no quoting: a script is lines of words; ${…} is expanded, and the
// words || && ; and those that begin with # end a command. So what comes from
// outside is either refused (a kernel command line must reach the kernel as it
// is) or rewritten (text for people).

// maxCmdline is the kernel's limit on x86 and arm64, in bytes with the final
// NUL (COMMAND_LINE_SIZE).
const maxCmdline = 2048

// checkCmdline says why a boot config's command line cannot be passed on.
func checkCmdline(s string) error {
	for _, r := range s {
		if r < ' ' && r != '\t' || r > '~' {
			return fmt.Errorf("the boot config's cmdline has the character %q: use printable ASCII", r)
		}
	}
	switch {
	case strings.Contains(s, "${"):
		return fmt.Errorf("the boot config's cmdline has ${, which iPXE would replace: write the value itself")
	case strings.HasSuffix(s, `\`):
		return fmt.Errorf(`the boot config's cmdline ends with \, which iPXE takes for a continued line`)
	}
	for _, w := range strings.Fields(s) {
		if w == "||" || w == "&&" || w == ";" || w[0] == '#' {
			return fmt.Errorf("the boot config's cmdline has the word %q, which ends a command in iPXE", w)
		}
	}
	return nil
}

// say makes text for echo harmless, and short enough for a console.
func say(text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f })
	for i, w := range words {
		w = strings.Map(func(r rune) rune {
			switch {
			case r > '~':
				return '?'
			case r == '{':
				return '('
			case r == '}':
				return ')'
			case r == '\\':
				return '/'
			}
			return r
		}, w)
		switch {
		case w == "||" || w == "&&" || w == ";":
			w = "-"
		case w[0] == '#':
			w = "'" + w
		case w[0] == '-': // echo would take it for an option
			w = "'" + w
		}
		words[i] = w
	}
	out := strings.Join(words, " ")
	if len(out) > 400 {
		out = out[:400] + "..."
	}
	return out
}

// load is the first script: it fetches kernel and initrds by content, then the
// second script. Whatever fails, it starts over by asking for the first one
// again, so that it gets today's answer; the head is told what failed.
func load(head boot.Head, m boot.Machine) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#!ipxe\necho muster: %s\nimgfree\n", say(m.Name))
	get := func(command, name string, f boot.File) {
		fmt.Fprintf(&b, "set at %s\n%s --name %s --timeout 60000 %s || goto retry\n", name, command, name, fileURL(head, f))
	}
	get("kernel", kernelName, m.Config.Kernel)
	for i, f := range m.Config.Initrds {
		get("initrd", initrdName(i), f)
	}
	fmt.Fprintf(&b, "set at go\nchain --replace --autofree %s || goto retry\n", head.HTTP()+wire.PathGo)
	retry(&b, head, "")
	return b.String()
}

// The names of the images inside iPXE. Under UEFI the kernel loads its initrds
// by them.
const kernelName = "vmlinuz"

func initrdName(i int) string { return fmt.Sprintf("initrd%d", i) }

// start is the second script: the command line with the one-time key, and go.
// Newer iPXE hands all initrds to the kernel itself and the initrd= arguments
// are not looked at; the iPXE of Debian 12 needs them under UEFI. Under BIOS
// they mean nothing to the kernel.
func start(head boot.Head, m boot.Machine, key string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#!ipxe\nset at boot\nimgargs %s %s\nboot %s || goto retry\n", kernelName, arguments(head, m, key), kernelName)
	// The key is used up: only another DHCP exchange gets another one.
	retry(&b, head, "ifconf --configurator dhcp netX ||\n")
	return b.String()
}

func arguments(head boot.Head, m boot.Machine, key string) string {
	var words []string
	for i := range m.Config.Initrds {
		words = append(words, "initrd="+initrdName(i))
	}
	if m.Config.Foreign { // as PXELINUX tells installers which interface it was
		words = append(words, "BOOTIF=01-${netX/mac:hexhyp}")
		return strings.Join(append(words, strings.Fields(m.Config.Cmdline)...), " ")
	}
	words = append(words,
		wire.CmdlineHead+"="+head.HTTP(),
		wire.CmdlineHTTPS+"="+head.HTTPS(),
		wire.CmdlineCA+"="+head.CA,
		wire.CmdlineKey+"="+key,
		wire.CmdlineMAC+"=${netX/mac}", // netX: the interface that iPXE booted from
	)
	return strings.Join(append(words, strings.Fields(m.Config.Cmdline)...), " ")
}

// retry ends a script: pause, and begin again from the first one. --replace
// makes it a jump, not a call: a machine may go round for days.
func retry(b *strings.Builder, head boot.Head, before string) {
	fmt.Fprintf(b, ":retry\nset e ${errno}\necho muster: ${at} failed, trying again in 10 seconds\nsleep 10 ||\n%s", before)
	fmt.Fprintf(b, "chain --replace --autofree %s?at=${at}&error=${e} || goto retry\n", head.HTTP()+wire.PathScript)
}

// wait is for a machine that there is nothing to boot for now.
func wait(head boot.Head, m boot.Machine, reason string, before string) string {
	return fmt.Sprintf("#!ipxe\n:retry\necho muster: %s cannot boot: %s\necho muster: asking again in 10 seconds\nsleep 10 ||\n%s"+
		"chain --replace --autofree %s || goto retry\n", say(m.Name), say(reason), before, head.HTTP()+wire.PathScript)
}

// next leaves the machine to its next boot device.
func next(m boot.Machine) string {
	return fmt.Sprintf("#!ipxe\necho muster: %s boots from its next device\nexit\n", say(m.Name))
}

// san boots a disk. When that fails it starts over, after it has told why.
func san(head boot.Head, m boot.Machine) string {
	var b strings.Builder
	disk := strings.Join(m.Config.San.Words, " ")
	fmt.Fprintf(&b, "#!ipxe\necho muster: %s boots the disk %s\nimgfree\n", say(m.Name), say(m.Config.San.Words[len(m.Config.San.Words)-1]))
	if m.Config.San.First { // iPXE cannot start disks of UEFI's, but UEFI does so next
		b.WriteString("iseq ${platform} efi && exit ||\n")
	}
	fmt.Fprintf(&b, "set at disk\nsanboot %s || goto retry\n", disk)
	retry(&b, head, "")
	return b.String()
}

// unknown is for an address that no node has. It ends, so that the firmware
// goes on to its next boot device.
func unknown(addr string) string {
	return fmt.Sprintf("#!ipxe\necho muster: No node has the address %s.\n"+
		"echo muster: Create it with: muster node create --mac ${netX/mac}\nsleep 10 ||\nexit 1\n", addr)
}

func fileURL(head boot.Head, f boot.File) string {
	if f.Path != "" {
		return head.HTTP() + f.Path
	}
	return head.HTTP() + wire.PathFile + f.SHA256 + "/" + url.PathEscape(cmp.Or(f.Name, "file"))
}
