package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/outbound"
	"tarishi/internal/schedule"
	"tarishi/internal/store"
)

// Queue is where the messages are; every store.Store is one.
type Queue interface {
	Walk(fn func(mail.Pending) bool)
	Find(id mail.ID) (mail.Pending, bool)
	Load(id mail.ID) (*mail.Envelope, mail.Content, error)
	Remove(id mail.ID) error
	Stat() store.Stat
	Healthy() error
	Unreadable() store.Unreadable
	WalkUnreadable(fn func(id mail.ID, reason string) bool)
}

// Outbound delivers them; *outbound.Outbound is one.
type Outbound interface {
	Flush(domain string) int
	FlushMessage(id mail.ID) int
	Suspensions() map[string]schedule.Suspension
	Forget(ids ...mail.ID)
	Hold(id mail.ID, recipients []int) error
	Release(id mail.ID, recipients []int) error
	Explain(id mail.ID) []outbound.Waiting
	Destinations(limit int) []schedule.DestinationStat
	Counts() outbound.Counts
	Stat() schedule.Stat
}

// Daemon is the process that works on the queue; *server.Server is one.
type Daemon interface {
	Stopping() bool
	// Notes says what an administrator should know and Healthy does not: one
	// sentence each.
	Notes() []string
}

// Caps on the memory that a request takes.
const (
	maxWalks   = 4       // at a time: the queue takes a snapshot of its index for each
	maxDomains = 100_000 // counted by name
	maxHeader  = 1 << 20 // bytes shown of a header section
)

// Local is Commands on a queue in this process. Its methods may be called from
// any goroutine.
type Local struct {
	queue    Queue
	outbound Outbound
	daemon   Daemon // nil: nothing is known of it
	log      *zap.Logger
	walks    chan struct{}
	close    func() error
}

var _ Commands = (*Local)(nil)

// NewLocal returns Commands on q. Without an outbound (nil) the daemon does not
// run: all but Stat, List, Show and Content fail with ErrStopped.
func NewLocal(q Queue, o Outbound, log *zap.Logger) *Local {
	if log == nil {
		log = zap.NewNop()
	}
	return &Local{queue: q, outbound: o, log: log, walks: make(chan struct{}, maxWalks)}
}

// Watch has Stat tell of d. It is for before the first request.
func (l *Local) Watch(d Daemon) { l.daemon = d }

// Close implements Commands.
func (l *Local) Close() error {
	if l.close == nil {
		return nil
	}
	return l.close()
}

// Stat implements Commands.
func (l *Local) Stat(ctx context.Context, top int) (*Stat, error) {
	s := &Stat{}
	if top > 0 {
		t := tally{domains: map[string]*count{}}
		err := l.walk(ctx, func(p mail.Pending) error {
			if s.Oldest.IsZero() || p.Received.Before(s.Oldest) {
				s.Oldest = p.Received
			}
			t.add(p)
			return nil
		})
		if err != nil {
			return nil, err
		}
		s.Held = t.held
		s.Destinations, s.Others = t.top(top)
	}
	// After the walk: of a message in the spool the queue knows no more than that
	// it is there, until somebody has read its state.
	q := l.queue.Stat()
	s.Messages, s.Recipients, s.Bytes = q.Messages, q.Recipients, q.Bytes
	unreadable := l.queue.Unreadable()
	s.Unreadable = unreadable.Messages
	if l.outbound != nil {
		s.Running = true
		d := l.deliveries()
		n := l.outbound.Counts()
		s.Deliveries, s.DSNs, s.Health = &d, &DSNs{Queued: n.DSN, Failed: n.DSNFailed, Double: n.Double}, "ok"
		if err := cmp.Or(l.queue.Healthy(), unreadable.Err()); err != nil {
			s.Health = err.Error()
		}
	}
	if l.daemon != nil {
		s.Stopping, s.Notes = l.daemon.Stopping(), l.daemon.Notes()
		if s.Stopping {
			s.Health = "stopping"
		}
	}
	return s, nil
}

// deliveries counts those that are due and wait for a suspended destination apart
// from those that are ready.
func (l *Local) deliveries() Deliveries {
	st := l.outbound.Stat()
	d := Deliveries{Waiting: st.Waiting, Ready: st.Ready, Running: st.Running}
	for _, s := range l.outbound.Suspensions() {
		d.Suspended += s.Ready
	}
	d.Suspended = min(d.Suspended, d.Ready) // the one was counted before the other
	d.Ready -= d.Suspended
	return d
}

