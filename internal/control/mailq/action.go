package mailq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"tarishi/internal/control"
	"tarishi/internal/control/filter"
	"tarishi/internal/control/view"
	"tarishi/internal/mail"
)

// Bounds of an action.
const (
	batch   = 1024 // messages that are selected before something is done to them
	workers = 64   // changes at a time: they share the syncs of the journal
)

// target is a message that something is to be done to.
type target struct {
	id mail.ID

	// What the log says of it; it shares no memory with the envelope.
	from       string
	recipients int
	size       int64

	err error // why it was not found, and then why nothing could be done
}

func newTarget(p *mail.Pending) target {
	return target{id: p.ID, from: p.From.Path(), recipients: len(p.Recipients), size: p.Size}
}

// errNothing is for changes without any condition: they would be made to the whole
// queue, most likely because a variable was not set.
var errNothing = fmt.Errorf("%w: no message is named, by its ID or by a condition", control.ErrInvalid)

// forEach selects messages and calls do with a batch of them at a time.
func (l *Local) forEach(ctx context.Context, a control.Arguments, do func(f *filter.Filter, some []target) error) error {
	if l.outbound == nil {
		return control.ErrStopped
	}
	f, err := filter.New(a, l.snapshot(a))
	if err != nil {
		return err
	}
	switch {
	case len(f.IDs) > 0:
		return do(f, l.findNamed(f))
	case !f.Conditions():
		return errNothing
	}

	// A batch at a time: memory is that of one batch, the changes share syncs of the
	// journal, and the client sees that it goes on. The walk has no lock meanwhile.
	some := make([]target, 0, batch)
	left := f.Limit
	err = l.walkQueue(ctx, func(p mail.Pending) error {
		if !f.Match(&p) {
			return nil
		}
		some = append(some, newTarget(&p))
		if left--; left == 0 {
			return errEnough
		}
		if len(some) < batch {
			return nil
		}
		full := some
		some = some[:0]
		return do(f, full)
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	if err == nil {
		err = do(f, some)
	}
	return err
}

// findNamed returns the messages with the IDs of a filter that meet its other
// conditions. Those that cannot be found or read are among them, with the reason.
func (l *Local) findNamed(f *filter.Filter) []target {
	var all []target
	for _, id := range f.IDs {
		// One wrong ID is no reason to leave the others alone.
		if !id.Valid() {
			all = append(all, target{id: id, err: fmt.Errorf("%w: %q is no ID", control.ErrInvalid, id)})
			continue
		}
		p, ok := l.queue.Find(id)
		switch {
		case !ok:
			all = append(all, target{id: id, err: l.findError(id)})
		case f.Match(&p):
			all = append(all, newTarget(&p))
		}
	}
	return all
}

// changeTogether changes several messages at a time, and notes what failed.
func changeTogether(some []target, do func(t *target) error) {
	var next atomic.Int64
	var running sync.WaitGroup

	// Each change waits for a sync of the journal, and all that wait share one.
	for range min(workers, len(some)) {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(some); i = int(next.Add(1)) - 1 {
				some[i].err = translateError(do(&some[i]))
			}
		})
	}
	running.Wait()
}

// removeMessages takes messages out of the queue, durably, and logs them. No report
// is sent.
func (l *Local) removeMessages(ctx context.Context, a control.Arguments, emit func(*view.Removal) error) error {
	return l.forEach(ctx, a, func(f *filter.Filter, some []target) error {
		changeTogether(some, func(t *target) error {
			if t.err == nil || removable(f, t) {
				return l.queue.Remove(t.id)
			}
			return t.err
		})

		// The schedule is searched once for all of them.
		var gone []mail.ID
		for i := range some {
			if some[i].err == nil {
				gone = append(gone, some[i].id)
			}
		}
		// In the log is what happened, also when the client is gone by now.
		if len(gone) > 0 {
			l.outbound.Forget(gone...)
		}
		for i := range some {
			l.logRemoval(&some[i])
		}
		for _, t := range some {
			if err := emit(view.NewRemoval(t.id, t.err)); err != nil {
				return err
			}
		}
		return nil
	})
}

// removable reports whether a message that cannot be read may be removed: it is
// there, and nothing but its ID was asked for.
func removable(f *filter.Filter, t *target) bool {
	return !f.Conditions() && !errors.Is(t.err, control.ErrUnknown) && !errors.Is(t.err, control.ErrInvalid)
}

