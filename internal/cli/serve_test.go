package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/sealift/sealift/internal/registry"
)

// TestServeHints: what to do about errors of the embedded registry.
func TestServeHints(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code int
		hint string
	}{
		"served while pruning": {&registry.BusyError{Store: "s"}, ExitFailure, "stop the registry first"},
		"pruned while serving": {&registry.BusyError{Store: "s", Pruning: true}, ExitFailure, "when 'sealift prune' has ended"},
		"no store":             {&registry.NoStoreError{Path: "s"}, ExitFailure, "serve --store"},
		"port in use":          {&listenError{":1", syscall.EADDRINUSE}, ExitFailure, "--listen"},
		"low port":             {&listenError{":1", fs.ErrPermission}, ExitFailure, "--print-unit"},
		"no such user":         {&registry.UserError{Name: "u", Unknown: true}, ExitFailure, "user list"},
		"users file":           {&registry.UsersFileError{Path: "p", Line: 1, Reason: "r"}, ExitFailure, "user add"},
		"disk full":            {fmt.Errorf("pruning: %w", syscall.ENOSPC), ExitDisk, ""},
	} {
		err := fmt.Errorf("wrapped: %w", errors.Join(c.err))
		if code := exitCode(t.Context(), err); code != c.code {
			t.Errorf("%s: exit code %d, want %d", name, code, c.code)
		}
		if got := hint(err); c.hint != "" && !strings.Contains(got, c.hint) {
			t.Errorf("%s: hint %q, want %q in it", name, got, c.hint)
		}
	}
}

func TestIsHost(t *testing.T) {
	for host, want := range map[string]bool{
		"registry": true, "registry.example": true, "10.0.0.1": true, "::1": true, "a_b.example": true,
		"": false, "a:5000": false, "a b": false, "a..b": false, "-a": false, "https://a": false, strings.Repeat("a", 64): false, strings.Repeat("a.", 130) + "a": false,
	} {
		if got := isHost(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}

func TestQuoteUnit(t *testing.T) {
	for word, want := range map[string]string{
		"plain-word_1.2/x:y=z": "plain-word_1.2/x:y=z",
		"":                     `""`,
		"a b":                  `"a b"`,
		"100%":                 `"100%%"`,
		`a"b\c`:                `"a\"b\\c"`,
		"a\nb":                 `"a\nb"`,
	} {
		if got := quoteUnit(word); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}
