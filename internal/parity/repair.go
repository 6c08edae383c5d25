package parity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/reedsolomon"
)

// maxTargets is how many blocks of a stripe are restored at a time: they are kept whole, since
// their checksums are known at their end.
const maxTargets = 32

// Repair restores what r, made by Check, found to be damaged and not to be lost. It calls
// restore with the content of each damaged block, clipped to the file, that has come out with
// the checksum that it should have; p is valid until restore returns. In the hole there are
// zeros: the caller has to fill it (see HoleContent). restore may write to what src reads.
//
// src and the parity files are read once more, and may well read otherwise than before: blocks
// that do are counted as damaged too, in r as well. src is read by several goroutines at a
// time. done is called with the number of bytes of Damaged that Repair is through with. An
// error is one of restore or of ctx; what cannot be restored is told by r.Lost.
func (s *Set) Repair(ctx context.Context, src io.ReaderAt, r *Report, restore func(p []byte, off int64) error, done func(int64)) error {
	if r.set != s {
		return errors.New("repairing: the report is of another set of parity files")
	}
	w := newRepairer(s, src, r, restore)
	defer r.summarize()
	for t := range s.geo.Stripes() {
		if err := ctx.Err(); err != nil {
			return err
		}
		lost := r.lostShards(t, w.lost[:0])
		if len(lost) == 0 {
			continue
		}
		var size int64
		for _, j := range lost {
			size += s.geo.clip(s.geo.member(t, j)).Size
		}
		if err := w.stripe(ctx, t); err != nil {
			return err
		}
		done(size)
	}
	return nil
}

type repairer struct {
	set     *Set
	src     io.ReaderAt
	report  *Report
	restore func(p []byte, off int64) error

	slice   int64
	inputs  [][]byte // of each shard of data, or of the parity in its place
	outputs [][]byte // whole blocks
	zeros   []byte
	shards  [][]byte // what is decoded
	digests []xxhash.Digest
	tables  []*sums          // of each shard of data
	parity  map[source]*sums // of each row of parity
	lost    []int
	given   []bool // which shards of data of the stripe have been restored
	failed  []bool // which inputs could not be read
	decoder decoder
}

func newRepairer(s *Set, src io.ReaderAt, r *Report, restore func([]byte, int64) error) *repairer {
	k := s.geo.DataRows()
	targets := min(k, s.Rows(), maxTargets)
	slice := sliceSize(s.geo.block, k, int64(targets)*s.geo.block)
	w := &repairer{
		set: s, src: src, report: r, restore: restore,
		slice: slice, inputs: carve(k, slice), outputs: carve(targets, s.geo.block), zeros: make([]byte, slice),
		shards: make([][]byte, k+targets), digests: make([]xxhash.Digest, k), tables: make([]*sums, k),
		parity: map[source]*sums{}, lost: make([]int, 0, k), given: make([]bool, k), failed: make([]bool, k),
	}
	for j := range w.tables {
		w.tables[j] = &sums{files: slices.Clone(s.files)}
	}
	return w
}

// stripe restores the damaged blocks of stripe t.
func (w *repairer) stripe(ctx context.Context, t int64) error {
	clear(w.given)
	for {
		w.lost = w.report.lostShards(t, w.lost[:0])
		rows := w.report.goodRows(t, len(w.lost))
		if rows == nil {
			for _, j := range w.lost {
				if !w.given[j] {
					w.report.lose(t, []int{j})
				}
			}
			return nil
		}
		// Every attempt but the last finds more damage, so there is an end to it.
		again, err := w.attempt(ctx, t, rows)
		if err != nil || !again {
			return err
		}
	}
}

