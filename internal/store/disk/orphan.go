package disk

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/mail"
)

// What is known of messages in corrupt/ that somebody may bring back: recipients
// that are settled must not get them again. Files named settled (settled.1, …) and
// ID.settled in corrupt/ have lines
//
//	ID all
//	ID 0,2        recipients by their places in the envelope
const extSettled = "settled"

// maxOrphans bounds what Open remembers of settled recipients of messages that it
// has not found, in bytes.
const maxOrphans = 64 << 20

// orphans collects lines of a settled file.
type orphans struct {
	text bytes.Buffer
	cut  bool
}

// add notes that recipients of a message are settled; nil: all are.
func (o *orphans) add(id mail.ID, recipients []int) {
	if o.text.Len() > maxOrphans {
		o.cut = true
		return
	}
	o.text.WriteString(string(id))
	if recipients == nil {
		o.text.WriteString(" all\n")
		return
	}
	for i, r := range recipients {
		o.text.WriteByte(" ,"[min(i, 1)])
		o.text.WriteString(strconv.Itoa(r))
	}
	o.text.WriteByte('\n')
}

// keepOrphans writes what was collected to corrupt/ under a name.
func (q *Store) keepOrphans(o *orphans, name, reason string) error {
	if o.text.Len() == 0 || q.look {
		return nil
	}
	if o.cut {
		q.log.Error("queue: there is no room to remember all settled recipients: a message that is brought back from corrupt/ may be delivered twice")
	}
	return q.spool.Preserve(name, reason, bytes.NewReader(o.text.Bytes()))
}

// keepSettled is keepOrphans for a message that goes to corrupt/.
func (q *Store) keepSettled(id mail.ID, settled []int, cause error) error {
	var o orphans
	if len(settled) > 0 {
		o.add(id, settled)
	}
	return q.keepOrphans(&o, string(id)+"."+extSettled, cause.Error())
}

// settledOf returns the recipients of an entry, which may be partial, that are
// known to be settled.
func (e *entry) settledOf() (settled []int) {
	for i := range e.recipients() {
		if e.state(i).settled {
			settled = append(settled, i)
		}
	}
	return settled
}

// settlements are settled recipients by message; a nil map of recipients: all.
type settlements map[mail.ID]map[int]bool

func (s settlements) add(id mail.ID, recipients []int) {
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

// all reports whether nothing is left to do for a message.
func (s settlements) all(id mail.ID) bool {
	known, there := s[id]
	return there && known == nil
}

// read adds the lines of a settled file. A line that cannot be read is an error:
// what it says would be delivered again.
func (s settlements) read(r io.Reader) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		id, list, _ := strings.Cut(in.Text(), " ")
		if !mail.ID(id).Valid() {
			return fmt.Errorf("%w: %q", errRecord, in.Text())
		}
		if list == "all" {
			s.add(mail.ID(id), nil)
			continue
		}
		recipients := []int{}
		for n := range strings.SplitSeq(list, ",") {
			i, err := strconv.Atoi(n)
			if err != nil || i < 0 {
				return fmt.Errorf("%w: %q", errRecord, in.Text())
			}
			recipients = append(recipients, i)
		}
		s.add(mail.ID(id), recipients)
	}
	return in.Err()
}

// orphaned keeps what a record says of recipients of a message that was lost.
func (r *recovery) orphaned(id mail.ID, recipients []int) {
	if l := r.files[id]; l != nil {
		l.settled = append(l.settled, recipients...)
	} else if r.damaged {
		r.orphans.add(id, recipients)
	}
}

// keepOrphans writes down what became of messages that this start has not found.
func (r *recovery) keepOrphans() {
	if err := r.q.keepOrphans(&r.orphans, extSettled, "what became of messages that could not be read"); err != nil {
		r.q.log.Error("queue: settled recipients are not preserved", zap.Error(err))
	}
}
