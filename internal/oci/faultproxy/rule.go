package faultproxy

import (
	"net/http"
	"regexp"
	"slices"
)

// Kind is a way in which a request goes wrong.
type Kind string

// Kinds of faults. Those of the answer's body meet answers of 2xx with a Content-Length above
// zero, but for those to HEAD.
const (
	// TooManyRequests, Unavailable and InternalError answer so, in the words of a registry, without
	// reading the request's body.
	TooManyRequests Kind = "429"
	Unavailable     Kind = "503"
	InternalError   Kind = "500"
	// Drop closes the connection without an answer.
	Drop Kind = "drop"
	// Reset does so with a TCP RST.
	Reset Kind = "reset"
	// CutBody closes the connection in the middle of the answer, whose announced length is kept.
	CutBody Kind = "cut body"
	// CutRequest lets the server have a part of the request's body and closes the connection. A
	// request without a body is dropped.
	CutRequest Kind = "cut request"
	// CorruptBody flips one bit of the answer's body, CorruptRequest one of the request's.
	CorruptBody    Kind = "corrupt body"
	CorruptRequest Kind = "corrupt request"
	// ShortBody answers with a part of the body, and with a Content-Length that agrees.
	ShortBody Kind = "short body"
	// StallBody sends a part of the answer and then nothing for as long as the client keeps the
	// connection, StallRequest takes a part of the request and then nothing until the proxy ends.
	StallBody    Kind = "stall body"
	StallRequest Kind = "stall request"
)

// Words are what the registry says where a Rule has none of its own.
const Words = "a fault that a test has injected"

// Rule says which requests go wrong, how, and when. Its zero value, but for the Kind, is for all
// of them.
type Rule struct {
	Kind Kind
	// Methods and Path choose the requests; nil for all. Path is searched for in the path of the
	// address, without the query.
	Methods []string
	Path    *regexp.Regexp
	// MinBody leaves alone what has a smaller body (the request's or the answer's, as the kind goes);
	// bytes.
	MinBody int64
	// At is after how many bytes of the body it happens; where the body is no longer than that, and
	// for 0, in its middle.
	At int64
	// RetryAfter is the header of that name for the kinds that are an answer; empty for none.
	RetryAfter string
	// Words are what such an answer says; empty for Words.
	Words string

	// Of the requests that the rule is for, the first Skip pass. Of the others every k-th goes
	// wrong; 0 and 1 mean each.
	Skip, Every int
	// FirstTries, if above 0, is instead of Every how many tries of each METHOD and path go wrong
	// before they pass; or of what Key, if not nil, makes of a request.
	FirstTries int
	Key        func(*http.Request) string
	// Times ends it after so many faults; 0 for no end.
	Times int
}

// schedule is a rule with what it has seen.
type schedule struct {
	Rule
	seen, picked int
	tries        map[string]int
}

// due reports whether it is this request's turn to go wrong.
func (s *schedule) due(r *http.Request) bool {
	if s.Times > 0 && s.picked == s.Times {
		return false
	}
	if s.seen++; s.seen <= s.Skip {
		return false
	}
	if s.FirstTries > 0 {
		key := r.Method + " " + r.URL.Path
		if s.Key != nil {
			key = s.Key(r)
		}
		if s.tries[key] == s.FirstTries {
			return false
		}
		s.tries[key]++
	} else if s.Every > 1 && (s.seen-s.Skip)%s.Every != 0 {
		return false
	}
	s.picked++
	return true
}

// meets reports whether the rule is for such requests.
func (s *schedule) meets(r *http.Request) bool {
	return (s.Methods == nil || slices.Contains(s.Methods, r.Method)) && (s.Path == nil || s.Path.MatchString(r.URL.Path))
}

// ofAnswer reports whether the kind is for the bodies of answers.
func (k Kind) ofAnswer() bool {
	return k == CutBody || k == CorruptBody || k == ShortBody || k == StallBody
}

// needsRequestBody reports whether the kind is for the bodies of requests only.
func (k Kind) needsRequestBody() bool { return k == CorruptRequest || k == StallRequest }

// at is the place in a body of so many bytes, or of an unknown number (-1).
func (s *schedule) at(size int64) int64 {
	if size >= 0 && (s.At <= 0 || s.At >= size) {
		return size / 2
	}
	return s.At
}
