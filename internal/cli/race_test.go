//go:build race

package cli_test

// rounds is how many packs are killed.
const rounds = 6

// scriptFiles are the scripts in which much goes on at the same time. With the race detector, which makes the others
// five times slower and sees nothing in them, only these are run; 'make test' runs all of them without it.
var scriptFiles = []string{
	"access", "archives", "disk", "install", "interrupt", "load", "mirror", "pack", "plain_layers", "publish", "publish_faults", "prune",
	"referrers", "repair", "repository_oci", "resume", "seed", "seed_shared", "serve_bundles", "serve_store", "several", "stream", "trust", "volumes",
}
