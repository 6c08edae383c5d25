package oci_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/sealift/sealift/internal/oci"
)

// TestSources: what is read from an offset on is what is there, however it is read and from wherever
// it was read before.
func TestSources(t *testing.T) {
	content := bytesOf(100000)
	opened := 0
	for name, open := range map[string]func(int64) (io.ReadCloser, error){
		"bytes":  oci.FromBytes(content),
		"start":  oci.FromStart(func() (io.ReadCloser, error) { opened++; return io.NopCloser(bytes.NewReader(content)), nil }),
		"stream": oci.FromStream(iotest.HalfReader(bytes.NewReader(content)), 100000, 30000),
		"all":    oci.FromStream(iotest.DataErrReader(bytes.NewReader(content)), 100000, 1<<40),
		"none":   oci.FromStream(bytes.NewReader(content), 100000, 0),
	} {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
			at, most := int64(0), int64(0)     // most is how much was read
			for range 200 {
				r, err := open(at)
				if err != nil {
					t.Fatalf("at %d of %d: %v", at, most, err)
				}
				p := make([]byte, rnd.IntN(5000))
				n, err := io.ReadFull(r, p)
				if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatal(err)
				}
				if !bytes.Equal(p[:n], content[at:at+int64(n)]) || n < len(p) && at+int64(n) != int64(len(content)) {
					t.Fatalf("%d bytes at %d are others", n, at)
				}
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				if at += int64(n); at > most {
					most = at
				}
				if back := int64(rnd.IntN(10000)); name != "none" && rnd.IntN(3) == 0 {
					at = max(0, at-back)
					if name == "stream" {
						at = max(at, most-30000)
					}
				}
			}
			if at < 50000 {
				t.Errorf("only %d bytes were read", at)
			}
		})
	}
	if opened == 0 {
		t.Error("nothing was opened")
	}
	open := oci.FromStream(bytes.NewReader(content), 100000, 30000)
	read := func(n int64) {
		t.Helper()
		r, err := open(0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, r, n); err != nil {
			t.Fatal(err)
		}
		if _, err := open(n - 30000); err != nil {
			t.Error(err)
		}
		if k, err := r.Read(make([]byte, 1)); k > 0 || !errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Errorf("an old reader gave %d bytes, %v", k, err)
		}
		for _, at := range []int64{0, n - 30001, n + 1} {
			if _, err := open(at); !errors.Is(err, oci.ErrPassed) {
				t.Errorf("at %d of %d: %v, want ErrPassed", at, n, err)
			}
		}
	}
	read(50000)
	mine := errors.New("the medium is gone")
	if _, err := oci.FromStart(func() (io.ReadCloser, error) { return nil, mine })(5); !errors.Is(err, mine) {
		t.Error(err)
	}
	if _, err := oci.FromStart(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })(100001); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// TestStreamIsUploaded: of what can be read only once, an upload goes on where it broke, and cannot
// begin anew.
func TestStreamIsUploaded(t *testing.T) {
	kept := func(int) (int64, *http.Response, error) { return 2 * mib, nil, errReset }
	for name, c := range map[string]struct {
		silent bool
		window int64
		ok     bool
	}{
		"goes on":             {false, mib, true},
		"fits in memory":      {true, 8 * mib, true},
		"nowhere to go on":    {true, mib, false},
		"next to no memory":   {false, 1, true},
		"it has less, beyond": {true, 2*mib - 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTarget()
				s.silent, s.fault = c.silent, once("PATCH", 1, kept)
				sent := int64(0)
				_, err := s.open(t, oci.Options{}).PutBlob(t.Context(), describeBlob(large), "",
					oci.FromStream(bytes.NewReader(large), int64(len(large)), c.window), func(n int64) { sent += n })
				if c.ok && (err != nil || !bytes.Equal(s.blobs[describeBlob(large).Digest], large) || sent != int64(len(large))) {
					t.Errorf("%d bytes were sent, %v", sent, err)
				}
				// Both are told: why it had to be read again, and that it cannot be.
				if !c.ok && (!errors.Is(err, oci.ErrPassed) || !errors.Is(err, errReset)) {
					t.Errorf("%v, want ErrPassed", err)
				}
			})
		})
	}
}

// TestSourceIsWrong: one that is too short, too long, or finds at its end that it is damaged, ends
// the upload with its own word, also where the registry was quicker.
func TestSourceIsWrong(t *testing.T) {
	damaged := errors.New("it is damaged")
	for _, content := range [][]byte{small, large} {
		for name, c := range map[string]struct {
			r    io.Reader
			want error
		}{
			"short":   {bytes.NewReader(content[:len(content)-1]), io.ErrUnexpectedEOF},
			"long":    {io.MultiReader(bytes.NewReader(content), bytes.NewReader([]byte{1})), nil},
			"damaged": {io.MultiReader(bytes.NewReader(content), iotest.ErrReader(damaged)), damaged},
			"breaks":  {io.MultiReader(bytes.NewReader(content[:500]), iotest.ErrReader(damaged)), damaged},
		} {
			for _, quick := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					s := newTarget()
					if quick {
						s.fault = func(_ string, _ int, r *http.Request) (int64, *http.Response, error) {
							if r.Body != nil {
								r.Body = io.NopCloser(io.LimitReader(r.Body, r.ContentLength))
							}
							return 0, nil, nil
						}
					}
					opened := 0
					_, err := s.open(t, oci.Options{}).PutBlob(t.Context(), describeBlob(content), "", func(int64) (io.ReadCloser, error) {
						opened++
						return io.NopCloser(c.r), nil
					}, func(int64) {})
					var e *oci.Error
					if err == nil || c.want != nil && !errors.Is(err, c.want) || errors.As(err, &e) || opened != 1 {
						t.Errorf("%s, quick %t: %v, opened %d times", name, quick, err, opened)
					}
				})
			}
		}
	}
}
