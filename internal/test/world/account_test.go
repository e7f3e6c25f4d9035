package world

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store"
)

// post is the mail that is sent: what becomes of each recipient is accounted for.
type post struct {
	messages []*mail.Envelope
	kinds    map[string]*kind // by address; nil: healthy
	silent   map[string]bool  // addresses of whom nobody is told
	healthy  int              // recipients
}

// write makes n messages to random domains of w, from a few that are one's own to
// several that share nothing, a few from the null sender.
func write(w *world, n int, random *rand.Rand) *post {
	p := &post{kinds: map[string]*kind{}, silent: map[string]bool{}}
	serial := 0
	for i := range n {
		env := &mail.Envelope{From: mail.Address{Local: fmt.Sprintf("sender%d", i%50), Domain: home}}
		if i%50 == 49 {
			env.From = mail.Address{}
		}
		for range 1 + random.IntN(10)/9 {
			d := w.domains[random.IntN(len(w.domains))]
			for range 1 + random.IntN(10)/8 {
				serial++
				a := mail.Address{Local: fmt.Sprintf("s%d", serial), Domain: d.name}
				if d.kind == nil {
					a.Local = fmt.Sprintf("w%d", serial)
					p.healthy++
				}
				p.kinds[a.String()], p.silent[a.String()] = d.kind, env.From.IsNull()
				env.Recipients = append(env.Recipients, mail.Recipient{Address: a})
			}
		}
		p.messages = append(p.messages, env)
	}
	return p
}

// well returns a copy of the part of p that is for healthy domains.
func (p *post) well() *post {
	q := &post{kinds: map[string]*kind{}, silent: p.silent, healthy: p.healthy}
	for _, env := range p.messages {
		e := &mail.Envelope{From: env.From}
		for _, r := range env.Recipients {
			if a := r.Address.String(); p.kinds[a] == nil {
				q.kinds[a] = nil
				e.Recipients = append(e.Recipients, r)
			}
		}
		if len(e.Recipients) > 0 {
			q.messages = append(q.messages, e)
		}
	}
	return q
}

// submit puts the messages in the queue, as that many clients would.
func (p *post) submit(r *relay) {
	var all sync.WaitGroup
	pending := make([]mail.Pending, len(p.messages))
	for c := range 50 {
		all.Go(func() {
			for i := c; i < len(p.messages); i += 50 {
				env := p.messages[i]
				env.ID, env.Received = mail.NewID(mail.NewConnectionID(), 1), time.Now()
				content := mail.Memory{fmt.Appendf(nil, "Subject: message %d\r\n\r\n%s\r\n", i, strings.Repeat("x", 1000))}
				if err := r.queue.Put(env, content); err != nil {
					r.t.Error(err)
					return
				}
				pending[i] = mail.NewPending(env, content.Size())
			}
		})
	}
	all.Wait()
	for _, m := range pending {
		r.out.Enqueue(m)
	}
}

// fates counts what has become of each address, and says what those in the queue
// wait for. It is exact when nothing moves meanwhile.
func fates(w *world, r *relay, lost map[string]bool) (all, last map[string]string) {
	all, last = map[string]string{}, map[string]string{}
	for _, s := range w.servers {
		for _, x := range s.Messages() {
			if isReport(x.From, x.Rcpts[0].Address) {
				for _, a := range reported(x.Content) {
					all[a] += string(told)
				}
				continue
			}
			for _, a := range x.Accepted() {
				all[a] += string(taken)
			}
		}
	}
	for a := range lost {
		all[a] += string(told)
	}
	var reports []mail.ID
	r.queue.Walk(func(p mail.Pending) bool {
		for _, to := range p.Recipients {
			a := to.Address.String()
			if isReport(p.From.String(), a) {
				reports = append(reports, p.ID)
				continue
			}
			all[a] += string(waiting)
			last[a] = to.Last
		}
		return true
	})
	for _, id := range reports { // who waits for a DSN that is in the queue will be told
		b, err := r.content(id)
		if errors.Is(err, store.ErrUnknown) {
			continue // delivered meanwhile
		}
		if err != nil {
			r.t.Error(err)
			continue
		}
		for _, a := range reported(b) {
			all[a] += string(told)
		}
	}
	return all, last
}

