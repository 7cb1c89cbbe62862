package iscsi

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

func TestText(t *testing.T) {
	pairs := []Pair{{"TargetName", "iqn.x:y=z"}, {"A", ""}}
	got, err := ParseText(Text(pairs))
	if err != nil || !slices.Equal(got, pairs) || Value(got, "TargetName") != "iqn.x:y=z" || Value(got, "B") != "" {
		t.Errorf("%q gives %v, %v", Text(pairs), got, err)
	}
	for _, bad := range []string{"novalue", "=x", string(bytes.Repeat([]byte("k"), 64)) + "=x"} {
		if got, err := ParseText([]byte(bad)); err == nil {
			t.Errorf("%q gives %v", bad, got)
		}
	}
}

// FuzzRead: what is read is written the same, and never has more than allowed.
func FuzzRead(f *testing.F) {
	var p PDU
	p.Header[0], p.Data = OpText, []byte("SendTargets=All\x00")
	var b bytes.Buffer
	p.Write(&b)
	f.Add(b.Bytes())
	f.Add(append([]byte{0: 1, 4: 255, 7: 9, 47: 0}, make([]byte, 2000)...))
	f.Add([]byte{0: 1, 5: 0xff, 47: 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := Read(bytes.NewReader(in), 1000)
		if err != nil {
			if p != nil || errors.Is(err, ErrTooLarge) && len(in) < HeaderSize {
				t.Errorf("%x gives %v with %v", in, p, err)
			}
			return
		}
		if len(p.Data) > 1000 {
			t.Errorf("%d bytes", len(p.Data))
		}
		var out bytes.Buffer
		if err := p.Write(&out); err != nil || out.Len()%4 != 0 {
			t.Error(err)
		}
		again, err := Read(&out, 1000)
		if err != nil || again.Header != p.Header || !bytes.Equal(again.Data, p.Data) {
			t.Errorf("%x comes back as %x, %v", p, again, err)
		}
	})
}
