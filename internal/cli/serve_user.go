package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealift/sealift/internal/registry"
)

// usersFlags say which file of users is meant.
type usersFlags struct{ store, users string }

func (f *usersFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.store, "store", "", "directory of the registry's content; its users are in STORE/sealift/users")
	c.Flags().StringVar(&f.users, "users", "", "htpasswd file (bcrypt) to use instead")
}

func (f *usersFlags) path(cmd *cobra.Command) (string, error) {
	switch {
	case f.users != "":
		return f.users, nil
	case f.store != "":
		return filepath.Join(registry.StateDir(f.store), "users"), nil
	}
	return "", &usageError{errors.New("neither --store nor --users is named"), cmd.CommandPath()}
}

func (a *app) serveUserCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "user",
		Short: "Say who may enter the embedded registry",
		Long: `Add, remove and list the users of the embedded registry. As soon as there is one, everybody
needs credentials, or with 'sealift serve --anonymous-pull' those who write. A registry that
is running takes notice at once.

Passwords are kept as hashes of bcrypt, in an htpasswd file that is for its owner alone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(a.userAddCommand(), a.userRemoveCommand(), a.userListCommand())
	for _, s := range append(c.Commands(), c) {
		wrapArgs(s)
	}
	return c
}

func (a *app) userAddCommand() *cobra.Command {
	var f usersFlags
	var stdin bool
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user, or give one a new password",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := f.path(cmd)
			if err != nil {
				return err
			}
			password, err := a.newPassword(cmd, args[0], stdin)
			if err != nil {
				return err
			}
			a.secrets.add(password)
			was, err := registry.AddUser(path, args[0], password)
			if err != nil {
				return err
			}
			done := "added"
			if was {
				done = "changed"
			}
			v := struct {
				User  string `json:"user"`
				Users string `json:"users"`
				Done  string `json:"done"`
			}{args[0], path, done}
			return a.print(v, func(w io.Writer) { fmt.Fprintf(w, "%s user %s in %s\n", done, args[0], path) })
		},
	}
	f.add(c)
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	return c
}

// newPassword asks for a password twice, or reads the first line of standard input.
func (a *app) newPassword(cmd *cobra.Command, name string, stdin bool) (string, error) {
	if stdin {
		raw, err := io.ReadAll(io.LimitReader(newInterruptible(cmd.Context(), a.env.Stdin), registry.MaxPassword+3))
		if err != nil {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r"), nil
	}
	if a.env.ReadPassword == nil {
		return "", &usageError{errors.New("there is no terminal to ask at for the password: give it with --password-stdin"), cmd.CommandPath()}
	}
	first, err := a.env.ReadPassword(cmd.Context(), "password for "+printable(name)+": ")
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	second, err := a.env.ReadPassword(cmd.Context(), "the same again: ")
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	if string(first) != string(second) {
		return "", errors.New("the two passwords differ")
	}
	return string(first), nil
}

func (a *app) userRemoveCommand() *cobra.Command {
	var f usersFlags
	c := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a user",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := f.path(cmd)
			if err != nil {
				return err
			}
			if err := registry.RemoveUser(path, args[0]); err != nil {
				return err
			}
			v := struct {
				User  string `json:"user"`
				Users string `json:"users"`
				Done  string `json:"done"`
			}{args[0], path, "removed"}
			return a.print(v, func(w io.Writer) { fmt.Fprintf(w, "removed user %s from %s\n", args[0], path) })
		},
	}
	f.add(c)
	return c
}

func (a *app) userListCommand() *cobra.Command {
	var f usersFlags
	c := &cobra.Command{
		Use:   "list",
		Short: "List the users",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := f.path(cmd)
			if err != nil {
				return err
			}
			names, err := registry.ListUsers(path)
			if errors.Is(err, fs.ErrNotExist) && f.users == "" {
				names, err = []string{}, nil
			}
			if err != nil {
				return err
			}
			return a.print(struct {
				Users []string `json:"users"`
			}{names}, func(w io.Writer) {
				for _, name := range names {
					fmt.Fprintln(w, name)
				}
			})
		},
	}
	f.add(c)
	return c
}
