package qfile

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Name is what the name of a file says.
type Name struct {
	Arrival  time.Time // in milliseconds; zero in the legacy form
	Next     time.Time // when the next attempt is due, in milliseconds
	Attempts int       // that failed
	PID      int       // of the process that delivers it
	Unique   string    // letters and digits
	Counter  int
	Host     string
}

// Kind is what a name stands for.
type Kind uint8

// The kinds of names in a queue folder.
const (
	Foreign     Kind = iota // nothing of Haraka's
	Waiting                 // a message
	Unfinished              // a temporary file: its message was never accepted
	Quarantined             // a file that Haraka could not read
)

const (
	temporary = "__tmp__."
	unread    = "error."
)

// ParseName reads the name of a file:
//
//	ARRIVAL_NEXT_ATTEMPTS_PID_UNIQUE_COUNTER_HOST
//	NEXT_ATTEMPTS_PID_UNIQUE.HOST (legacy)
//
// Name is set for the kind Waiting only.
func ParseName(s string) (Name, Kind) {
	switch {
	case strings.HasPrefix(s, temporary), strings.HasPrefix(s, "."):
		return Name{}, Unfinished
	case strings.HasPrefix(s, unread):
		return Name{}, Quarantined
	}

	// Both forms consist of the same numbers at different places. One flag collects every failure,
	// and a name that fails is foreign.
	var n Name
	ok := true
	number := func(s string, limit int64) int64 {
		v, err := strconv.ParseUint(s, 10, 63)
		if err != nil || int64(v) > limit {
			ok = false
		}
		return int64(v)
	}
	const maxInt = 1<<31 - 1
	switch f := strings.Split(s, "_"); len(f) {
	case 7:
		n.Arrival = time.UnixMilli(number(f[0], lastMillis)).UTC()
		n.Counter = int(number(f[5], maxInt))
		n.Unique, n.Host = f[4], unescape.Replace(f[6])
		f = f[1:]
		n.Next, n.Attempts, n.PID = time.UnixMilli(number(f[0], lastMillis)).UTC(), int(number(f[1], maxInt)), int(number(f[2], maxInt))
	case 4:
		var dot bool
		n.Unique, n.Host, dot = strings.Cut(f[3], ".")
		number(n.Unique, lastMillis)
		ok = ok && dot
		n.Next, n.Attempts, n.PID = time.UnixMilli(number(f[0], lastMillis)).UTC(), int(number(f[1], maxInt)), int(number(f[2], maxInt))
	default:
		return Name{}, Foreign
	}
	if !ok || n.Unique == "" {
		return Name{}, Foreign
	}
	return n, Waiting
}

// FormatName returns the name of a file. The host is escaped; Unique must be
// letters and digits.
func FormatName(n Name) string {
	return fmt.Sprintf("%d_%d_%d_%d_%s_%d_%s",
		n.Arrival.UnixMilli(), n.Next.UnixMilli(), n.Attempts, n.PID, n.Unique, n.Counter, escape.Replace(n.Host))
}

// TempName returns the name under which a file is written before it gets its
// own.
func TempName(name string) string { return temporary + name }

// A slash has no escape in Haraka, and no place in a name.
var (
	escape   = strings.NewReplacer(`\`, `\057`, ":", `\072`, "_", `\137`, "/", "-", "\x00", "-")
	unescape = strings.NewReplacer(`\057`, `\`, `\072`, ":", `\137`, "_")
)
