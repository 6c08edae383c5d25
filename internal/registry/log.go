package registry

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/sirupsen/logrus"
)

// toSlog hands what distribution logs, to a logger of the whole process, to slog.Default, which is the
// command line's.
var toSlog = sync.OnceFunc(func() {
	logrus.SetOutput(io.Discard)
	logrus.SetFormatter(silent{})
	logrus.AddHook(hook{})
	// It makes a line for each request and step, which costs more than a small request, and calls it an
	// error when something is not there. What goes wrong with the disk is told without it: see faults.
	logrus.SetLevel(logrus.PanicLevel)
	if slog.Default().Enabled(context.Background(), slog.LevelDebug) {
		logrus.SetLevel(logrus.InfoLevel)
	}
})

// silent formats nothing, since nothing is printed.
type silent struct{}

// Format returns nothing.
func (silent) Format(*logrus.Entry) ([]byte, error) { return nil, nil }

// hook passes entries on.
type hook struct{}

// Levels are all.
func (hook) Levels() []logrus.Level { return logrus.AllLevels }

// told are the fields that are passed on: addresses have the state of uploads in them, which lets
// whoever reads it go on with them.
var told = []string{"http.request.method", "vars.name", "vars.reference", "vars.digest", "err.code", "err.message", "err.detail"}

// Fire passes one on, for those who want to see everything.
func (hook) Fire(e *logrus.Entry) error {
	attrs := make([]slog.Attr, 0, len(told)+1)
	for _, name := range told {
		if v, ok := e.Data[name]; ok {
			attrs = append(attrs, slog.Any(name, v))
		}
	}
	if err, ok := e.Data[logrus.ErrorKey]; ok {
		attrs = append(attrs, slog.Any("error", err))
	}
	ctx := e.Context
	if ctx == nil {
		ctx = context.Background()
	}
	slog.Default().LogAttrs(ctx, slog.LevelDebug, "distribution: "+e.Message, attrs...)
	return nil
}
