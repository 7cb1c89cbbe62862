package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"sync"
	"sync/atomic"

	"muster/shared/kind"
)

// Encoding an object as it is shown is most of the work of reading one, and
// what it shows seldom changes. So the JSON is kept, with all that it was made
// from: the object itself, the kinds that were looked at for it, and what the
// node last reported. It is good for as long as all of that is the same.

// Bounds on what is kept, in bytes.
const (
	maxEncoded  = 8 << 10 // of one object
	allEncoded  = 32 << 20
	tagSize     = 9 // bytes of the digest in an entity tag
	perEncoding = 256
)

// encoded is an object's JSON.
type encoded struct {
	obj     kind.Object
	classes map[*class]uint64 // version of each when it was first looked at
	lives   []life
	json    []byte
	tag     string
}

// life is what was known of a node.
type life struct {
	uid              string
	hardware, status []byte
}

// cache keeps encodings by the object's UID.
type cache struct {
	entries sync.Map
	size    atomic.Int64
}

func (c *cache) put(uid string, e *encoded) {
	if len(e.json) > maxEncoded {
		return
	}
	if c.size.Add(int64(len(e.json)+perEncoding)) > allEncoded {
		c.entries.Clear()
		c.size.Store(int64(len(e.json) + perEncoding))
	}
	if old, had := c.entries.Swap(uid, e); had {
		c.size.Add(-int64(len(old.(*encoded).json) + perEncoding))
	}
}

func (c *cache) drop(uid string) {
	if old, had := c.entries.LoadAndDelete(uid); had {
		c.size.Add(-int64(len(old.(*encoded).json) + perEncoding))
	}
}

// Encoded gives the JSON of an object as by may see it, and a tag that is
// another one whenever that is. The caller must not change the bytes.
func (r *Registry) Encoded(kindName string, obj kind.Object, by kind.Author) (text []byte, tag string, err error) {
	spec := r.kinds[kindName]
	uid := obj.Base().UID
	if found, ok := r.view.cache.entries.Load(uid); ok {
		if e := found.(*encoded); e.obj == obj && r.view.good(e) && spec.SeesAll(by) {
			return e.json, e.tag, nil
		}
	}
	seen := &witness{view: r.view, encoded: encoded{obj: obj, classes: map[*class]uint64{}}}
	shown := r.show(seen, spec, obj)
	visible := spec.Redact(shown, by)
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(visible); err != nil {
		return nil, "", err
	}
	seen.json = bytes.TrimRight(out.Bytes(), "\n")
	sum := sha256.Sum256(seen.json)
	seen.tag = Version(obj) + "." + base64.RawURLEncoding.EncodeToString(sum[:tagSize])
	// A state that is no longer the object's, as the change feed gives, must not
	// displace the one that is read.
	if now, ok := r.view.Get(kindName, uid); ok && now == obj && spec.SeesAll(by) {
		r.view.cache.put(uid, &seen.encoded)
	}
	return seen.json, seen.tag, nil
}

// good says whether an encoding still shows what is.
func (v *view) good(e *encoded) bool {
	for c, version := range e.classes {
		if c.version.Load() != version {
			return false
		}
	}
	for _, l := range e.lives {
		hardware, status := v.Live(l.uid)
		if !bytes.Equal(hardware, l.hardware) || !bytes.Equal(status, l.status) {
			return false
		}
	}
	return true
}

// witness is a view that notes what is looked at.
type witness struct {
	*view
	encoded
}

// note takes a kind's version before it is looked at: a change between the two
// makes the encoding bad, never a stale one good.
func (w *witness) note(kindName string) {
	if c := w.class[kindName]; c != nil {
		if _, ok := w.classes[c]; !ok {
			w.classes[c] = c.version.Load()
		}
	}
}

func (w *witness) Get(kindName, uid string) (kind.Object, bool) {
	w.note(kindName)
	return w.view.Get(kindName, uid)
}

func (w *witness) Find(kindName, key, value string) (kind.Object, bool) {
	w.note(kindName)
	return w.view.Find(kindName, key, value)
}

func (w *witness) Oldest(kindName string) (kind.Object, bool) {
	w.note(kindName)
	return w.view.Oldest(kindName)
}

func (w *witness) Live(uid string) (hardware, status []byte) {
	hardware, status = w.view.Live(uid)
	w.lives = append(w.lives, life{uid, hardware, status})
	return hardware, status
}
