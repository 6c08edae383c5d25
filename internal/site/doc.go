// Package site keeps what an isolated site knows of its own past: which policy and which roots
// it is pinned to, which versions it has accepted, how late it certainly is, and a journal of
// how it came to that. The package decides nothing about trust: it keeps, and tells when what it
// kept was changed behind its back.
//
// # Files
//
// A state directory (mode 0700) holds, each with mode 0600:
//
//	record.json       the record: canonical JSON, at most 8 MiB, replaced as a whole
//	record.json.new   the record that an update is about to commit
//	journal.jsonl     the journal: one canonical JSON entry a line, at most 64 KiB each, with the
//	                  digest of the line before; only ever appended to
//	docs/sha256/HEX   documents (policies, roots) by their digests, at most 1 MiB each
//	lock              held with flock(2) by the one that updates
//
// # Writing order
//
// An update writes the documents, then record.json.new, then appends to the journal, and then
// gives record.json.new its final name, which is the one instant in which all of it becomes
// true. Each step is on the disk (fsync of the file and of its directory) before the next one
// begins. The record names the length of the journal and the digest of its last line.
//
// So whatever the journal holds beyond the length that the record names was written by an update
// that did not get to its end. Readers ignore it, and the next update cuts it off; complete lines
// as well as torn ones, since the caller of that update was never told that it had happened.
// Only an update that was stopped leaves such lines, and it leaves record.json.new with them,
// which names the record that it was to replace. Lines that no such file explains mean that the
// record is not the latest one: an older copy of it was put back, or it was deleted. That, a
// journal that is shorter than the record says, and one whose last line has another digest, are
// a TamperedError, and nothing is cut.
//
// A chain protects nobody against the one who writes it: who may write to the directory can
// write all of it anew. Against that helps only a Head kept elsewhere, see Dir.FindHead.
package site
