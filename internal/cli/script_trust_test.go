package cli_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

var inlined = regexp.MustCompile(`@([a-zA-Z0-9./-]+)@`)

// cmdInlineKeys puts files into a YAML document where it names them as @FILE@, as strings:
// inlinekeys policy.yaml
func cmdInlineKeys(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: inlinekeys FILE")
	}
	text := inlined.ReplaceAllStringFunc(ts.ReadFile(args[0]), func(m string) string {
		return strconv.Quote(ts.ReadFile(m[1 : len(m)-1]))
	})
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// cmdKMS makes a key in a directory of which the plugin signs, and puts the plugin on the PATH:
// kms DIR
func cmdKMS(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: kms DIR")
	}
	dir := ts.MkAbs(".plugins")
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "sigstore-kms-sealifttest"), "./testdata/kms")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		ts.Fatalf("building the plugin: %v\n%s", err, out)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.MkdirAll(ts.MkAbs(args[0]), 0o700))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+"/key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	ts.Setenv("PATH", dir+string(os.PathListSeparator)+ts.Getenv("PATH"))
}
