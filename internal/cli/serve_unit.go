package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// unit is a systemd unit that runs a command line.
type unit struct {
	Unit string `json:"unit"`

	command []string
	// reads and writes are the absolute paths that it needs.
	reads, writes []string
	store         string
	reload, low   bool
}

// pathFlags are those whose values are files and directories, by whether they are written to.
var pathFlags = map[string]bool{"store": true, "access-log": true, "state": true, "users": false, "tls-cert": false, "tls-key": false, "policy": false, "key": false}

// bundleFlags are those that mean nothing to a store; variables may have set them.
var bundleFlags = []string{"state", "policy", "key"}

// printUnit prints a unit for a command line.
func (a *app) printUnit(cmd *cobra.Command, args []string, f *serveFlags) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	u := unit{command: []string{program, "serve"}, reads: []string{program}}
	var problems []error
	path := func(p string, written bool) string {
		abs, err := filepath.Abs(p)
		problems = append(problems, err)
		if written {
			u.writes = append(u.writes, abs)
		} else {
			u.reads = append(u.reads, abs)
		}
		return abs
	}
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if slices.Contains([]string{"print-unit", "output", "progress"}, flag.Name) || f.store != "" && slices.Contains(bundleFlags, flag.Name) {
			return
		}
		values := []string{flag.Value.String()}
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			written, isPath := pathFlags[flag.Name]
			if isPath && v != "-" && !strings.Contains(v, "://") {
				// A log is moved away and made anew.
				if flag.Name == "access-log" {
					v = filepath.Join(path(filepath.Dir(v), true), filepath.Base(v))
				} else {
					v = path(v, written && (flag.Name != "store" || !f.readOnly))
				}
			}
			if flag.Name == "store" {
				u.store = v
			}
			u.command = append(u.command, "--"+flag.Name+"="+v)
		}
	})
	for _, bundle := range args {
		if bundle == "-" {
			return &usageError{errors.New("a service has no standard input to read a bundle from"), cmd.CommandPath()}
		}
		if !strings.Contains(bundle, "://") {
			bundle = path(bundle, false)
		}
		u.command = append(u.command, bundle)
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("finding the current directory: %w", err)
	}
	u.reload = f.accessLog != "" && f.accessLog != "-"
	for _, address := range []string{f.listen, f.metricsListen} {
		_, port, err := net.SplitHostPort(address)
		if n, numberErr := strconv.Atoi(port); err == nil && numberErr == nil && n > 0 && n < 1024 {
			u.low = true
		}
	}
	u.Unit = u.text()
	return a.print(u, func(w io.Writer) { fmt.Fprint(w, u.Unit) })
}

// stateRoot is what systemd makes state directories in.
const stateRoot = "/var/lib/"

// dynamic reports whether systemd can make up a user for it: then it makes the directory of the store
// too, and there is no other file that the user would have to be given.
func (u *unit) dynamic() (state string, ok bool) {
	rest, ok := strings.CutPrefix(u.store, stateRoot)
	if !ok || !safe.MatchString(rest) || len(u.reads) > 1 || slices.ContainsFunc(u.writes, func(p string) bool { return p != u.store }) {
		return "", false
	}
	return rest, true
}

func (u *unit) text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	state, dynamic := u.dynamic()
	line("# Made by 'sealift serve --print-unit'. Put it into /etc/systemd/system/sealift-registry.service, then:")
	line("#   systemctl daemon-reload && systemctl enable --now sealift-registry")
	if !dynamic {
		line("# Before that, once, make its user, and let it read and write what it needs:")
		line("#   useradd --system --no-create-home --shell /usr/sbin/nologin sealift")
		for _, p := range u.writes {
			line("#   install -d -o sealift -g sealift %s && chown -R sealift:sealift %s", quoteShell(p), quoteShell(p))
		}
		for _, p := range u.reads[1:] {
			line("#   it reads %s", p)
		}
	}
	line("[Unit]\nDescription=Sealift registry\nAfter=network-online.target\nWants=network-online.target")
	if u.store != "" {
		line("RequiresMountsFor=%s", quoteUnit(u.store))
	}
	quoted := make([]string, len(u.command))
	for i, word := range u.command {
		quoted[i] = quoteUnit(strings.ReplaceAll(word, "$", "$$"))
	}
	line("\n[Service]\nType=exec\nExecStart=%s", strings.Join(quoted, " "))
	if u.reload {
		line("ExecReload=/bin/kill -HUP $MAINPID")
	}
	line("Restart=on-failure\nRestartSec=2\nTimeoutStopSec=30\nLimitNOFILE=65536\nUMask=0027")
	if dynamic {
		line("DynamicUser=yes\nStateDirectory=%s\nStateDirectoryMode=0750", state)
	} else {
		line("User=sealift\nGroup=sealift")
		for _, p := range u.writes {
			line("ReadWritePaths=%s", quoteUnit(p))
		}
	}
	line("%s", u.confinement())
	line("[Install]\nWantedBy=multi-user.target")
	return b.String()
}

// confinement takes from the service what it does not need.
func (u *unit) confinement() string {
	home, tmp := "yes", "yes"
	for _, p := range append(slices.Clone(u.reads), u.writes...) {
		if below(p, "/home", "/root", "/run/user") {
			home = "read-only"
		}
		if below(p, "/tmp", "/var/tmp") {
			tmp = "no"
		}
	}
	capability := ""
	if u.low {
		capability = "CAP_NET_BIND_SERVICE"
	}
	return `NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=` + home + `
PrivateTmp=` + tmp + `
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
AmbientCapabilities=` + capability + `
CapabilityBoundingSet=` + capability + "\n"
}

func below(path string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") })
}

// safe is what no program takes for anything else.
var safe = regexp.MustCompile(`^[A-Za-z0-9_./:=@,+-]+$`)

// quoteUnit writes a word of a systemd unit.
func quoteUnit(word string) string {
	word = strings.ReplaceAll(word, "%", "%%")
	if safe.MatchString(word) {
		return word
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(word) + `"`
}

// quoteShell writes a word for a shell.
func quoteShell(word string) string {
	if safe.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
