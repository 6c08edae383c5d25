// Package conformance compares both registries of the binary, 'sealift serve --store' and 'sealift
// serve BUNDLE', with the OCI distribution specification 1.1.1, requirement by requirement, over
// HTTP. Nothing of the program is linked: what is asked and what is expected is written down here
// from the text of the specification.
//
// 'make conformance' runs it and compares docs/conformance.md with what came out; with -update it
// writes that table. A requirement that does not hold is listed in exceptions, with the reason, and
// has to go on not holding: what begins to hold is no exception any more.
//
//	SEALIFT_BIN        the binary; without it nothing runs
//	OCI_CONFORMANCE    the specification's own suite, compiled with 'go test -c', to run as well
package conformance
