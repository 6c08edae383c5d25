package sigstore_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sealift/sealift/internal/sigstore"
	"github.com/sealift/sealift/internal/sigstore/sigtest"
)

const (
	issuer  = "https://token.ci.example"
	subject = "https://ci.example/acme/shop/.ci/release.yaml@refs/tags/v1"
)

var message = []byte(`{"mediaType":"application/vnd.example+json","a":"message"}`)

func root(t testing.TB, v *sigtest.Virtual, o sigtest.RootOptions) *sigstore.TrustedRoot {
	t.Helper()
	r, err := sigstore.ParseTrustedRoot(v.TrustedRoot(t, o))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func parse(t testing.TB, raw []byte) *sigstore.Signature {
	t.Helper()
	s, err := sigstore.ParseSignature(raw)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func kinds(times []sigstore.ProvenTime) string {
	var k []string
	for _, t := range times {
		k = append(k, t.Kind)
	}
	return strings.Join(k, " ")
}

func TestVerifyIdentity(t *testing.T) {
	ctx := context.Background()
	v, other := sigtest.New(t), sigtest.New(t)
	all := sigtest.RootOptions{TSA: true, Log: true}
	certs := sigtest.RootOptions{TSA: true, Log: true, CT: true}
	const mail = "release@example.com"
	late := sigtest.Epoch.Add(time.Hour)
	for _, c := range []struct {
		name            string
		made            sigtest.Options
		root            sigtest.RootOptions
		issuer, subject string
		message         string
		from            *sigtest.Virtual
		want            error
		times           string
		logs            int
	}{
		{name: "timestamp", made: sigtest.Options{TSA: true}, root: all, times: "signed-timestamp"},
		{name: "timestamp, root without a log", made: sigtest.Options{TSA: true}, root: sigtest.RootOptions{TSA: true}, times: "signed-timestamp"},
		{name: "log", made: sigtest.Options{Log: true}, root: all, times: "transparency-log", logs: 1},
		{name: "log, root without timestamps", made: sigtest.Options{Log: true}, root: sigtest.RootOptions{Log: true}, times: "transparency-log", logs: 1},
		{name: "log, form 0.1 with promise only", made: sigtest.Options{Log: true, Old: true, NoProof: true}, root: all, times: "transparency-log", logs: 1},
		{name: "log, form 0.1 with both", made: sigtest.Options{Log: true, Old: true}, root: all, times: "transparency-log", logs: 1},
		{name: "both", made: sigtest.Options{Log: true, TSA: true}, root: all, times: "transparency-log signed-timestamp", logs: 1},
		{name: "proof without promise, timestamp", made: sigtest.Options{Log: true, NoPromise: true, TSA: true}, root: all, times: "signed-timestamp", logs: 1},
		{name: "mail address", made: sigtest.Options{TSA: true}, root: all, subject: mail, times: "signed-timestamp"},
		{name: "both, root knows the log only", made: sigtest.Options{Log: true, TSA: true}, root: sigtest.RootOptions{Log: true}, times: "transparency-log", logs: 1},
		{name: "both, root knows the timestamps only", made: sigtest.Options{Log: true, TSA: true}, root: sigtest.RootOptions{TSA: true}, times: "signed-timestamp"},
		{name: "logged certificate", made: sigtest.Options{TSA: true, SCT: true}, root: certs, times: "signed-timestamp"},
		{name: "logged certificate, nobody asks", made: sigtest.Options{TSA: true, SCT: true}, root: all, times: "signed-timestamp"},
		{name: "late timestamp beside the log", made: sigtest.Options{Log: true, TSA: true, StampAt: late}, root: all, times: "transparency-log", logs: 1},
		{name: "years ago", made: sigtest.Options{Log: true, TSA: true, At: sigtest.Epoch.AddDate(-10, 0, 0)}, root: all, times: "transparency-log signed-timestamp", logs: 1},

		{name: "certificate not logged", made: sigtest.Options{TSA: true, Log: true}, root: certs, want: sigstore.ErrIdentity},
		{name: "expired, no time", made: sigtest.Options{}, root: all, want: sigstore.ErrNoProvenTime},
		{name: "missing log proof", made: sigtest.Options{TSA: true}, root: sigtest.RootOptions{Log: true}, want: sigstore.ErrNoProvenTime},
		{name: "log tells no time", made: sigtest.Options{Log: true, NoPromise: true}, root: all, want: sigstore.ErrNoProvenTime},
		{name: "root proves no times", made: sigtest.Options{Log: true, TSA: true}, want: sigstore.ErrNoProvenTime},
		{name: "stamped when expired", made: sigtest.Options{TSA: true, StampAt: late}, root: all, want: sigstore.ErrNoProvenTime},
		{name: "stamped before it was issued", made: sigtest.Options{TSA: true, StampAt: sigtest.Epoch.Add(-time.Hour)}, root: all, want: sigstore.ErrNoProvenTime},
		{name: "wrong issuer", made: sigtest.Options{TSA: true}, root: all, issuer: "https://evil.example", want: sigstore.ErrIdentity},
		{name: "longer issuer", made: sigtest.Options{TSA: true}, root: all, issuer: issuer + "/", want: sigstore.ErrIdentity},
		{name: "wrong subject", made: sigtest.Options{TSA: true}, root: all, subject: "https://ci.example/evil", want: sigstore.ErrIdentity},
		{name: "other case", made: sigtest.Options{TSA: true}, root: all, subject: strings.ToUpper(subject), want: sigstore.ErrIdentity},
		{name: "no issuer asked", made: sigtest.Options{TSA: true}, root: all, issuer: "-", want: sigstore.ErrIdentity},
		{name: "no subject asked", made: sigtest.Options{TSA: true}, root: all, subject: "-", want: sigstore.ErrIdentity},
		{name: "wrong message", made: sigtest.Options{TSA: true, Log: true}, root: all, message: "another", want: sigstore.ErrSignature},
		{name: "wrong trusted root", made: sigtest.Options{TSA: true, Log: true}, root: all, from: other, want: sigstore.ErrIdentity},
	} {
		t.Run(c.name, func(t *testing.T) {
			certSubject, askIssuer, askSubject, m, from := subject, issuer, subject, message, v
			if c.subject == mail {
				certSubject = mail
			}
			if c.issuer != "" {
				askIssuer = strings.TrimPrefix(c.issuer, "-")
			}
			if c.subject != "" {
				askSubject = strings.TrimPrefix(c.subject, "-")
			}
			if c.message != "" {
				m = []byte(c.message)
			}
			if c.from != nil {
				from = c.from
			}
			s := parse(t, v.SignBlob(t, issuer, certSubject, message, c.made))
			if i, sub, ok := s.Claims(); !ok || i != issuer || sub != certSubject || s.Fingerprint() != "" {
				t.Fatalf("claims %q %q %v, fingerprint %q", i, sub, ok, s.Fingerprint())
			}
			p, err := s.VerifyIdentity(ctx, m, askIssuer, askSubject, root(t, from, c.root))
			if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			for _, e := range []error{sigstore.ErrIdentity, sigstore.ErrNoProvenTime, sigstore.ErrSignature} {
				if err != nil && errors.Is(err, e) != errors.Is(c.want, e) {
					t.Errorf("%v: is it %v?", err, e)
				}
			}
			if err != nil {
				return
			}
			if got := kinds(p.Times); got != c.times || len(p.Logs) != c.logs {
				t.Errorf("times %q, logs %q, want %q and %d", got, p.Logs, c.times, c.logs)
			}
			for _, at := range p.Times {
				want := map[string]string{sigstore.TransparencyLog: sigtest.LogURL, sigstore.SignedTimestamp: sigtest.TSAURL}[at.Kind]
				issued := c.made.At
				if issued.IsZero() {
					issued = sigtest.Epoch
				}
				if at.Authority != want || at.At.Before(issued) || at.At.After(issued.Add(10*time.Minute)) {
					t.Errorf("%v, want one by %q while the certificate was good", at, want)
				}
			}
		})
	}

	s := parse(t, v.SignBlob(t, issuer, subject, message, sigtest.Options{TSA: true}))
	if _, err := s.VerifyIdentity(ctx, message, issuer, subject, nil); !errors.Is(err, sigstore.ErrTrustedRoot) {
		t.Errorf("no trusted root: %v", err)
	}
	_, key := sigtest.NewKey(t)
	if _, err := s.VerifyKey(ctx, message, key, nil); !errors.Is(err, sigstore.ErrSignature) {
		t.Errorf("a certificate's signature by a key: %v", err)
	}
	if err := s.CheckCertificate(message); err != nil {
		t.Errorf("check of the certificate: %v", err)
	}
	if err := s.CheckCertificate([]byte("another")); !errors.Is(err, sigstore.ErrSignature) {
		t.Errorf("check of the certificate over another message: %v", err)
	}
}

// Material that has been tampered with proves nothing, and what it stood for is missing.
func TestVerifyIdentityTampered(t *testing.T) {
	ctx := context.Background()
	v, other := sigtest.New(t), sigtest.New(t)
	r := root(t, v, sigtest.RootOptions{TSA: true, Log: true})
	good := v.SignBlob(t, issuer, subject, message, sigtest.Options{Log: true})
	cut := func(raw []byte, field string) []byte {
		t.Helper()
		i := bytes.Index(raw, []byte(`"`+field+`":"`))
		if i < 0 {
			t.Fatalf("no %s in %s", field, raw)
		}
		return raw[i : i+len(field)+5+bytes.IndexByte(raw[i+len(field)+4:], '"')]
	}
	swap := func(field string, from []byte) []byte {
		return bytes.Replace(good, cut(good, field), cut(from, field), 1)
	}
	foreign := other.SignBlob(t, issuer, subject, message, sigtest.Options{Log: true})
	for _, c := range []struct {
		name string
		raw  []byte
		want error
	}{
		{"promise of another log", swap("signedEntryTimestamp", foreign), sigstore.ErrNoProvenTime},
		{"time changed", swap("integratedTime", v.SignBlob(t, issuer, subject, message, sigtest.Options{Log: true, At: sigtest.Epoch.Add(time.Second)})), sigstore.ErrNoProvenTime},
		{"entry of another signature", swap("canonicalizedBody", v.SignBlob(t, issuer, subject, message, sigtest.Options{Log: true})), sigstore.ErrNoProvenTime},
		{"checkpoint of another log", swap("envelope", foreign), sigstore.ErrNoProvenTime},
		{"head of another tree", swap("rootHash", foreign), sigstore.ErrNoProvenTime},
		{"certificate of another authority", swap("rawBytes", foreign), sigstore.ErrSignature},
		{"signature of another", swap("signature", foreign), sigstore.ErrSignature},
		{"digest of another message", swap("digest", v.SignBlob(t, issuer, subject, []byte("x"), sigtest.Options{Log: true})), sigstore.ErrSignature},
	} {
		s, err := sigstore.ParseSignature(c.raw)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if _, err := s.VerifyIdentity(ctx, message, issuer, subject, r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestVerifyKey(t *testing.T) {
	ctx := context.Background()
	v := sigtest.New(t)
	all := root(t, v, sigtest.RootOptions{TSA: true, Log: true})
	foreign := root(t, sigtest.New(t), sigtest.RootOptions{TSA: true, Log: true})
	ec, ecKey := sigtest.NewKey(t)
	ed, edKey := sigtest.NewEd25519Key(t)
	_, stranger := sigtest.NewKey(t)
	plain := v.SignBlobWithKey(t, ec, message, sigtest.Options{})
	rich := v.SignBlobWithKey(t, ec, message, sigtest.Options{Log: true, TSA: true})
	for _, c := range []struct {
		name    string
		raw     []byte
		message []byte
		key     sigstore.PublicKey
		root    *sigstore.TrustedRoot
		want    error
		times   string
	}{
		{"plain", plain, message, ecKey, nil, nil, ""},
		{"plain, with a root", plain, message, ecKey, all, nil, ""},
		{"rich, without a root", rich, message, ecKey, nil, nil, ""},
		{"rich", rich, message, ecKey, all, nil, "transparency-log signed-timestamp"},
		{"rich, with a foreign root", rich, message, ecKey, foreign, nil, ""},
		{"Ed25519", v.SignBlobWithKey(t, ed, message, sigtest.Options{TSA: true}), message, edKey, all, nil, "signed-timestamp"},
		{"wrong key", plain, message, stranger, nil, sigstore.ErrSignature, ""},
		{"wrong key of another kind", plain, message, edKey, nil, sigstore.ErrSignature, ""},
		{"wrong message", plain, []byte("another"), ecKey, nil, sigstore.ErrSignature, ""},
		{"wrong message, Ed25519", v.SignBlobWithKey(t, ed, message, sigtest.Options{}), []byte("another"), edKey, nil, sigstore.ErrSignature, ""},
		{"no message", plain, nil, ecKey, nil, sigstore.ErrSignature, ""},
		{"no key", plain, message, sigstore.PublicKey{}, nil, sigstore.ErrKey, ""},
	} {
		s := parse(t, c.raw)
		if _, _, ok := s.Claims(); ok {
			t.Errorf("%s: claims an identity", c.name)
		}
		p, err := s.VerifyKey(ctx, c.message, c.key, c.root)
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err == nil && kinds(p.Times) != c.times {
			t.Errorf("%s: times %q, want %q", c.name, kinds(p.Times), c.times)
		}
		if _, err := s.VerifyIdentity(ctx, message, issuer, subject, all); !errors.Is(err, sigstore.ErrIdentity) {
			t.Errorf("%s: as an identity: %v", c.name, err)
		}
		if err := s.CheckCertificate(message); !errors.Is(err, sigstore.ErrIdentity) {
			t.Errorf("%s: as a certificate: %v", c.name, err)
		}
	}
	if got := parse(t, plain).Fingerprint(); got != ecKey.Fingerprint {
		t.Errorf("fingerprint %q, want %q", got, ecKey.Fingerprint)
	}
}

func TestParseSignatureRefuses(t *testing.T) {
	v := sigtest.New(t)
	key, _ := sigtest.NewKey(t)
	good := string(v.SignBlobWithKey(t, key, message, sigtest.Options{Log: true, TSA: true}))
	for name, raw := range map[string]string{
		"nothing":            "",
		"not JSON":           "x",
		"empty object":       "{}",
		"cut":                good[:len(good)-2],
		"trailing document":  good + good,
		"unknown field":      strings.Replace(good, `{"mediaType"`, `{"mediatype":"","mediaType"`, 1),
		"duplicate field":    strings.Replace(good, `{"mediaType"`, `{"mediaType":"","mediaType"`, 1),
		"later version":      strings.Replace(good, "bundle.v0.3", "bundle.v0.9", 1),
		"other media type":   strings.Replace(good, "bundle.v0.3", "parcel.v0.3", 1),
		"giant":              strings.Repeat(" ", sigstore.MaxSignatureBytes+1),
		"about a statement":  string(v.ImageBundleWithKey(t, key, "sha256:"+strings.Repeat("a", 64), sigtest.Options{})),
		"broken certificate": `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"certificate":{"rawBytes":"MAA="}},"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"AA=="},"signature":"AA=="}}`,
		"no digest":          `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{}},"messageSignature":{"signature":"AA=="}}`,
		"many timestamps":    strings.Replace(good, `"rfc3161Timestamps":[`, `"rfc3161Timestamps":[`+strings.Repeat(`{"signedTimestamp":"AA=="},`, 16), 1),
	} {
		if _, err := sigstore.ParseSignature([]byte(raw)); !errors.Is(err, sigstore.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseTrustedRoot(t *testing.T) {
	v := sigtest.New(t)
	good := v.TrustedRoot(t, sigtest.RootOptions{TSA: true, Log: true, CT: true})
	r := root(t, v, sigtest.RootOptions{Log: true})
	if !r.Certifies() || !r.Proves(sigstore.TransparencyLog) || r.Proves(sigstore.SignedTimestamp) || r.Proves("") {
		t.Error("a root with a log and without timestamps says otherwise")
	}
	if none := (*sigstore.TrustedRoot)(nil); none.Certifies() || none.Proves(sigstore.TransparencyLog) {
		t.Error("no root proves something")
	}
	for name, raw := range map[string][]byte{
		"nothing":         nil,
		"empty object":    []byte("{}"),
		"cut":             good[:len(good)-2],
		"other type":      bytes.Replace(good, []byte("trustedroot+json"), []byte("trustedbranch+json"), 1),
		"no certificates": []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","certificateAuthorities":[{}]}`),
		"giant":           bytes.Repeat([]byte(" "), sigstore.MaxTrustedRootBytes+1),
	} {
		if _, err := sigstore.ParseTrustedRoot(raw); !errors.Is(err, sigstore.ErrTrustedRoot) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
