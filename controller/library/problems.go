package library

import (
	"fmt"
	"os"

	"muster/shared/object"
)

// Problems says, in words for an admin, what keeps a boot configuration from
// booting: what is missing, broken, or points nowhere.
func (l *Library) Problems(bc *object.Bootconfig) []string {
	switch bc.Style() {
	case object.StyleNext, object.StyleSanboot:
		return nil // it needs nothing of the head
	case object.StyleLive:
		return l.liveProblems(bc)
	}
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
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
		out = append(out, imageGone(bc))
	default:
		img := o.(*object.Image)
		v, err := img.VersionOf(bc.ImageVersion)
		if err != nil && img.Squash() != nil {
			return append(out, err.Error())
		}
		var f *object.File
		if err == nil {
			f = v.File
		}
		out = append(out, l.fileProblems("image "+img.Name, f, "muster image import "+img.Name+" SOURCE")...)
	}
	return out
}

// liveProblems is Problems for an ISO, which brings its kernel along unless
// the boot configuration has one.
func (l *Library) liveProblems(bc *object.Bootconfig) []string {
	var out []string
	if bc.Kernel != nil {
		out = l.fileProblems("kernel", bc.Kernel, "muster bootconfig update "+bc.Name+" --kernel FILE")
	}
	if l.opt.Problems != nil {
		out = append(out, l.opt.Problems(bc)...)
	}
	switch r, ok := l.isoOf(bc); {
	case bc.Repo == "":
		out = append(out, fmt.Sprintf("it names no ISO: muster bootconfig update %s --repo NAME, a repo with an ISO, or the URL of one", bc.Name))
	case ok && r.ISO == nil:
		out = append(out, fmt.Sprintf("its repo %s has no ISO: muster repo iso %s FILE", r.Name, r.Name))
	case ok:
		out = append(out, l.fileProblems("ISO of the repo "+r.Name, r.ISO, "muster repo iso "+r.Name+" FILE")...)
	}
	return out
}

// isoOf gives the repo that holds a boot configuration's ISO; not ok where it
// is a URL.
func (l *Library) isoOf(bc *object.Bootconfig) (*object.Repo, bool) {
	o, err := l.opt.Objects.Find(object.KindRepo, bc.Repo)
	if err != nil {
		return nil, false
	}
	return o.(*object.Repo), true
}

func imageGone(bc *object.Bootconfig) string {
	return fmt.Sprintf("its image %s does not exist any more: muster bootconfig update %s --image NAME", bc.Image, bc.Name)
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
	if f.Index != "" {
		return l.opt.Blobs.chunkProblem(f)
	}
	info, err := os.Stat(l.opt.Blobs.Path(f.SHA256))
	switch {
	case err != nil:
		return fmt.Sprintf("its file is missing from this head's store (%v)", err)
	case info.Size() != f.Size:
		return fmt.Sprintf("its file in this head's store has %d bytes instead of %d", info.Size(), f.Size)
	}
	return ""
}
