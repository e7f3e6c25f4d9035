package store

import (
	"fmt"
	"strconv"
	"strings"
)

// Unreadable counts messages in a store that cannot be read at the moment, for want of
// permission for instance. Nothing of it is lost, and nothing of it is delivered.
type Unreadable struct {
	Messages int    // of the queue; they come back as soon as they can be read
	Segments int    // of the journal,
	Folders  int    // and of the spool, which only another start reads
	Reason   string // of one of them
}

// Err returns nil if everything can be read, and else what cannot.
func (u Unreadable) Err() error {
	var parts []string
	// Each kind is named only if there is something of it.
	for _, p := range []struct {
		n            int
		one, several string
	}{
		{u.Messages, "message", "messages"},
		{u.Segments, "segment of the journal", "segments of the journal"},
		{u.Folders, "folder of messages", "folders of messages"},
	} {
		if p.n > 0 {
			parts = append(parts, strconv.Itoa(p.n)+" "+map[bool]string{true: p.one, false: p.several}[p.n == 1])
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return fmt.Errorf("%s in the queue cannot be read: %s", strings.Join(parts, ", "), u.Reason)
}
