// Package sshsig makes and checks signatures in the format of `ssh-keygen -Y
// sign` (OpenSSH's PROTOCOL.sshsig): an SSH key signs a message for one
// purpose, the namespace, so that no signature is good for another.
//
// It decides nothing about whose key is trusted, and asks no agent by itself:
// who signs gives an ssh.Signer, which may be one of an agent.
package sshsig

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

const (
	magic    = "SSHSIG"
	version  = 1
	pemType  = "SSH SIGNATURE"
	maxSize  = 16 << 10 // bytes of the armored form; one of RSA-16384 has about 6 KiB
	minRSA   = 2048     // bits
	hashName = "sha512"
	touched  = 1 // flag of a security key: somebody was there (PROTOCOL.u2f)
)

// blob is the signature's wire form behind the magic.
type blob struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

// signed is what the key signs, behind the magic.
type signed struct {
	Namespace string
	Reserved  string
	Hash      string
	Digest    []byte
}

func toSign(namespace, hash string, message []byte) ([]byte, error) {
	var digest []byte
	switch hash {
	case "sha256":
		d := sha256.Sum256(message)
		digest = d[:]
	case "sha512":
		d := sha512.Sum512(message)
		digest = d[:]
	default:
		return nil, fmt.Errorf("%.20q is not a hash that signatures use", hash)
	}
	return append([]byte(magic), ssh.Marshal(signed{Namespace: namespace, Hash: hash, Digest: digest})...), nil
}

// Sign gives the armored signature of a message.
func Sign(key ssh.Signer, namespace string, message []byte) (string, error) {
	data, err := toSign(namespace, hashName, message)
	if err != nil {
		return "", err
	}
	sig, err := sign(key, data)
	if err != nil {
		return "", err
	}
	raw := append([]byte(magic), ssh.Marshal(blob{
		Version: version, PublicKey: key.PublicKey().Marshal(), Namespace: namespace, Hash: hashName, Signature: ssh.Marshal(sig),
	})...)
	return string(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: raw})), nil
}

// sign keeps RSA keys from signing with SHA-1.
func sign(key ssh.Signer, data []byte) (*ssh.Signature, error) {
	if key.PublicKey().Type() != ssh.KeyAlgoRSA {
		return key.Sign(rand.Reader, data)
	}
	with, ok := key.(ssh.AlgorithmSigner)
	if !ok {
		return nil, errors.New("this RSA key can sign only with SHA-1, which nobody accepts")
	}
	return with.SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSASHA512)
}

// Signature is one that was read; nothing is known of it but its form until
// Verify has returned nil.
type Signature struct {
	Key       ssh.PublicKey // that is said to have made it
	namespace string
	hash      string
	sig       ssh.Signature
}

// Parse reads an armored signature for the namespace. It refuses what is made
// in a way that is not accepted, such as with SHA-1.
func Parse(armored, namespace string) (*Signature, error) {
	if len(armored) > maxSize {
		return nil, fmt.Errorf("it is longer than %d bytes", maxSize)
	}
	block, rest := pem.Decode([]byte(armored))
	if block == nil || block.Type != pemType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("it is not one block that begins with -----BEGIN SSH SIGNATURE-----")
	}
	raw, ok := bytes.CutPrefix(block.Bytes, []byte(magic))
	var b blob
	if !ok || ssh.Unmarshal(raw, &b) != nil || b.Version != version {
		return nil, errors.New("its contents are not a signature of version 1")
	}
	if b.Namespace != namespace {
		return nil, fmt.Errorf("it was made for %.80q, not for %q", b.Namespace, namespace)
	}
	key, err := ssh.ParsePublicKey(b.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("its public key cannot be read: %w", err)
	}
	s := &Signature{Key: key, namespace: namespace, hash: b.Hash}
	if err := ssh.Unmarshal(b.Signature, &s.sig); err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	return s, acceptable(key, &s.sig)
}

// Verify says whether the key made the signature for this message.
func (s *Signature) Verify(message []byte) error {
	data, err := toSign(s.namespace, s.hash, message)
	if err != nil {
		return err
	}
	if s.Key.Verify(data, &s.sig) != nil {
		return errors.New("it does not fit the message")
	}
	return nil
}

// Usable says why no signature of a key is accepted; nil where they are.
func Usable(key ssh.PublicKey) error {
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256:
		return nil
	case ssh.KeyAlgoRSA:
		if parsed, err := ssh.ParsePublicKey(key.Marshal()); err == nil { // that of an agent is bytes only
			key = parsed
		}
		c, ok := key.(ssh.CryptoPublicKey)
		if !ok {
			break
		}
		if k, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok && k.N.BitLen() < minRSA {
			return fmt.Errorf("an RSA key of %d bits: at least %d are asked for", k.N.BitLen(), minRSA)
		}
		return nil
	}
	return fmt.Errorf("a key of type %.60q: only ed25519, ecdsa, rsa and those of security keys are accepted", key.Type())
}

func acceptable(key ssh.PublicKey, sig *ssh.Signature) error {
	if err := Usable(key); err != nil {
		return err
	}
	switch key.Type() {
	case ssh.KeyAlgoRSA:
		if sig.Format != ssh.KeyAlgoRSASHA256 && sig.Format != ssh.KeyAlgoRSASHA512 {
			return fmt.Errorf("it was made with %.40q: RSA keys sign with %s or %s", sig.Format, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512)
		}
	case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		if len(sig.Rest) == 0 || sig.Rest[0]&touched == 0 {
			return errors.New("the security key was not touched")
		}
	}
	return nil
}
