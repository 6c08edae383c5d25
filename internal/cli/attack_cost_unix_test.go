//go:build unix

package cli_test

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/sealift/sealift/verify"
)

// TestSignaturesOfManyStrangersCostLittle: a slot full of signatures, each of which names one of many
// keys that the site knows, is looked at in a moment, and the one that counts is found.
func TestSignaturesOfManyStrangersCostLittle(t *testing.T) {
	s := newStage(t)
	keys := s.publicKeys("vendor")
	for i := range 15 {
		keys = append(keys, s.publicKeys("known-"+strconv.Itoa(i))...)
	}
	path := s.bundle(s.shop("1.0.0", append(s.junk(1), s.by("vendor"))...))
	files, err := verify.Find([]string{path})
	s.ok(err)
	cost := func() time.Duration {
		var u syscall.Rusage
		s.ok(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := cost()
	b, err := verify.Open(t.Context(), files[0], verify.Policy{Keys: keys})
	took := cost() - before
	s.ok(err)
	s.ok(b.Close())
	t.Logf("%d signatures, %d keys: %s", b.Evidence().Ignored+1, len(keys), took)
	if most := 2 * time.Second; took > most {
		t.Errorf("it took %s of processor time, at most %s is allowed", took, most)
	}
}
