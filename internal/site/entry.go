package site

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/sealift/sealift/manifest"
)

// EntryType is the first member of every journal entry.
const EntryType = "application/vnd.sealift.journal-entry.v1+json"

// MaxLine bounds a line of the journal, in bytes, its newline included.
const MaxLine = 64 << 10

// Kinds of events.
const (
	// KindTrustInit is the first pinning of a policy.
	KindTrustInit = "trust-init"
	// KindTrustUpdate is the replacing of a pinned policy.
	KindTrustUpdate = "trust-update"
	// KindRootUpdate is a step from one root document to its successor.
	KindRootUpdate = "root-update"
	// KindAccept is a committed seed or install.
	KindAccept = "accept"
	// KindDowngrade is the acceptance of an older version, which somebody has allowed.
	KindDowngrade = "downgrade"
	// KindExpired is the acceptance of an expired bundle, which somebody has allowed.
	KindExpired = "expired"
	// KindWeakened is the use of a flag that weakens trust.
	KindWeakened = "weakened"
	// KindRecord is a change of the record without an event of its own.
	KindRecord = "record"
	// KindForget is the forgetting, by hand, of what was accepted, or of a pinned root.
	KindForget = "forget"
	// KindClock is a change of the clock floor by hand.
	KindClock = "clock"
	// KindCatchUp is the taking over of what the cluster knows to have been accepted by another machine of the site.
	KindCatchUp = "catch-up"
	// KindReceipt is the keeping of a receipt, whose digest it has.
	KindReceipt = "receipt"
)

// Event is what happened, as the one to whom it happened tells it. The texts are kept as they
// are, but for what is not UTF-8; who shows them takes out what would steer a terminal.
type Event struct {
	// Kind is one of the Kind constants, or another word of lower-case letters and dashes.
	Kind string `json:"kind"`
	// Bundle, Channel and Version name what the event is about, Digest is that of its manifest
	// or of the document that was pinned.
	Bundle  string `json:"bundle,omitempty"`
	Channel string `json:"channel,omitempty"`
	Version string `json:"version,omitempty"`
	Digest  string `json:"digest,omitempty"`
	// Reason is what the operator gave as one.
	Reason string `json:"reason,omitempty"`
	// Detail is anything more.
	Detail map[string]string `json:"detail,omitempty"`
}

// Entry is an event in its place in the journal.
type Entry struct {
	MediaType string `json:"mediaType"`
	// Seq counts the entries from 1.
	Seq int64 `json:"seq"`
	// Time is when the event was recorded by the local clock, RFC 3339 in UTC. A clock may have
	// been wrong: times need not ascend.
	Time string `json:"time"`
	// Prev is the digest of the line before, without its newline; "" for the first one.
	Prev string `json:"prev"`
	// Record binds the record to the journal: in the last entry of an update it is the digest of
	// what the record says after it, in the others it is empty.
	Record string `json:"record,omitempty"`
	Event
}

const entryPrefix = `{"mediaType":"` + EntryType + `","seq":`

var kindPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\A[a-z](?:[a-z-]{0,62}[a-z])?\z`) })

// clean returns e with every text as JSON can hold it.
func (e Event) clean() Event {
	for _, s := range []*string{&e.Kind, &e.Bundle, &e.Channel, &e.Version, &e.Digest, &e.Reason} {
		*s = strings.ToValidUTF8(*s, "\uFFFD")
	}
	if e.Detail != nil {
		detail := make(map[string]string, len(e.Detail))
		for k, v := range e.Detail {
			detail[strings.ToValidUTF8(k, "\uFFFD")] = strings.ToValidUTF8(v, "\uFFFD")
		}
		e.Detail = detail
	}
	return e
}

// line returns the line of an event, without its newline, that comes after head.
func (e Event) line(head Head, now time.Time, record string) ([]byte, error) {
	entry := Entry{MediaType: EntryType, Seq: head.Seq + 1, Time: formatTime(now), Prev: head.Digest, Record: record, Event: e.clean()}
	if err := entry.validate(); err != nil {
		return nil, fmt.Errorf("writing journal entry %d: %w", entry.Seq, err)
	}
	raw, err := marshal(entry)
	if err != nil {
		return nil, fmt.Errorf("writing journal entry %d: %w", entry.Seq, err)
	}
	if len(raw) >= MaxLine {
		return nil, fmt.Errorf("writing journal entry %d: %d bytes, at most %d are allowed", entry.Seq, len(raw), MaxLine-1)
	}
	return raw, nil
}

// parseEntry reads a line of the journal, without its newline.
func parseEntry(line []byte) (Entry, error) {
	var e Entry
	if len(line) >= MaxLine {
		return Entry{}, fmt.Errorf("it has more than %d bytes", MaxLine-1)
	}
	if err := unmarshal(line, entryPrefix, &e, func() ([]byte, error) { return marshal(e) }); err != nil {
		return Entry{}, err
	}
	if err := e.validate(); err != nil {
		return Entry{}, err
	}
	return e, nil
}

func (e *Entry) validate() error {
	if e.MediaType != EntryType {
		return fmt.Errorf("mediaType %q, want %q", e.MediaType, EntryType)
	}
	if e.Seq < 1 {
		return fmt.Errorf("number %d, they begin with 1", e.Seq)
	}
	if err := checkTime(e.Time); err != nil {
		return fmt.Errorf("time %w", err)
	}
	if (e.Seq == 1) != (e.Prev == "") {
		return fmt.Errorf("number %d with %q before it", e.Seq, e.Prev)
	}
	if e.Prev != "" {
		if err := manifest.CheckDigest(e.Prev); err != nil {
			return err
		}
	}
	if e.Record != "" {
		if err := manifest.CheckDigest(e.Record); err != nil {
			return fmt.Errorf("record: %w", err)
		}
	}
	if !kindPattern().MatchString(e.Kind) {
		return fmt.Errorf("kind %q is not made of lower-case letters and dashes", e.Kind)
	}
	return nil
}
