//go:build !race

package cli_test

// rounds is how many packs are killed.
const rounds = 50

// scriptFiles are nil: all scripts are run.
var scriptFiles []string
