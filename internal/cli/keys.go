package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/internal/sigstore"
)

var (
	errNoPassword = errors.New("no password for the private key, and no terminal to ask at")
	errNoKey      = errors.New("no key to sign with")
)

// passwordVariable is cosign's, so that one setting serves both.
const passwordVariable = "COSIGN_PASSWORD"

// password returns the password of a private key: from COSIGN_PASSWORD, also where that is
// set to nothing, or from the terminal. A new one is asked for twice.
func (a *app) password(ctx context.Context, isNew bool) ([]byte, error) {
	if p, ok := a.env.LookupEnv(passwordVariable); ok {
		return []byte(p), nil
	}
	if a.env.ReadPassword == nil {
		return nil, errNoPassword
	}
	if !isNew {
		return a.env.ReadPassword(ctx, "password for the private key: ")
	}
	first, err := a.env.ReadPassword(ctx, "password for the new private key: ")
	if err != nil {
		return nil, fmt.Errorf("reading the password: %w", err)
	}
	second, err := a.env.ReadPassword(ctx, "the same again: ")
	if err != nil {
		return nil, fmt.Errorf("reading the password: %w", err)
	}
	if string(first) != string(second) {
		return nil, errors.New("the two passwords differ")
	}
	return first, nil
}

// signer loads a private key: from a file, or NAME://… from the plugin that holds it.
func (a *app) signer(ctx context.Context, path string) (*sigstore.Signer, error) {
	if sigstore.IsKMS(path) {
		if a.noExec {
			return nil, &execError{path}
		}
		return sigstore.LoadKMSSigner(ctx, path)
	}
	raw, err := readBounded("key", path, sigstore.MaxKeyBytes)
	if err != nil {
		return nil, err
	}
	var password []byte
	if sigstore.NeedsPassword(raw) {
		if password, err = a.password(ctx, false); err != nil {
			return nil, err
		}
	}
	shrink()
	s, err := sigstore.LoadSigner(raw, password)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", path, err)
	}
	return s, nil
}

func (a *app) keygenCommand() *cobra.Command {
	var prefix string
	c := &cobra.Command{
		Use:   "keygen",
		Short: "Make an encrypted cosign key pair",
		Long: `Make a key pair for signing bundles: PREFIX.key, encrypted with a password, and
PREFIX.pub, which every site gets by another way than the bundles.

The password comes from COSIGN_PASSWORD, or is asked for. The files are those of
'cosign generate-key-pair'. Files that are there are never overwritten.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.keygen(cmd.Context(), prefix) },
	}
	c.Flags().StringVar(&prefix, "output-prefix", "cosign", "path of the two files, without .key and .pub")
	return c
}

func (a *app) keygen(ctx context.Context, prefix string) error {
	private, public := prefix+".key", prefix+".pub"
	for _, path := range []string{private, public} {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("writing key: %q: %w", path, os.ErrExist)
		}
	}
	password, err := a.password(ctx, true)
	if err != nil {
		return err
	}
	shrink()
	secret, open, err := sigstore.GenerateKeyPair(password)
	if err != nil {
		return err
	}
	key, err := sigstore.ParsePublicKey(open)
	if err != nil {
		return err
	}
	if err := writeNew(private, secret, 0o600); err != nil {
		return err
	}
	if err := writeNew(public, open, 0o644); err != nil {
		return errors.Join(err, os.Remove(private))
	}
	result := struct {
		Private     string `json:"private"`
		Public      string `json:"public"`
		Fingerprint string `json:"fingerprint"`
	}{private, public, key.Fingerprint}
	return a.print(result, func(w io.Writer) {
		fmt.Fprintf(w, "private key  %s\npublic key   %s\nfingerprint  sha256:%s\n", private, public, key.Fingerprint)
	})
}

// writeNew writes a file that must not be there yet.
func writeNew(path string, content []byte, mode os.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("writing file: %w", err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("writing %q: %w", path, err), os.Remove(path))
	}
	return nil
}
