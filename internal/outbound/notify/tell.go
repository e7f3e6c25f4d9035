package notify

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/dsn"
	"tarishi/internal/mail"
	"tarishi/internal/outbound/attempt"
	"tarishi/internal/outbound/notice"
	"tarishi/internal/outbound/report"
	"tarishi/internal/store"
)

// reporters is how many gathered reports are made at a time.
const reporters = 8

// Tell makes reports that are due, and returns when they are in the queue,
// or are gathered again. When ctx ends those that are not begun wait for the next
// start, the queue has them; attempts is for those that are.
func (n *Notifier) Tell(ctx, attempts context.Context, due []*notice.Report) {
	next := make(chan *notice.Report)
	var running sync.WaitGroup
	for range min(reporters, len(due)) {
		running.Go(func() {
			for r := range next {
				n.tellOne(attempts, r)
			}
		})
	}

	// On a stop the queue still has those that are not begun.
	for _, r := range due {
		if ctx.Err() == nil {
			next <- r
		}
	}
	close(next)
	running.Wait()
}

// tellOne makes one report. A report about one message may be one too many for
// its sender: it then becomes part of the one about several.
func (n *Notifier) tellOne(ctx context.Context, r *notice.Report) {
	if !r.Several {
		rate, _ := n.o.Outbound.Reports()
		n.mu.Lock()
		ok, until := n.gathering.Admit(n.o.Now(), r.Sender, rate)
		n.mu.Unlock()
		if !ok {
			n.collect(r, until)
			return
		}
	}

	// Nothing may be left of it: its messages were removed, or cannot be read now.
	reporter, release := n.o.Outbound.Reporter()
	defer release()
	about, told := n.composeGathered(reporter, r)
	if len(told) == 0 {
		return
	}
	p, err := reporter.Put(ctx, about)
	if err != nil {
		n.o.Log.Error("DSN cannot be queued, the failed recipients stay in the queue", zap.String("to", r.Sender), zap.Int("recipients", len(about.Recipients)), zap.Error(err))
		n.gatherAgain(r, told, n.o.Now().Add(attempt.LocalWait))
		return
	}

	// The report is durable: only now may the queue forget its recipients.
	for id, recipients := range told {
		n.o.Outbound.Settle(id, recipients)
	}
	n.o.Outbound.Enqueue(p)
}

// collect makes what was gathered of one message wait with others of its sender.
func (n *Notifier) collect(r *notice.Report, until time.Time) {
	for id, recipients := range r.Recipients {
		p, _ := n.o.Queue.Find(id)
		for _, one := range p.Recipients {
			f, ok := notice.ParseFailure(one.Last)
			if !ok || !slices.Contains(recipients, one.Index) {
				continue
			}

			// After a restart the mark says that it waits with others.
			f.Collected = true
			if err := n.o.Queue.Defer(id, []int{one.Index}, one.Attempts, until, f.String()); err != nil && !store.IsUnknown(err) { // after a restart it has a separate report
				n.o.Log.Error("deferral of a report not recorded", zap.String("uuid", string(id)), zap.Error(err))
			}
		}
		if begun := n.hold(id, r.Sender, recipients, until, true); begun {
			n.logCollecting(r.Sender, until)
		}
	}
	n.o.Outbound.Signal()
}

// gatherAgain keeps recipients of r for another report at due.
func (n *Notifier) gatherAgain(r *notice.Report, recipients map[mail.ID][]int, due time.Time) {
	// They are due again by themselves, and at once when an operator flushes the queue.
	rate, _ := n.o.Outbound.Reports()
	n.mu.Lock()
	for id, list := range recipients {
		again, _ := n.gathering.Hold(id, r.Sender, list, due, r.Several, rate)
		again.MarkStuck()
	}
	n.mu.Unlock()
	n.o.Outbound.Signal()
}

// composeGathered looks up what was gathered in the queue, and returns the report
// and the recipients in it. Messages that have left the queue are left out,
// and what cannot be read now is gathered again.
func (n *Notifier) composeGathered(reporter *report.Reporter, r *notice.Report) (about dsn.Report, told map[mail.ID][]int) {
	told = map[mail.ID][]int{}
	sender := &mail.Envelope{}
	about = reporter.New(sender, nil)
	var last *mail.Envelope
	for _, id := range r.Order {
		list := r.Recipients[id]
		if len(list) == 0 || told[id] != nil {
			continue
		}

		// A message that an administrator removed needs no report.
		env, content, err := n.o.Queue.Load(id)
		if store.IsUnknown(err) {
			continue
		}
		var of *dsn.Message
		if err == nil {
			of, err = dsn.NewMessage(env, content)
		}
		p, there := n.o.Queue.Find(id)
		if err != nil || !there {
			n.o.Log.Error("failed message cannot be loaded, its report waits", zap.String("uuid", string(id)), zap.Error(err))
			n.gatherAgain(r, map[mail.ID][]int{id: list}, n.o.Now().Add(attempt.Unreadable))
			continue
		}

		// One message with REQUIRETLS binds the whole report, and so does one without TLS-Required: No.
		sender.TLSOptional = env.TLSOptional && (last == nil || sender.TLSOptional)
		last, about.OriginalContent = env, content
		sender.From, sender.RequireTLS = env.From, sender.RequireTLS || env.RequireTLS
		p.Recipients = slices.DeleteFunc(p.Recipients, func(one mail.PendingRecipient) bool { return !slices.Contains(list, one.Index) })
		for _, one := range p.Recipients {
			if f, ok := notice.ParseFailure(one.Last); ok {
				told[id] = append(told[id], one.Index)
				about.Recipients = append(about.Recipients, dsn.Recipient{
					Recipient: env.Recipients[one.Index], Action: dsn.Failed, Reply: f.Reply, RemoteMTA: f.Host,
					Expired: f.Reply.Temporary(), LastAttempt: f.At, Of: of,
				})
			}
		}
		if len(told[id]) < len(p.Recipients) { // somebody wrote over the mark
			p.Recipients = slices.DeleteFunc(p.Recipients, func(one mail.PendingRecipient) bool { return slices.Contains(told[id], one.Index) })
			n.o.Outbound.Reschedule(p)
		}
	}

	// Of one message the report has the form that names and returns it.
	if len(told) > 1 {
		about.OriginalContent = nil
		return about, told
	}
	about.Original = last
	for i := range about.Recipients {
		about.Recipients[i].Of = nil
	}
	return about, told
}
