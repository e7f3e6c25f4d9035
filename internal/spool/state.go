package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"tarishi/internal/mail"
)

// Errors that LoadState and DecodeState wrap.
var (
	ErrDamaged = errors.New("damaged state file")
	ErrVersion = errors.New("state file of a newer version")
)

const (
	stateVersion = 1
	maxState     = 64 << 20 // bytes that we are willing to read
)

// State is the document ID.json: who a message is from and for, and what became
// of each recipient.
type State struct {
	Version    int            `json:"version"` // 1
	Size       int64          `json:"size"`    // bytes of ID.eml
	Envelope   *mail.Envelope `json:"envelope"`
	Recipients []Recipient    `json:"recipients"` // in the order of envelope.recipients
}

// Recipient is what is known of one recipient.
type Recipient struct {
	Status   Status     `json:"status"`
	Attempts int        `json:"attempts,omitempty"` // that ended in a deferral
	Next     *time.Time `json:"next,omitempty"`     // due; absent: at once
	Last     string     `json:"last,omitempty"`     // the reply that deferred it last
}

// Status is what is left to do for a recipient.
type Status string

// The two values of Status.
const (
	Pending Status = "pending" // neither delivered nor failed
	Settled Status = "settled" // delivered, or failed and reported
)

// Encode returns the document.
func (st *State) Encode() ([]byte, error) {
	c := *st
	c.Version = stateVersion
	b, err := json.MarshalIndent(&c, "", " ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// DecodeState reads the document of message id and checks all that the queue
// relies on.
func DecodeState(id mail.ID, b []byte) (*State, error) {
	var st State
	err := json.Unmarshal(b, &st)
	if st.Version > stateVersion {
		return nil, fmt.Errorf("%w: %d", ErrVersion, st.Version)
	}
	if err != nil {
		// What makes it unreadable may be the newer version.
		var v struct {
			Version int `json:"version"`
		}
		if json.Unmarshal(b, &v) == nil && v.Version > stateVersion {
			return nil, fmt.Errorf("%w: %d", ErrVersion, v.Version)
		}
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := st.check(id); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &st, nil
}

func (st *State) check(id mail.ID) error {
	switch {
	case st.Version < 1:
		return errors.New("no version")
	case st.Envelope == nil:
		return errors.New("no envelope")
	case st.Envelope.ID != id:
		return fmt.Errorf("it is about message %q", st.Envelope.ID)
	case st.Size < 0:
		return errors.New("negative size")
	case len(st.Recipients) == 0, len(st.Recipients) != len(st.Envelope.Recipients):
		return fmt.Errorf("%d recipients in the envelope, %d states", len(st.Envelope.Recipients), len(st.Recipients))
	}
	for i, r := range st.Recipients {
		if r.Status != Pending && r.Status != Settled {
			return fmt.Errorf("recipient %d has the status %q", i, r.Status)
		}
		if r.Attempts < 0 || r.Attempts > math.MaxInt32 {
			return fmt.Errorf("recipient %d has %d attempts", i, r.Attempts)
		}
	}
	return nil
}
