// Package migrate moves messages between Haraka's queue folder and a queue of
// ours, in both directions.
//
// Import takes each file in four steps: the message is put in the queue
// (durable), its attempts and its schedule are recorded and synced, the file is
// moved to imported/, and both folders are synced. Whatever stops it between two
// steps, the next import of the same folder goes on: each file leads
// to one ID, and the message keeps the name of its file in its notes, so one that is in
// the queue already is only moved. Should the message have been delivered in the
// meantime, it is delivered again: so an import that was cut short is to be
// repeated before the daemon starts. Files in the daemon's own queue folder have
// no such gap, because they are imported before anything is delivered. If a
// file cannot be moved, its message is taken back. No file is ever changed or deleted,
// and none keeps the others from being imported.
//
// Export writes a file for each message, destination domain and schedule. It
// changes nothing in the queue.
//
// Errors are about the folder as a whole. Problems of one file or message are in the
// Report.
package migrate

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"tarishi/internal/mail"
	"tarishi/internal/qfile"
)

// Report is what was done, and what was not.
type Report struct {
	Messages int       // files imported, or written
	Known    int       // of those imported: an import that was cut short had put them in the queue
	Skipped  []Problem // no messages, or not to be moved
	Failed   []Problem // should have been moved, but stay where they are
}

// Problem says why a file or a message stays where it is.
type Problem struct {
	Name string // of the file, or ID of the message
	Err  error
}

// Error implements error.
func (p Problem) Error() string { return p.Name + ": " + p.Err.Error() }

// Unwrap returns the reason.
func (p Problem) Unwrap() error { return p.Err }

// origin is where the notes keep which file a message was.
const (
	origin     = mail.ImportedNotes
	originFile = origin + ".file"
	originUUID = origin + ".uuid"
)

var errClash = errors.New("other messages have all the IDs that it could get")

// candidateIDs returns which IDs the message in a file may get, best first. Haraka gives
// the same UUID to the parts of a message that it split, so the second is made
// of the name.
func candidateIDs(name string, m *qfile.Message) []mail.ID {
	var all []mail.ID
	if id := mail.ID(m.UUID); id.Valid() {
		all = append(all, id)
	}
	sum := sha256.Sum256([]byte(name))
	u := sum[:16]
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80 // UUID version 8 (RFC 9562)
	return append(all, mail.NewID(fmt.Sprintf("%X-%X-%X-%X-%X", u[:4], u[4:6], u[6:8], u[8:10], u[10:]), 1))
}
