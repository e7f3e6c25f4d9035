package outbound

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
)

// reporters is how many gathered reports are made at a time.
const reporters = 8

// tellGathered makes reports that are due, and returns when they are in the queue,
// or are gathered again. When ctx ends those that are not begun wait for the next
// start, the queue has them; attempts is for those that are.
func (o *Outbound) tellGathered(ctx, attempts context.Context, due []*notice.Report) {
	next := make(chan *notice.Report)
	var running sync.WaitGroup
	for range min(reporters, len(due)) {
		running.Go(func() {
			for r := range next {
				o.tellOne(attempts, r)
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
func (o *Outbound) tellOne(ctx context.Context, r *notice.Report) {
	if !r.Several {
		o.mu.Lock()
		ok, until := o.gathering.Admit(o.o.Now(), r.Sender, o.current().DSNRate)
		o.mu.Unlock()
		if !ok {
			o.collect(r, until)
			return
		}
	}

	// Nothing may be left of it: its messages were removed, or cannot be read now.
	now := o.generation.Take()
	defer now.Release()
	reporter := now.Value.reporter
	about, told := o.composeGathered(reporter, r)
	if len(told) == 0 {
		return
	}
	p, err := reporter.Put(ctx, about)
	if err != nil {
		o.o.Log.Error("DSN cannot be queued, the failed recipients stay in the queue", zap.String("to", r.Sender), zap.Int("recipients", len(about.Recipients)), zap.Error(err))
		o.gatherAgain(r, told, o.o.Now().Add(attempt.LocalWait))
		return
	}

	// The report is durable: only now may the queue forget its recipients.
	for id, recipients := range told {
		err := o.o.Queue.Settle(id, recipients)
		o.mu.Lock()
		if err == nil || unknown(err) {
			o.held.Unmark(id, recipients)
		} else {
			o.o.Log.Error("recipients are done with, but the queue cannot record it", zap.String("uuid", string(id)), zap.Ints("recipients", recipients), zap.Error(err))
			o.noteUnrecorded(attempt.Unrecorded{ID: id, Recipients: recipients, Next: o.o.Now().Add(attempt.LocalWait)})
		}
		o.mu.Unlock()
	}
	o.Enqueue(p)
}

// collect makes what was gathered of one message wait with others of its sender.
func (o *Outbound) collect(r *notice.Report, until time.Time) {
	for id, recipients := range r.Recipients {
		p, _ := o.o.Queue.Find(id)
		for _, one := range p.Recipients {
			f, ok := notice.ParseFailure(one.Last)
			if !ok || !slices.Contains(recipients, one.Index) {
				continue
			}

			// After a restart the mark says that it waits with others.
			f.Collected = true
			if err := o.o.Queue.Defer(id, []int{one.Index}, one.Attempts, until, f.String()); err != nil && !unknown(err) { // after a restart it has a separate report
				o.o.Log.Error("deferral of a report not recorded", zap.String("uuid", string(id)), zap.Error(err))
			}
		}
		o.mu.Lock()
		_, begun := o.gathering.Hold(id, r.Sender, recipients, until, true, o.current().DSNRate)
		o.mu.Unlock()
		if begun {
			o.logCollecting(r.Sender, until)
		}
	}
	o.signal()
}

// gatherAgain keeps recipients of r for another report at due.
func (o *Outbound) gatherAgain(r *notice.Report, recipients map[mail.ID][]int, due time.Time) {
	o.mu.Lock()
	for id, list := range recipients {
		again, _ := o.gathering.Hold(id, r.Sender, list, due, r.Several, o.current().DSNRate)
		again.MarkStuck()
	}
	o.mu.Unlock()
	o.signal()
}

// composeGathered looks up what was gathered in the queue, and returns the report
// and the recipients in it. What is not in the queue any more is left out,
// and what cannot be read now is gathered again.
func (o *Outbound) composeGathered(reporter *report.Reporter, r *notice.Report) (about dsn.Report, told map[mail.ID][]int) {
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
		env, content, err := o.o.Queue.Load(id)
		if unknown(err) {
			continue
		}
		var of *dsn.Message
		if err == nil {
			of, err = dsn.NewMessage(env, content)
		}
		p, there := o.o.Queue.Find(id)
		if err != nil || !there {
			o.o.Log.Error("failed message cannot be loaded, its report waits", zap.String("uuid", string(id)), zap.Error(err))
			o.gatherAgain(r, map[mail.ID][]int{id: list}, o.o.Now().Add(attempt.Unreadable))
			continue
		}

		// One recipient that asked for REQUIRETLS binds the whole report.
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
			o.mu.Lock()
			o.scheduleMessage(p)
			o.mu.Unlock()
			o.signal()
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
