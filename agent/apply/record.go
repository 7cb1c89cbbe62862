package apply

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"muster/shared/wire"
)

// Where a root says which version it is of, and where a change that is under
// way is noted. Both go with the root: that in RAM is forgotten as a whole.
const (
	recordFile = "var/lib/muster/image.json"
	workDir    = "var/lib/muster/apply"
)

// Record says which version of an image the files of a root are.
type Record struct {
	Image wire.Image `json:"image"`
	// Differs are paths that are not as the version has them: changes that were
	// made on the node and kept, or what could not be changed.
	Differs []string `json:"differs,omitempty"`
	// Made are files that are made anew for the node at each boot.
	Made []string `json:"made,omitempty"`
}

// Said is what a node reports of it.
type Said struct {
	Name    string `json:"name"`
	UID     string `json:"uid"`
	Version int    `json:"version"`
	Digest  string `json:"digest"`
	Differs int    `json:"differs,omitempty"` // how many files are not as the version has them
}

// Said gives it.
func (r Record) Said() Said {
	return Said{r.Image.Name, r.Image.UID, r.Image.Version, r.Image.Digest, len(r.Differs)}
}

// Load reads a root's record; nil where there is none.
func Load(root string) (*Record, error) {
	top, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	raw, err := top.ReadFile(recordFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var r Record
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		return nil, fmt.Errorf("/%s, which says what version this root is of: %w", recordFile, err)
	}
	return &r, nil
}

// Booted notes which version a root was made from. Where the root is of this
// version already, on a disk, what was noted holds on.
func Booted(root string, image wire.Image, made []string) error {
	if r, err := Load(root); err == nil && r != nil && r.Image.Digest == image.Digest && image.Digest != "" {
		return nil
	}
	top, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer top.Close()
	// Of whoever the image was taken from.
	if err := top.RemoveAll(workDir); err != nil {
		return err
	}
	return save(top, recordFile, Record{Image: image, Made: made})
}

// save writes a value by a rename; it is on disk then.
func save(top *os.Root, name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dir := path.Dir(name)
	if err := top.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := top.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := top.Rename(name+".new", name); err != nil {
		return err
	}
	return syncDir(top, dir)
}

func syncDir(top *os.Root, dir string) error {
	d, err := top.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
