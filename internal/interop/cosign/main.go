// Command cosign is the command tree of the cosign CLI, compiled at the
// version that the product links as a library, so that tests can run the real
// client against our files. It is a module of its own because the tree pulls
// in some hundred modules that the product must not know.
package main

import (
	"fmt"
	"os"

	"github.com/sigstore/cosign/v2/cmd/cosign/cli"
)

func main() {
	if err := cli.New().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
