package library

import (
	"fmt"
	"os"

	"muster/shared/object"
)

// Problems says, in words for an admin, what keeps a boot configuration from
// booting: what is missing, broken, or points nowhere.
func (l *Library) Problems(bc *object.Bootconfig) []string {
	if bc.Style() == object.StyleNext {
		return nil // it needs nothing of the head
	}
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	switch {
	case bc.Installs(), bc.Style() == object.StyleRWRAM, bc.Style() == object.StyleRORAM:
	default:
		add("the boot style %s is not served by this version of muster", bc.Style())
	}
	out = append(out, l.fileProblems("kernel", bc.Kernel, "muster bootconfig update "+bc.Name+" --kernel FILE")...)
	if bc.Initramfs != nil { // a kernel with everything built in needs none
		out = append(out, l.fileProblems("initramfs", bc.Initramfs, "muster bootconfig update "+bc.Name+" --modules DIR")...)
	}
	if l.opt.Problems != nil {
		out = append(out, l.opt.Problems(bc)...)
	}
	switch o, ok := l.opt.Objects.Look().Get(object.KindImage, bc.Image); {
	case bc.Installs():
		if bc.Initramfs == nil {
			out = append(out, l.fileProblems("initramfs", nil, "muster bootconfig update "+bc.Name+" --initramfs FILE, that of the installer")...)
		}
	case bc.Image == "":
		add("it names no image: muster bootconfig update %s --image NAME", bc.Name)
	case !ok:
		add("its image %s does not exist any more: muster bootconfig update %s --image NAME", bc.Image, bc.Name)
	default:
		img := o.(*object.Image)
		out = append(out, l.fileProblems("image "+img.Name, img.Squash(), "muster image import "+img.Name+" SOURCE")...)
	}
	return out
}

func (l *Library) fileProblems(what string, f *object.File, remedy string) []string {
	if f == nil {
		return []string{fmt.Sprintf("%s: nothing was uploaded: %s", what, remedy)}
	}
	if f.Problem != "" {
		return []string{fmt.Sprintf("%s: %s: %s", what, f.Problem, remedy)}
	}
	if problem := l.storeProblem(f); problem != "" {
		return []string{fmt.Sprintf("%s: %s: %s", what, problem, remedy)}
	}
	return nil
}

// storeProblem says why this head does not have a file whole, "" when it does.
func (l *Library) storeProblem(f *object.File) string {
	info, err := os.Stat(l.opt.Blobs.Path(f.SHA256))
	switch {
	case err != nil:
		return fmt.Sprintf("its file is missing from this head's store (%v)", err)
	case info.Size() != f.Size:
		return fmt.Sprintf("its file in this head's store has %d bytes instead of %d", info.Size(), f.Size)
	}
	return ""
}
