package console

import "strings"

// deaths are what machines say when they will do nothing more by themselves:
// kernels, firmware, boot loaders.
var deaths = [...]string{
	"Kernel panic - not syncing",
	"Fatal Machine check",
	"Fatal hardware error!",
	"Unable to mount root fs",
	"Attempted to kill init!",
	"You are in emergency mode",
	"X64 Exception Type", // EDK II
	"ASSERT_EFI_ERROR",
	"Synchronous Exception at 0x", // EDK II on arm64
	"No bootable device",
	"No bootable option or device",
	"Boot device not found",
	"Operating System not found",
	"Missing operating system",
	"Reboot and Select proper Boot device",
	"grub rescue>",
	"Memory initialization error",
	"No memory detected",
}

// died says whether a line tells that the machine is dead.
func died(line string) bool {
	for _, d := range deaths {
		if strings.Contains(line, d) {
			return true
		}
	}
	return false
}
