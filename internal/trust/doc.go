// Package trust decides whom and what a site believes: its policy, the vendors' root documents
// that rotate keys, and how fresh a bundle must be.
//
// It works on bytes and facts that its callers bring: no files, no network, no clock. The zero
// value of every decision refuses.
package trust
