package handover

import (
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/outbound/notice"
)

// Requests is what operators ask for while messages are still being adopted, and
// what therefore holds for those that come later too. A nil Requests notes nothing. It is not
// safe for concurrent use.
type Requests struct {
	flushed  map[string]bool // domains; "": all
	released []mail.ID
}

// Flush notes that mail for a domain is to be due; "": all mail.
func (r *Requests) Flush(domain string) {
	if r == nil {
		return
	}
	if r.flushed == nil {
		r.flushed = map[string]bool{}
	}
	r.flushed[domain] = true
}

// Release notes that a message is held no longer.
func (r *Requests) Release(id mail.ID) {
	if r != nil {
		r.released = append(r.released, id)
	}
}

// TakeReleased returns the messages that Release was called with since the last time.
func (r *Requests) TakeReleased() []mail.ID {
	released := r.released
	r.released = nil
	return released
}

// Hasten makes recipients due that were flushed before they came. The report about
// one that failed has its own time.
func (r *Requests) Hasten(p *mail.Pending) {
	if len(r.flushed) == 0 {
		return
	}
	for i, one := range p.Recipients {
		if !r.flushed[""] && !r.flushed[one.Address.Host()] {
			continue
		}
		if _, failed := notice.ParseFailure(one.Last); !failed {
			p.Recipients[i].Next = time.Time{}
		}
	}
}