// attempt restores the damaged blocks of stripe t with as many rows of parity. It returns true
// where others turned out to be damaged too.
func (w *repairer) attempt(ctx context.Context, t int64, rows []source) (bool, error) {
	if err := w.decoder.prepare(w.set.geo, w.lost, rows, len(w.outputs)); err != nil {
		return false, fmt.Errorf("repairing: %w", err)
	}
	// In the place of every lost shard of data stands one of parity.
	parity := make([]source, w.set.geo.DataRows())
	for i, j := range w.lost {
		parity[j] = rows[i]
	}
	for i, code := range w.decoder.codes {
		targets := w.lost[i*len(w.outputs) : min((i+1)*len(w.outputs), len(w.lost))]
		if !slices.ContainsFunc(targets, func(j int) bool { return !w.given[j] }) {
			continue
		}
		whole, err := w.decode(ctx, t, code, parity, len(targets))
		if err != nil {
			return false, err
		}
		var wrong []int
		if whole {
			if wrong, err = w.give(t, targets); err != nil {
				return false, err
			}
		}
		if w.blame(t, parity, whole) {
			return true, nil
		}
		// All that went in was good: what came out wrong will not come out otherwise.
		w.report.lose(t, wrong)
	}
	return false, nil
}

// decode makes the first n outputs of what is left of stripe t. It returns false, and leaves
// off, where some of that cannot be read any more.
func (w *repairer) decode(ctx context.Context, t int64, code reedsolomon.Encoder, parity []source, n int) (bool, error) {
	g := w.set.geo
	k := g.DataRows()
	clear(w.failed)
	for j := range w.digests {
		w.digests[j].Reset()
	}
	for at := int64(0); at < g.block; at += w.slice {
		err := each(ctx, k, func(j int) error {
			i, p := g.member(t, j), w.inputs[j]
			w.shards[j] = p
			var err error
			if f := parity[j].file; f != nil {
				err = readFull(f, p, f.blockOffset(parity[j].row, t)+at)
			} else if i >= g.Blocks() {
				w.shards[j] = w.zeros
				return nil
			} else {
				_, err = readData(w.src, g, w.set.meta.Hole, i, at, p)
			}
			w.failed[j] = err != nil
			_, _ = w.digests[j].Write(p)
			return nil
		})
		if err != nil {
			return false, err
		}
		if slices.Contains(w.failed, true) {
			return false, nil
		}
		for i := range n {
			w.shards[k+i] = w.outputs[i][at : at+w.slice]
		}
		if err := code.Encode(w.shards[:k+n]); err != nil {
			return false, fmt.Errorf("repairing: %w", err)
		}
	}
	return true, nil
}

// give hands out what came out right of targets and returns the others.
func (w *repairer) give(t int64, targets []int) (wrong []int, err error) {
	for i, j := range targets {
		if w.given[j] {
			continue
		}
		block := w.set.geo.member(t, j)
		if !w.tables[j].isGood(w.set.files[0].dataSum(block), w.outputs[i]) {
			wrong = append(wrong, j)
			continue
		}
		at := w.set.geo.clip(block)
		if err := w.restore(w.outputs[i][:at.Size], at.Offset); err != nil {
			return nil, fmt.Errorf("restoring %d bytes at %d: %w", at.Size, at.Offset, err)
		}
		w.given[j] = true
		w.report.Restored += at.Size
	}
	return wrong, nil
}

// blame counts as damaged what of stripe t could not be read again or, if all was read, was
// otherwise than for Check. It returns false if there is nothing of the kind.
func (w *repairer) blame(t int64, parity []source, whole bool) bool {
	found := false
	g := w.set.geo
	for j := range w.digests {
		if src := parity[j]; src.file != nil {
			if w.parity[src] == nil {
				w.parity[src] = &sums{files: []*input{src.file}}
			}
			if w.failed[j] || whole && !w.parity[src].isSum(src.file.paritySum(src.row, t), w.digests[j].Sum64()) {
				w.report.parity[src.file].set(src.file.block(src.row, t))
				w.report.Files[src.file.index].Blocks++
				found = true
			}
		} else if i := g.member(t, j); i < g.Blocks() {
			if w.failed[j] || whole && !w.tables[j].isSum(w.set.files[0].dataSum(i), w.digests[j].Sum64()) {
				w.report.bad.set(i)
				found = true
			}
		}
	}
	return found
}
