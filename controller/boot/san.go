package boot

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// San is a disk that the firmware boots itself: the words of iPXE's sanboot.
type San struct {
	Words []string
	// First is set for the first disk of the machine: where the firmware is
	// UEFI, whose own disks iPXE cannot start, it is its next boot device.
	First bool
}

// LocalDisk is the first disk of the machine itself.
const LocalDisk = "local-disk"

// firstDrive is the BIOS's number of the first disk.
const firstDrive = 0x80

// The options of sanboot, by whether a value follows.
var sanOptions = map[string]bool{
	"--drive": true, "--filename": true, "--extra": true, "--label": true, "--uuid": true, "--no-describe": false, "--keep": false,
}

// sanSchemes are what iPXE can attach as a disk.
var sanSchemes = []string{"iscsi", "http", "https", "aoe", "ib_srp", "fcp"}

// ParseSan reads what an admin says of the disk to boot: "local-disk" or
// nothing, a disk by its name in Linux (of a partition, the disk that it is
// on), or what iPXE's sanboot takes: URLs and options.
func ParseSan(text string) (*San, error) {
	words := strings.Fields(text)
	if len(words) == 0 || len(words) == 1 && words[0] == LocalDisk {
		return localDrive(firstDrive), nil
	}
	if len(words) == 1 && strings.HasPrefix(words[0], "/dev/") {
		drive, err := driveOf(words[0])
		if err != nil {
			return nil, err
		}
		return localDrive(drive), nil
	}
	remote, err := checkSan(words)
	if err != nil {
		return nil, fmt.Errorf("%q is no disk to boot: %w", text, err)
	}
	if !remote && !slices.Contains(words, "--no-describe") {
		words = append([]string{"--no-describe"}, words...)
	}
	return &San{Words: words}, nil
}

func localDrive(drive int) *San {
	return &San{Words: []string{"--no-describe", "--drive", fmt.Sprintf("0x%x", drive)}, First: drive == firstDrive}
}

// checkSan says whether the words name a remote disk, and refuses those that
// sanboot does not take or that would mean something else to iPXE.
func checkSan(words []string) (remote bool, err error) {
	for i := 0; i < len(words); i++ {
		w := words[i]
		if err := checkWord(w); err != nil {
			return false, err
		}
		hasValue, option := sanOptions[w]
		switch {
		case option && hasValue:
			if i++; i == len(words) || strings.HasPrefix(words[i], "-") {
				return false, fmt.Errorf("%s needs a value", w)
			}
			if err := checkWord(words[i]); err != nil {
				return false, err
			}
			if _, err := strconv.ParseUint(words[i], 0, 8); w == "--drive" && err != nil {
				return false, fmt.Errorf("%q is no drive such as 0x80", words[i])
			}
		case option:
		case strings.HasPrefix(w, "-"):
			return false, fmt.Errorf("sanboot has no option %s", w)
		default:
			scheme, _, _ := strings.Cut(w, ":")
			if u, err := url.Parse(w); err != nil || !slices.Contains(sanSchemes, scheme) || u.User != nil {
				return false, fmt.Errorf("%s is neither %s nor a disk such as /dev/sda, nor a URL of %s", w, LocalDisk, strings.Join(sanSchemes, ", "))
			}
			remote = true
		}
	}
	return remote, nil
}

// checkWord keeps out what ends a command in iPXE or is expanded.
func checkWord(w string) error {
	for _, r := range w {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("%q has the character %q: use printable ASCII", w, r)
		}
	}
	if strings.Contains(w, "${") || w == "||" || w == "&&" || w == ";" || w[0] == '#' || strings.HasSuffix(w, `\`) {
		return fmt.Errorf("%q means something else to iPXE", w)
	}
	return nil
}

// driveOf gives the BIOS's number of a disk, which counts them as Linux does
// on a machine with one kind of disk: by the letter, or the number of an NVMe.
func driveOf(device string) (int, error) {
	name := strings.TrimPrefix(device, "/dev/")
	if n, ok := strings.CutPrefix(name, "nvme"); ok {
		n, _, _ = strings.Cut(n, "n")
		if i, err := strconv.Atoi(n); err == nil && i >= 0 && i < 26 {
			return firstDrive + i, nil
		}
	}
	for _, prefix := range []string{"sd", "vd", "hd", "xvd"} {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok || rest == "" || rest[0] < 'a' || rest[0] > 'z' || strings.Trim(rest[1:], "0123456789") != "" {
			continue
		}
		return firstDrive + int(rest[0]-'a'), nil
	}
	return 0, fmt.Errorf("%q is no disk such as /dev/sda or /dev/nvme0n1", device)
}
