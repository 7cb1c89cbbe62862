package sshsig_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/pem"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"muster/shared/sshsig"
)

const namespace = "test@muster"

var message = []byte("to be signed")

// check parses and verifies.
func check(armored, namespace string, message []byte) (ssh.PublicKey, error) {
	s, err := sshsig.Parse(armored, namespace)
	if err != nil {
		return nil, err
	}
	return s.Key, s.Verify(message)
}

func signer(t testing.TB, key any) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ed25519Key(t testing.TB) ssh.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer(t, key)
}

func keygen(t *testing.T, stdin string, args ...string) (string, error) {
	cmd := exec.Command("ssh-keygen", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Signatures of OpenSSH are taken here, and ours by OpenSSH.
func TestAgreesWithOpenSSH(t *testing.T) {
	for _, c := range [][]string{{"ed25519"}, {"ecdsa", "-b", "256"}, {"ecdsa", "-b", "384"}, {"ecdsa", "-b", "521"}, {"rsa", "-b", "2048"}} {
		t.Run(strings.Join(c, ""), func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "key")
			if out, err := keygen(t, "", append([]string{"-q", "-N", "", "-f", file, "-t"}, c...)...); err != nil {
				t.Fatal(out, err)
			}
			for _, hash := range []string{"sha256", "sha512"} {
				theirs, err := exec.Command("sh", "-c", "printf %s 'to be signed' | ssh-keygen -q -Y sign -O hashalg="+hash+" -n "+namespace+" -f "+file).Output()
				if err != nil {
					t.Fatal(err)
				}
				key, err := check(string(theirs), namespace, message)
				if err != nil {
					t.Fatal(hash, err)
				}
				pub, err := os.ReadFile(file + ".pub")
				if err != nil {
					t.Fatal(err)
				}
				if line := string(ssh.MarshalAuthorizedKey(key)); !strings.HasPrefix(string(pub), strings.TrimSpace(line)) {
					t.Errorf("signed by %s, not by %s", pub, line)
				}
			}
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, err := ssh.ParsePrivateKey(raw)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := sshsig.Sign(s, namespace, message)
			if err != nil {
				t.Fatal(err)
			}
			sig, allowed := filepath.Join(dir, "sig"), filepath.Join(dir, "allowed")
			write(t, sig, ours)
			write(t, allowed, "me "+string(ssh.MarshalAuthorizedKey(s.PublicKey())))
			if out, err := keygen(t, string(message), "-Y", "verify", "-f", allowed, "-I", "me", "-n", namespace, "-s", sig); err != nil {
				t.Errorf("ssh-keygen does not take ours: %s", out)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// sha1Signer makes RSA signatures of the old kind.
type sha1Signer struct{ ssh.AlgorithmSigner }

func (s sha1Signer) SignWithAlgorithm(rand io.Reader, data []byte, _ string) (*ssh.Signature, error) {
	return s.AlgorithmSigner.SignWithAlgorithm(rand, data, ssh.KeyAlgoRSA)
}

func TestRefuses(t *testing.T) {
	key := ed25519Key(t)
	good, err := sshsig.Sign(key, namespace, message)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := check(good, namespace, message); err != nil {
		t.Fatal(err)
	}
	rsaKey := func(bits int) ssh.AlgorithmSigner {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		return signer(t, k).(ssh.AlgorithmSigner)
	}
	sign := func(s ssh.Signer, namespace string, message []byte) string {
		text, err := sshsig.Sign(s, namespace, message)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	block, _ := pem.Decode([]byte(good))
	armor := func(raw []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: raw}))
	}
	flipped := append([]byte{}, block.Bytes...)
	flipped[len(flipped)-1] ^= 1
	newer := append([]byte{}, block.Bytes...)
	newer[9]++
	for what, c := range map[string]struct{ text, reason string }{
		"another message":     {sign(key, namespace, []byte("another")), "does not fit"},
		"another namespace":   {sign(key, "file", message), `made for "file"`},
		"a flipped bit":       {armor(flipped), "does not fit"},
		"cut off":             {armor(block.Bytes[:len(block.Bytes)-3]), "not a signature"},
		"something behind":    {armor(append(block.Bytes[:len(block.Bytes):len(block.Bytes)], 0)), "not a signature"},
		"a newer version":     {armor(newer), "not a signature"},
		"a magic alone":       {armor([]byte("SSHSIG")), "not a signature"},
		"nothing":             {"", "not one block"},
		"two":                 {good + good, "not one block"},
		"of another type":     {strings.ReplaceAll(good, "SSH SIGNATURE", "CERTIFICATE"), "not one block"},
		"huge":                {strings.Repeat("x", 1<<20), "longer than"},
		"a weak RSA key":      {sign(rsaKey(1024), namespace, message), "1024 bits"},
		"SHA-1":               {sign(sha1Signer{rsaKey(2048)}, namespace, message), `made with "ssh-rsa"`},
		"an untouched token":  {armor(security(t, 0)), "not touched"},
		"a touched one, fake": {armor(security(t, 1)), "does not fit"},
	} {
		if _, err := check(c.text, namespace, message); err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v, want %q", what, err, c.reason)
		}
	}
}

// security is a signature of the form that security keys make, without one.
func security(t *testing.T, flags byte) []byte {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := ssh.Marshal(struct {
		Type, Key, App string
	}{ssh.KeyAlgoSKED25519, string(pub), "ssh:"})
	sig := ssh.Marshal(struct{ Format, Blob string }{ssh.KeyAlgoSKED25519, strings.Repeat("s", 64)})
	sig = binary.BigEndian.AppendUint32(append(sig, flags), 7)
	return append([]byte("SSHSIG"), ssh.Marshal(struct {
		Version                             uint32
		Key, Namespace, Reserved, Hash, Sig string
	}{1, string(key), namespace, "", "sha512", string(sig)})...)
}

// A security key's signature covers its flags, which no software can set.
func TestSecurityKey(t *testing.T) {
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha512.Sum512(message)
	inner := append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, Hash, Digest string }{namespace, "", "sha512", string(digest[:])})...)
	app, body := sha256.Sum256([]byte("ssh:")), sha256.Sum256(inner)
	data := append(append([]byte{}, app[:]...), 1, 0, 0, 0, 7)
	data = append(data, body[:]...)
	sig := ssh.Marshal(struct{ Format, Blob string }{ssh.KeyAlgoSKED25519, string(ed25519.Sign(private, data))})
	key := ssh.Marshal(struct{ Type, Key, App string }{ssh.KeyAlgoSKED25519, string(pub), "ssh:"})
	for flags, ok := range map[byte]bool{1: true, 5: false} {
		raw := append([]byte("SSHSIG"), ssh.Marshal(struct {
			Version                             uint32
			Key, Namespace, Reserved, Hash, Sig string
		}{1, string(key), namespace, "", "sha512", string(binary.BigEndian.AppendUint32(append(sig[:len(sig):len(sig)], flags), 7))})...)
		_, err := check(string(pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: raw})), namespace, message)
		if (err == nil) != ok {
			t.Errorf("flags %d: %v", flags, err)
		}
	}
}

func TestUsable(t *testing.T) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := sshsig.Usable(signer(t, k).PublicKey()); err != nil {
		t.Error(err)
	}
	ca := ed25519Key(t)
	cert := &ssh.Certificate{Key: ca.PublicKey(), CertType: ssh.UserCert, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	if err := sshsig.Usable(cert); err == nil {
		t.Error("a certificate is taken for a key")
	}
}

func FuzzParse(f *testing.F) {
	good, err := sshsig.Sign(ed25519Key(f), namespace, message)
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode([]byte(good))
	f.Add(block.Bytes)
	f.Add([]byte("SSHSIG\x00\x00\x00\x01"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		text := string(pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: raw}))
		if s, err := sshsig.Parse(text, namespace); err == nil && s.Verify([]byte("never signed")) == nil {
			t.Error("a signature of what nobody signed")
		}
	})
}