// suspensions are the suspended destinations, none where no daemon runs.
func (l *Local) suspensions() map[string]schedule.Suspension {
	if l.outbound == nil {
		return nil
	}
	return l.outbound.Suspensions()
}

// note tells of the recipients that are due when the next probe of their
// suspended destination is.
func (m *Message) note(suspended map[string]schedule.Suspension) {
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if s, ok := suspended[r.Address.Host()]; ok && r.Status == Pending && r.Next.Before(s.Until) {
			r.Probe = s.Until.UTC()
		}
	}
}

// walk calls fn with every message until it fails or ctx ends.
func (l *Local) walk(ctx context.Context, fn func(mail.Pending) error) error {
	select {
	case l.walks <- struct{}{}:
		defer func() { <-l.walks }()
	default:
		return ErrBusy
	}
	var err error
	l.queue.Walk(func(p mail.Pending) bool {
		if err = ctx.Err(); err == nil {
			err = fn(p)
		}
		return err == nil
	})
	return err
}

// errEnough ends a walk that has found what it looked for.
var errEnough = errors.New("enough")

// List implements Commands.
func (l *Local) List(ctx context.Context, f Filter, fn func(*Message) error) error {
	match, err := f.matcher()
	if err != nil {
		return err
	}
	left := f.Limit
	suspended := l.suspensions()
	pass := func(m *Message) error {
		if err := fn(m); err != nil {
			return err
		}
		if left--; left == 0 {
			return errEnough
		}
		return nil
	}
	err = l.walk(ctx, func(p mail.Pending) error {
		if !match(p) {
			return nil
		}
		m := describe(p)
		m.note(suspended)
		return pass(m)
	})
	if err == nil && f.Domain == "" && f.Sender == "" {
		l.queue.WalkUnreadable(func(id mail.ID, reason string) bool {
			if err = ctx.Err(); err == nil {
				err = pass(&Message{ID: id, Recipients: []Recipient{}, Unreadable: reason})
			}
			return err == nil
		})
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func describe(p mail.Pending) *Message {
	m := &Message{ID: p.ID, From: p.From, Received: p.Received, Size: p.Size, Recipients: make([]Recipient, len(p.Recipients))}
	for i, r := range p.Recipients {
		m.Recipients[i] = pending(r)
	}
	return m
}

func pending(r mail.PendingRecipient) Recipient {
	return Recipient{Index: r.Index, Address: r.Address, Status: Pending, Held: r.Held, Attempts: r.Attempts, Next: r.Next, Last: r.Last}
}

// load finds a message in the queue.
func (l *Local) load(id mail.ID) (*mail.Envelope, mail.Content, error) {
	if !id.Valid() {
		return nil, nil, fmt.Errorf("%w: %q is no ID", ErrInvalid, id)
	}
	env, c, err := l.queue.Load(id)
	return env, c, known(err)
}

// known turns the queue's word for a message that is not there into ours.
func known(err error) error {
	if errors.Is(err, store.ErrUnknown) {
		return ErrUnknown
	}
	return err
}

// Show implements Commands.
func (l *Local) Show(_ context.Context, id mail.ID) (*Message, error) {
	env, c, err := l.load(id)
	if err != nil {
		return nil, err
	}
	p, ok := l.queue.Find(id)
	if !ok {
		return nil, ErrUnknown
	}
	m := &Message{
		ID: id, From: env.From, Received: env.Received, Size: c.Size(), Recipients: make([]Recipient, len(env.Recipients)),
		Body: env.Body, UTF8: env.UTF8, RequireTLS: env.RequireTLS, Return: env.Return, EnvelopeID: env.EnvelopeID,
	}
	for i, r := range env.Recipients {
		m.Recipients[i] = Recipient{Index: i, Address: r.Address, Status: Settled}
	}
	for _, r := range p.Recipients {
		m.Recipients[r.Index] = pending(r)
	}
	for i, r := range env.Recipients {
		m.Recipients[i].Notify, m.Recipients[i].ORCPT = r.Notify, r.ORCPT
	}
	m.note(l.suspensions())
	if m.Header, m.HeaderCut, err = header(c); err != nil {
		return nil, known(err)
	}
	return m, nil
}

// header reads the header section of a message; cut: it is longer than
// maxHeader.
func header(c mail.Content) (section string, cut bool, err error) {
	r, err := c.Open()
	if err != nil {
		return "", false, err
	}
	defer r.Close()
	b := make([]byte, 0, min(c.Size(), 8<<10))
	for {
		had := len(b)
		b = slices.Grow(b, max(had, 4<<10))
		n, err := io.ReadFull(r, b[had:min(cap(b), maxHeader)])
		b = b[:had+n]
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return "", false, err
		}
		if _, size, complete := mail.ParseHeader(b); complete || end || len(b) >= maxHeader {
			return string(b[:size]), !complete && !end, nil
		}
	}
}

// Content implements Commands.
func (l *Local) Content(_ context.Context, id mail.ID) (io.ReadCloser, int64, error) {
	_, c, err := l.load(id)
	if err != nil {
		return nil, 0, err
	}
	r, err := c.Open()
	return r, c.Size(), known(err)
}

// Flush implements Commands.
func (l *Local) Flush(_ context.Context, domain string) (int, error) {
	if domain != "" {
		if _, ok := mail.ID(domain).Key(); ok {
			return 0, fmt.Errorf("%w: %s is a message's ID and no domain", ErrInvalid, domain)
		}
		host, err := canonical(domain)
		if err != nil {
			return 0, err
		}
		domain = host
	}
	if l.outbound == nil {
		return 0, ErrStopped
	}
	return l.outbound.Flush(domain), nil
}

// FlushMessage implements Commands.
func (l *Local) FlushMessage(_ context.Context, id mail.ID) (int, error) {
	if err := l.present(id); err != nil {
		return 0, err
	}
	return l.outbound.FlushMessage(id), nil
}

// Remove implements Commands. What was removed is logged.
func (l *Local) Remove(_ context.Context, id mail.ID) error {
	if !id.Valid() {
		return fmt.Errorf("%w: %q is no ID", ErrInvalid, id)
	}
	if l.outbound == nil {
		return ErrStopped
	}
	p, found := l.queue.Find(id) // before it is gone; a damaged one is removed without
	if err := l.queue.Remove(id); err != nil {
		return known(err)
	}
	l.outbound.Forget(id)
	fields := []zap.Field{zap.String("uuid", string(id))}
	if found {
		fields = append(fields, zap.String("from", p.From.Path()), zap.Int("recipients", len(p.Recipients)), zap.Int64("bytes", p.Size))
	}
	l.log.Info("message removed on request", fields...)
	return nil
}

// tally counts what is pending for each destination.
type tally struct {
	messages int
	held     int // recipients
	domains  map[string]*count
	rest     count // of the domains beyond maxDomains
}

type count struct {
	messages, recipients int
	held                 int // recipients
	last                 int // tally.messages when it was counted: a message counts once
}

func (t *tally) add(p mail.Pending) {
	t.messages++
	for _, r := range p.Recipients {
		host := r.Address.Host()
		c := t.domains[host]
		switch {
		case c != nil:
		case len(t.domains) < maxDomains:
			c = &count{}
			t.domains[strings.Clone(host)] = c // it is a piece of the whole envelope
		default:
			c = &t.rest
		}
		c.recipients++
		if r.Held {
			c.held++
			t.held++
		}
		if c.last != t.messages {
			c.last = t.messages
			c.messages++
		}
	}
}

// top returns the n destinations with the most messages, and the sums of all
// others, nil if there are none.
func (t *tally) top(n int) ([]Destination, *Destination) {
	all := make([]Destination, 0, len(t.domains))
	for host, c := range t.domains {
		all = append(all, Destination{Domain: host, Messages: c.messages, Recipients: c.recipients, Held: c.held})
	}
	slices.SortFunc(all, func(a, b Destination) int {
		if a.Messages != b.Messages {
			return b.Messages - a.Messages
		}
		return strings.Compare(a.Domain, b.Domain)
	})
	n = min(n, len(all))
	others := Destination{Messages: t.rest.messages, Recipients: t.rest.recipients, Held: t.rest.held}
	for _, d := range all[n:] {
		others.Messages += d.Messages
		others.Recipients += d.Recipients
		others.Held += d.Held
	}
	if others == (Destination{}) {
		return all[:n:n], nil
	}
	return all[:n:n], &others
}
