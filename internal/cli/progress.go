package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/sealift/sealift/internal/archive"
	"github.com/sealift/sealift/internal/progress"
)

// Intervals between two signs of life of one task.
const (
	plainInterval = 10 * time.Second
	jsonInterval  = time.Second
	barInterval   = 100 * time.Millisecond
)

// reporter returns what --progress asks for. Without a word, a terminal gets a bar and
// anything else plain lines.
func (a *app) reporter() progress.Reporter { return a.loggedReporter(a.shownReporter()) }

func (a *app) shownReporter() progress.Reporter {
	how := a.progress
	if how == "auto" {
		how = "plain"
		if a.env.Terminal && a.env.getenv("CI") == "" {
			how = "bar"
		}
	}
	switch how {
	case "bar":
		return barReporter{a.env.Stderr}
	case "plain":
		return &lineReporter{w: a.env.Stderr, now: a.env.Now, every: plainInterval, line: plainLine}
	case "json":
		return &lineReporter{w: a.env.Stderr, now: a.env.Now, every: jsonInterval, line: jsonLine}
	}
	return progress.Discard
}

type barReporter struct{ w io.Writer }

func (r barReporter) Start(name string, total int64, unit progress.Unit) progress.Task {
	if total <= 0 {
		return progress.Discard.Start(name, total, unit)
	}
	options := []progressbar.Option{
		progressbar.OptionSetWriter(r.w), progressbar.OptionSetDescription(name), progressbar.OptionThrottle(barInterval),
		progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth(), progressbar.OptionSetPredictTime(true),
	}
	if unit == progress.Bytes {
		options = append(options, progressbar.OptionShowBytes(true))
	} else {
		options = append(options, progressbar.OptionShowCount())
	}
	return barTask{progressbar.NewOptions64(total, options...)}
}

type barTask struct{ bar *progressbar.ProgressBar }

// What a bar cannot draw is no reason to stop the work: its errors are dropped.
func (t barTask) Add(n int64) { _ = t.bar.Add64(n) }
func (t barTask) Note(string) {}
func (t barTask) Done()       { _ = t.bar.Clear(); _ = t.bar.Exit() }

// state is how far a task is.
type state struct {
	Task    string `json:"task"`
	Event   string `json:"event"`
	Done    int64  `json:"done"`
	Total   int64  `json:"total"`
	Unit    string `json:"unit"`
	Note    string `json:"note,omitempty"`
	unit    progress.Unit
	Seconds float64 `json:"seconds"`
}

// lineReporter writes one line now and then.
type lineReporter struct {
	w     io.Writer
	now   func() time.Time
	every time.Duration
	line  func(state) string
	mu    sync.Mutex
}

type lineTask struct {
	r     *lineReporter
	s     state
	begun time.Time
	last  time.Time
}

func (r *lineReporter) Start(name string, total int64, unit progress.Unit) progress.Task {
	t := &lineTask{r: r, s: state{Task: name, Total: total, unit: unit, Unit: "bytes"}, begun: r.now()}
	if unit == progress.Items {
		t.s.Unit = "items"
	}
	t.last = t.begun
	t.write("start", "")
	return t
}

// write is called with the lock held, or before anybody else knows the task.
func (t *lineTask) write(event, note string) {
	t.s.Event, t.s.Note = event, note
	t.s.Seconds = t.r.now().Sub(t.begun).Seconds()
	if line := t.r.line(t.s); line != "" {
		// Progress that cannot be written is no reason to stop the work.
		_, _ = fmt.Fprintln(t.r.w, line)
	}
}

func (t *lineTask) Add(n int64) {
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	t.s.Done += n
	if now := t.r.now(); now.Sub(t.last) >= t.r.every {
		t.last = now
		t.write("progress", "")
	}
}

func (t *lineTask) Note(what string) {
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	t.write("item", what)
}

func (t *lineTask) Done() {
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	t.write("end", "")
}

func jsonLine(s state) string {
	line, err := json.Marshal(s)
	if err != nil {
		return ""
	}
	return string(line)
}

func plainLine(s state) string {
	amount := func(n int64) string {
		if s.unit == progress.Bytes {
			return archive.FormatBytes(n)
		}
		return fmt.Sprint(n)
	}
	switch s.Event {
	case "start":
		if s.Total == 0 {
			return ""
		}
		return fmt.Sprintf("%s: %s", s.Task, amount(s.Total))
	case "item":
		if s.unit == progress.Items {
			return fmt.Sprintf("%s: %d/%d %s", s.Task, s.Done, s.Total, s.Note)
		}
		return ""
	case "progress":
		if s.Total > 0 {
			return fmt.Sprintf("%s: %d %%, %s of %s, %.0f s", s.Task, s.Done*100/s.Total, amount(s.Done), amount(s.Total), s.Seconds)
		}
		return fmt.Sprintf("%s: %s, %.0f s", s.Task, amount(s.Done), s.Seconds)
	}
	if s.Total == 0 || s.Done < s.Total {
		return ""
	}
	return fmt.Sprintf("%s: done, %s in %.1f s", s.Task, amount(s.Done), s.Seconds)
}
