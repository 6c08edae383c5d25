package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// logSockets are where services for logging listen on a machine, the first that is there counts.
var logSockets = map[string][]string{
	"syslog":   {"/dev/log", "/var/run/syslog", "/var/run/log"},
	"journald": {"/run/systemd/journal/socket"},
}

const (
	// logIdentifier is what we are called there.
	logIdentifier = "sealift"
	// maxSyslog bounds a message of syslog, in bytes: daemons cut at 8 KiB.
	maxSyslog = 8000
	// maxJournald bounds one of journald, which takes datagrams of what a socket holds.
	maxJournald = 64 << 10
	// logTimeout bounds the waiting for a daemon that reads nothing.
	logTimeout = 2 * time.Second
	// facilityUser is that of programs of users (RFC 5424, table 1), times 8.
	facilityUser = 1 << 3
)

// errSocket says that nobody listens.
var errSocket = errors.New("there is no socket of a service for logging")

// socket is a datagram socket of a service that may be started anew meanwhile.
type socket struct {
	paths []string
	mu    sync.Mutex
	conn  net.Conn
}

func (s *socket) dial(ctx context.Context) error {
	err := errSocket
	for _, path := range s.paths {
		d := net.Dialer{Timeout: logTimeout}
		conn, dialErr := d.DialContext(ctx, "unixgram", path)
		if dialErr == nil {
			s.conn = conn
			return nil
		}
		if !errors.Is(dialErr, os.ErrNotExist) {
			err = dialErr
		}
	}
	return err
}

// send sends one message, the second time to whoever listens now.
func (s *socket) send(message []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for range 2 {
		if s.conn == nil {
			if err = s.dial(context.Background()); err != nil {
				return err
			}
		}
		if err = s.conn.SetWriteDeadline(time.Now().Add(logTimeout)); err == nil {
			_, err = s.conn.Write(message)
		}
		if err == nil {
			return nil
		}
		_ = s.conn.Close() // it has failed already
		s.conn = nil
	}
	return err
}

// Close closes the socket.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

// priority is the severity of syslog (RFC 5424, table 2), which journald uses too.
func priority(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 6
	}
	return 7
}

// syslogHandler sends records to the syslog daemon of this machine, in the form that syslog(3) uses on the
// local socket (RFC 3164, section 4.1, without the host's name): daemons read that of RFC 5424 there as
// text.
type syslogHandler struct {
	app *app
	to  *socket
	// next writes attributes into line.
	next slog.Handler
	line *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func newSyslog(a *app, to *socket, level slog.Level) *syslogHandler {
	line := &lockedBuffer{}
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, at slog.Attr) slog.Attr {
		// The daemon has its own.
		if len(groups) == 0 && (at.Key == slog.TimeKey || at.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return bounded(at, a.hide)
	}}
	var next slog.Handler = slog.NewTextHandler(&line.Buffer, o)
	if a.logging.format == "json" {
		next = slog.NewJSONHandler(&line.Buffer, o)
	}
	return &syslogHandler{a, to, next, line}
}

// Enabled implements slog.Handler.
func (h *syslogHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.next.Enabled(ctx, l)
}

// Handle implements slog.Handler. It never fails: see cleanWriter.
func (h *syslogHandler) Handle(ctx context.Context, r slog.Record) error {
	h.line.mu.Lock()
	h.line.Reset()
	err := h.next.Handle(ctx, r)
	text := h.line.String()
	h.line.mu.Unlock()
	if err != nil {
		return err
	}
	text = strings.Map(asSpace, printable(h.app.hide(strings.TrimSpace(text))))
	head := fmt.Sprintf("<%d>%s %s[%d]: ", facilityUser|priority(r.Level), r.Time.Local().Format(time.Stamp), logIdentifier, os.Getpid())
	message := head + text
	if len(message) > maxSyslog {
		message = strings.ToValidUTF8(message[:maxSyslog], "") + "…"
	}
	if err := h.to.send([]byte(message)); err != nil { //nolint:contextcheck // what is logged about the end of a command is sent after it
		h.app.logLost("syslog", err)
	}
	return nil
}

// asSpace takes line breaks and tabs out, which would begin another message.
func asSpace(r rune) rune {
	if r == '\n' || r == '\t' || r == '\r' {
		return ' '
	}
	return r
}

// WithAttrs implements slog.Handler.
func (h *syslogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &syslogHandler{h.app, h.to, h.next.WithAttrs(attrs), h.line}
}

// WithGroup implements slog.Handler.
func (h *syslogHandler) WithGroup(name string) slog.Handler {
	return &syslogHandler{h.app, h.to, h.next.WithGroup(name), h.line}
}

// journald sends records to journald by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram
// of fields, MESSAGE and PRIORITY among them, and SEALIFT_ with the name of each attribute.
type journald struct {
	app   *app
	to    *socket
	level slog.Level
	attrs []slog.Attr
	// group is put before the names of attributes.
	group string
}

// Enabled implements slog.Handler.
func (h *journald) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

// Handle implements slog.Handler. It never fails: see cleanWriter.
func (h *journald) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	field := func(name, value string) {
		if b.Len()+len(name)+len(value) < maxJournald {
			writeField(&b, name, value)
		}
	}
	field("MESSAGE", h.text(r.Message))
	field("PRIORITY", fmt.Sprint(priority(r.Level)))
	field("SYSLOG_IDENTIFIER", logIdentifier)
	field("SYSLOG_PID", fmt.Sprint(os.Getpid()))
	for _, at := range h.attrs {
		h.each("", at, field)
	}
	r.Attrs(func(at slog.Attr) bool {
		h.each(h.group, at, field)
		return true
	})
	if err := h.to.send(b.Bytes()); err != nil { //nolint:contextcheck // as above
		h.app.logLost("journald", err)
	}
	return nil
}

// text is a text without secrets and control characters.
func (h *journald) text(s string) string { return printable(h.app.hide(logText(s, h.app.hide))) }

// each calls field for an attribute, or for those of a group.
func (h *journald) each(group string, at slog.Attr, field func(name, value string)) {
	at = bounded(at, h.app.hide)
	if at.Value.Kind() == slog.KindGroup {
		for _, inner := range at.Value.Group() {
			h.each(joined(group, at.Key), inner, field)
		}
		return
	}
	if at.Key == "" {
		return
	}
	value := at.Value.String()
	if list, ok := at.Value.Any().([]string); ok {
		value = strings.Join(list, " ")
	}
	field(fieldName(joined(group, at.Key)), h.text(value))
}

func joined(group, key string) string { return strings.Trim(group+"_"+key, "_") }

// fieldName is the name of a field for an attribute: capitals, digits and underscores, at most 64.
func fieldName(key string) string {
	name := "SEALIFT_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	return name[:min(len(name), 64)]
}

// writeField writes one field: in one line, or with its length where it has line breaks.
func writeField(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	if !strings.Contains(value, "\n") {
		b.WriteString("=" + value + "\n")
		return
	}
	b.WriteString("\n")
	b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(value))))
	b.WriteString(value + "\n")
}

// WithAttrs implements slog.Handler.
func (h *journald) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs = slices.Clone(h.attrs)
	for _, at := range attrs {
		if h.group != "" {
			at.Key = joined(h.group, at.Key)
		}
		with.attrs = append(with.attrs, at)
	}
	return &with
}

// WithGroup implements slog.Handler.
func (h *journald) WithGroup(name string) slog.Handler {
	with := *h
	with.group = joined(h.group, name)
	return &with
}