// content reads a queued message. It may be delivered between any two steps.
func (r *relay) content(id mail.ID) ([]byte, error) {
	_, c, err := r.queue.Load(id)
	if err != nil {
		return nil, err
	}
	in, err := c.Open()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(in)
	return b, errors.Join(err, in.Close())
}

func isReport(from, to string) bool { return from == "" && strings.HasSuffix(to, "@"+home) }

// reasons tells what the recipients in a queue that is at work wait for.
func (r *relay) reasons() map[string]string {
	var all []mail.Pending
	r.queue.Walk(func(p mail.Pending) bool {
		all = append(all, p)
		return true
	})
	why := map[string]string{}
	for _, p := range all {
		waits := r.out.Explain(p.ID)
		for _, to := range p.Recipients {
			for _, wait := range waits {
				if slices.Contains(wait.Recipients, to.Index) {
					why[to.Address.String()] = wait.Reason
				}
			}
		}
	}
	return why
}

// reported returns the addresses that a DSN says have failed.
func reported(content []byte) []string {
	var all []string
	for line := range strings.Lines(string(content)) {
		if a, ok := strings.CutPrefix(line, "Final-Recipient: rfc822;"); ok {
			all = append(all, strings.TrimSpace(a))
		}
	}
	return all
}

// unreported returns the addresses that r gave up without a DSN, as its log says.
func (p *post) unreported(r *relay) map[string]bool {
	all := map[string]bool{}
	for _, e := range r.logs.FilterMessage("failed").All() {
		for _, a := range strings.FieldsFunc(fmt.Sprint(e.ContextMap()["to"]), func(c rune) bool { return strings.ContainsRune("[]<>, ", c) }) {
			if p.silent[a] {
				all[a] = true
			}
		}
	}
	return all
}

// account checks that every recipient has exactly one fate. With why it must be
// one of its kind, and those in the queue must have been there for a reason.
func (p *post) account(t *testing.T, step string, w *world, r *relay, lost map[string]bool, why map[string]string) {
	t.Helper()
	got, last := fates(w, r, lost)
	final := why != nil
	tally := map[string]map[string]int{}
	wrong := 0
	complain := func(format string, args ...any) {
		t.Helper()
		if wrong++; wrong <= 20 {
			t.Errorf(step+": "+format, args...)
		}
	}
	for a, k := range p.kinds {
		name, may := "well", string(taken)
		if k != nil {
			name, may = k.name, k.fates
		}
		f := got[a]
		if tally[name] == nil {
			tally[name] = map[string]int{}
		}
		tally[name][f]++
		switch {
		case len(f) != 1:
			complain("%s has the fates %q, want one", a, f)
		case final && !w.healed.Load() && !strings.Contains(may, f):
			complain("%s has the fate %s, want one of %q; %s; %s", a, f, may, last[a], why[a])
		case final && w.healed.Load() && f == string(waiting):
			complain("%s waits though everything is well: %s; %s", a, last[a], why[a])
		case final && f == string(waiting) && (why[a] == "" || why[a] == "ready"):
			complain("%s waits for no reason: %q", a, why[a])
		}
		if name == "users" && final && (f == string(told)) != unknownUser(a) {
			complain("%s: %s", a, f)
		}
	}
	for a := range got {
		if _, ours := p.kinds[a]; !ours {
			complain("%s was never sent to", a)
		}
	}
	if wrong > 20 {
		t.Errorf("%s: %d more", step, wrong-20)
	}
	for _, name := range slices.Sorted(maps.Keys(tally)) {
		t.Logf("%s: %-16s %v", step, name, tally[name])
	}
}
