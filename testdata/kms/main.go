// Command sigstore-kms-sealifttest is a key management service for tests: it speaks sigstore's
// plugin protocol and keeps its keys in a directory. The reference sealifttest://DIR means the
// key in DIR/key.pem, PKCS#8 and not encrypted; sealifttest://DIR?wrong the same, for which it
// signs something else than it was asked to. It keeps nothing secret.
//
//	go build -o sigstore-kms-sealifttest ./testdata/kms
package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/common"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/handler"
)

func main() {
	if err := run(os.Args, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sigstore-kms-sealifttest:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	request, err := handler.GetPluginArgs(args)
	if err != nil {
		return errors.Join(err, handler.WriteErrorResponse(out, err))
	}
	if got := request.InitOptions.ProtocolVersion; got != common.ProtocolVersion {
		err := fmt.Errorf("protocol %q, want %q", got, common.ProtocolVersion)
		return errors.Join(err, handler.WriteErrorResponse(out, err))
	}
	dir, wrong := strings.CutSuffix(request.InitOptions.KeyResourceID, "?wrong")
	_, err = handler.Dispatch(out, in, request, &store{file: filepath.Join(dir, "key.pem"), wrong: wrong})
	return err
}

// store is one key.
type store struct {
	file  string
	wrong bool
}

const algorithm = "ecdsa-p256-sha256"

func (s *store) load() (signature.SignerVerifier, error) {
	raw, err := os.ReadFile(s.file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block", s.file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return signature.LoadDefaultSignerVerifier(key)
}

// PublicKey implements kms.SignerVerifier.
func (s *store) PublicKey(opts ...signature.PublicKeyOption) (crypto.PublicKey, error) {
	sv, err := s.load()
	if err != nil {
		return nil, err
	}
	return sv.PublicKey(opts...)
}

// SignMessage implements kms.SignerVerifier.
func (s *store) SignMessage(message io.Reader, opts ...signature.SignOption) ([]byte, error) {
	sv, err := s.load()
	if err != nil {
		return nil, err
	}
	if s.wrong {
		return sv.SignMessage(bytes.NewReader([]byte("something else")))
	}
	return sv.SignMessage(message, opts...)
}

// VerifySignature implements kms.SignerVerifier.
func (s *store) VerifySignature(sig, message io.Reader, opts ...signature.VerifyOption) error {
	sv, err := s.load()
	if err != nil {
		return err
	}
	return sv.VerifySignature(sig, message, opts...)
}

// CreateKey implements kms.SignerVerifier. It replaces no key.
func (s *store) CreateKey(_ context.Context, want string) (crypto.PublicKey, error) {
	if want != algorithm {
		return nil, fmt.Errorf("algorithm %q, want %q", want, algorithm)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return key.Public(), errors.Join(pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der}), f.Close())
}

// CryptoSigner implements kms.SignerVerifier; the protocol has no method for it.
func (s *store) CryptoSigner(context.Context, func(error)) (crypto.Signer, crypto.SignerOpts, error) {
	return nil, nil, errors.New("not part of the protocol")
}

// SupportedAlgorithms implements kms.SignerVerifier.
func (s *store) SupportedAlgorithms() []string { return []string{algorithm} }

// DefaultAlgorithm implements kms.SignerVerifier.
func (s *store) DefaultAlgorithm() string { return algorithm }
