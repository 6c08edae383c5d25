package cli

import (
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/internal/registry"
)

func (a *app) serveCommand() *cobra.Command {
	var store, listen string
	var readOnly, sparse bool
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the embedded registry",
		Long: `Serve a directory as a registry, until a signal ends it. The directory is made if need
be; its layout is that of the CNCF distribution registry, which can serve it too.

The registry speaks plain HTTP and asks for no credentials: listen where only those who may
write can connect, or in front of it put a server that checks.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if store == "" {
				return &usageError{errors.New("no --store is named"), cmd.CommandPath()}
			}
			s, err := registry.New(cmd.Context(), registry.Options{Store: store, ReadOnly: readOnly, SparseIndexes: sparse})
			if err != nil {
				return err
			}
			var lc net.ListenConfig
			l, err := lc.Listen(cmd.Context(), "tcp", listen)
			if err != nil {
				return fmt.Errorf("listening: %w", err)
			}
			fmt.Fprintf(a.env.Stdout, "serving %s on %s\n", store, l.Addr())
			return s.Serve(cmd.Context(), l)
		},
	}
	c.Flags().StringVar(&store, "store", "", "directory of the registry's content")
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:5000", "address to listen on")
	c.Flags().BoolVar(&readOnly, "read-only", false, "refuse writes")
	c.Flags().BoolVar(&sparse, "sparse-indexes", true, "take indexes of which only some platforms are there")
	return c
}
