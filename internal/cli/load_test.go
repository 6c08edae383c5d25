package cli

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAMuteContainerd: something takes the connection and says nothing.
func TestAMuteContainerd(t *testing.T) {
	address := filepath.Join(t.TempDir(), "s")
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "unix", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	// Nobody accepts: the kernel does.
	_, err = connectNode(t.Context(), address, "k8s.io", 200*time.Millisecond)
	if !is[*muteError](err) || !ofNode(err) || !strings.Contains(err.Error(), address) {
		t.Fatal(err)
	}
	if hint := hintLoad(err); !strings.Contains(hint, "log of what listens there") {
		t.Errorf("hint %q", hint)
	}
}
