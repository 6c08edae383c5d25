// Package progress is how long work tells how far it is, without knowing of terminals.
//
// Library packages take a Reporter and give every long piece of work a Task; what becomes of
// it is decided by whoever runs them. Both are safe for use by several goroutines.
package progress

// Unit is what the numbers of a Task count.
type Unit int

// Units.
const (
	Bytes Unit = iota
	Items
)

// Reporter hands out tasks.
type Reporter interface {
	// Start begins a task called name of total units; 0 where the total is not known.
	Start(name string, total int64, unit Unit) Task
}

// Task is one piece of work.
type Task interface {
	// Add says that n more units are done.
	Add(n int64)
	// Note says what has just been finished, in a few words.
	Note(what string)
	// Done ends the task, also where it has failed.
	Done()
}

// Discard is a Reporter that tells nobody.
var Discard Reporter = discard{}

type discard struct{}

func (discard) Start(string, int64, Unit) Task { return discard{} }
func (discard) Add(int64)                      {}
func (discard) Note(string)                    {}
func (discard) Done()                          {}
