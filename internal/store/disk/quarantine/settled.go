// Package quarantine brings messages back from corrupt/, the folder of what could not
// be read, and keeps the knowledge that this takes: recipients that are settled must
// not get such a message again.
//
// Files named settled (settled.1, …) and ID.settled in corrupt/ have lines
//
//	ID all
//	ID 0,2        recipients by their places in the envelope
package quarantine

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/spool"
)

// SettledName is the name of a file of settled recipients, or its end.
const SettledName = "settled"

// maxSettled bounds what Settled remembers, in bytes.
const maxSettled = 64 << 20

// Settled collects settled recipients of messages that somebody may bring back. The
// zero value is empty.
type Settled struct {
	text bytes.Buffer
	cut  bool
}

// AddRecipients notes that recipients of a message are settled; nil: all are.
func (s *Settled) AddRecipients(id mail.ID, recipients []int) {
	if s.text.Len() > maxSettled {
		s.cut = true
		return
	}
	s.text.WriteString(string(id))
	if recipients == nil {
		s.text.WriteString(" all\n")
		return
	}
	for i, r := range recipients {
		s.text.WriteByte(" ,"[min(i, 1)])
		s.text.WriteString(strconv.Itoa(r))
	}
	s.text.WriteByte('\n')
}

// KeepIn writes what was collected to corrupt/ under a name, and nothing if that is
// nothing.
func (s *Settled) KeepIn(to *spool.Spool, name, reason string, log *zap.Logger) error {
	if s.text.Len() == 0 {
		return nil
	}
	if s.cut {
		log.Error("queue: no room to remember all settled recipients: a message recovered from corrupt/ may be delivered twice")
	}
	return to.Preserve(name, reason, bytes.NewReader(s.text.Bytes()))
}

// settlements are settled recipients by message; a nil map of recipients: all.
type settlements map[mail.ID]map[int]bool

func (s settlements) addRecipients(id mail.ID, recipients []int) {
	known, there := s[id]
	switch {
	case recipients == nil || there && known == nil:
		s[id] = nil
		return
	case known == nil:
		known = map[int]bool{}
		s[id] = known
	}
	for _, r := range recipients {
		known[r] = true
	}
}

// isSettled reports whether nothing is left to do for a message.
func (s settlements) isSettled(id mail.ID) bool {
	known, there := s[id]
	return there && known == nil
}

// readLines adds the lines of a settled file. A line that cannot be read is an error: the
// recipients in it would get the message again.
func (s settlements) readLines(r io.Reader) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxSettled)
	for in.Scan() {
		// The scanner bounds the length of a line, so that a damaged file cannot take all
		// memory.
		id, list, _ := strings.Cut(in.Text(), " ")
		if !mail.ID(id).Valid() {
			return fmt.Errorf("%w: %q", record.ErrMalformed, in.Text())
		}
		if list == "all" {
			s.addRecipients(mail.ID(id), nil)
			continue
		}
		recipients := []int{}
		for n := range strings.SplitSeq(list, ",") {
			i, err := strconv.Atoi(n)
			if err != nil || i < 0 {
				return fmt.Errorf("%w: %q", record.ErrMalformed, in.Text())
			}
			recipients = append(recipients, i)
		}
		s.addRecipients(mail.ID(id), recipients)
	}
	return in.Err()
}