func (l *Local) logRemoval(t *target) {
	if t.err != nil {
		return
	}
	fields := []zap.Field{zap.String("uuid", string(t.id))}
	if t.from != "" { // else it could not be read
		fields = append(fields, zap.String("from", t.from), zap.Int("recipients", t.recipients), zap.Int64("bytes", t.size))
	}
	l.log.Info("message removed on request", fields...)
}

// holdMessages keeps the unsettled recipients of messages from being attempted,
// durably.
func (l *Local) holdMessages(ctx context.Context, a control.Arguments, emit func(*view.Holding) error) error {
	return l.changeHolding(ctx, a, emit, true, "message held on request", Outbound.Hold)
}

// releaseMessages lets messages go on that were held, durably.
func (l *Local) releaseMessages(ctx context.Context, a control.Arguments, emit func(*view.Holding) error) error {
	return l.changeHolding(ctx, a, emit, false, "message released on request", Outbound.Release)
}

func (l *Local) changeHolding(ctx context.Context, a control.Arguments, emit func(*view.Holding) error, held bool, done string, do func(o Outbound, id mail.ID, recipients []int) error) error {
	return l.forEach(ctx, a, func(_ *filter.Filter, some []target) error {
		changeTogether(some, func(t *target) error {
			if t.err != nil {
				return t.err
			}
			return do(l.outbound, t.id, nil)
		})

		// As with removals, the log comes first.
		for _, t := range some {
			if t.err == nil {
				l.log.Info(done, zap.String("uuid", string(t.id)))
			}
		}
		for _, t := range some {
			if err := emit(view.NewHolding(t.id, held, t.err)); err != nil {
				return err
			}
		}
		return nil
	})
}

// flushDeliveries makes waiting deliveries due now: all, those to a domain, or those of
// selected messages.
func (l *Local) flushDeliveries(ctx context.Context, a control.Arguments) (*view.Flushed, error) {
	a, err := l.resolveWhich(a)
	if err != nil {
		return nil, err
	}
	if l.outbound == nil {
		return nil, control.ErrStopped
	}

	// Without other conditions outbound does it by itself, without a look at each
	// message; it then also tries again what could not be read.
	domain := a.Text("domain")
	if _, ok := mail.ID(domain).Key(); ok {
		return nil, fmt.Errorf("%w: %s is a message's ID and no domain", control.ErrInvalid, domain)
	}
	if len(a) == 0 || len(a) == 1 && domain != "" && !strings.Contains(domain, "*") {
		return &view.Flushed{Deliveries: l.outbound.Flush(mail.CanonicalDomain(domain))}, nil
	}

	// IDs that are not there are no failure beside others that are.
	flushed, found := 0, 0
	var missing error
	err = l.forEach(ctx, a, func(_ *filter.Filter, some []target) error {
		var ids []mail.ID
		for _, t := range some {
			if t.err != nil {
				missing = t.err
				continue
			}
			ids = append(ids, t.id)
		}
		if len(ids) > 0 {
			flushed += l.outbound.FlushMessages(ids...)
		}
		found += len(ids)
		return nil
	})
	if err == nil && found == 0 {
		err = missing
	}
	return &view.Flushed{Deliveries: flushed}, err
}

// resolveWhich makes a domain or an ID of the parameter which. IDs of imported
// messages can look like domains: one that is in the queue is an ID.
func (l *Local) resolveWhich(a control.Arguments) (control.Arguments, error) {
	which := a.Text("which")
	if which == "" {
		return a, nil
	}
	// A second domain would be a second condition of the same name.
	if len(a["id"])+len(a["domain"]) > 0 {
		return nil, fmt.Errorf("%w: %s and another domain or ID", control.ErrInvalid, which)
	}
	name := "domain"
	if id := mail.ID(which); id.Valid() {
		if err := l.requireMessage(id); err == nil {
			name = "id"
		} else if beginsLikeID(which) {
			return nil, err
		}
	}
	a = maps.Clone(a)
	delete(a, "which")
	a[name] = []string{which}
	return a, nil
}

// beginsLikeID reports whether s begins with the UUID of a connection and a dot, in
// any case: no domain does.
func beginsLikeID(s string) bool {
	if len(s) < 37 {
		return false
	}
	_, ok := mail.ID(strings.ToUpper(s[:37]) + "1").Key()
	return ok
}
