// Package mailq is the operations on the queue of messages: the rows of control's
// table with their functions. A new one is a row in Operations and its function.
//
//	Local        the queue, its deliveries and the daemon, as seen from this process
//	Operations   what can be asked of a Local
//	Open         the operations of a running daemon, or else on its files
//
// Memory does not grow with the queue: lists and contents are streamed, actions
// take a batch of messages at a time, the destinations that are counted and the
// walks at a time are capped.
package mailq

import (
	"cmp"
	"context"
	"errors"
	"io"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/control"
	"tarishi/internal/control/filter"
	"tarishi/internal/control/view"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/outbound"
	"tarishi/internal/schedule"
	"tarishi/internal/store"
	"tarishi/internal/store/disk"
)

// Queue is where the messages are; *disk.Queue is one.
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
	FlushMessages(ids ...mail.ID) int
	Suspensions() map[string]schedule.Suspension
	Active() map[mail.ID][]int
	Sites(match func(site string) bool) map[string]bool
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
	// Configuration returns the state of its configuration; nil: it follows none.
	Configuration() *view.Configuration
	// Reload puts in force what the files of the configuration say now.
	Reload(ctx context.Context) (*view.Reload, error)
}

// Caps on the memory that a request takes.
const (
	maxWalks   = 4       // at a time: the queue takes a snapshot of its index for each
	maxDomains = 100_000 // counted by name
	maxHeader  = 1 << 20 // bytes shown of a header section
)

// Local is a queue in this process. Its methods may be called from any goroutine.
type Local struct {
	queue    Queue
	outbound Outbound // nil: the daemon does not run
	daemon   Daemon   // nil: nothing is known of it
	log      *zap.Logger
	now      func() time.Time
	walks    chan struct{}
}

// New returns a Local on q. Without an outbound (nil) the daemon does not run: what
// needs it fails with control.ErrStopped.
func New(q Queue, o Outbound, log *zap.Logger) *Local {
	if log == nil {
		log = zap.NewNop()
	}
	return &Local{queue: q, outbound: o, log: log, now: time.Now, walks: make(chan struct{}, maxWalks)}
}

// Watch adds the state of d to the totals. It is for before the first request.
func (l *Local) Watch(d Daemon) { l.daemon = d }

// Open returns the operations on the queue in dir: those of the daemon that runs
// there, or else on its files, which are only read. What cannot be read in them is
// reported to stderr.
func Open(ctx context.Context, dir string, stderr io.Writer) (c control.Caller, files bool, err error) {
	daemon, err := control.Dial(ctx, dir)
	if err == nil {
		return daemon, false, nil
	}

	// Any other error may be of a daemon that runs, and changes its files meanwhile.
	if !errors.Is(err, control.ErrStopped) {
		return nil, false, err
	}
	q, err := disk.OpenReadOnly(disk.Options{Dir: dir, Log: zap.New(maillog.NewCore(maillog.Settings{Level: "error"}, stderr))})
	if err != nil {
		return nil, false, err
	}
	return &control.Table{Operations: New(q, nil, nil).Operations(), Release: q.Close}, true, nil
}

// walkQueue calls fn with every message until it fails or ctx ends.
func (l *Local) walkQueue(ctx context.Context, fn func(mail.Pending) error) error {
	// Waiting would pile up clients; they can ask again.
	select {
	case l.walks <- struct{}{}:
		defer func() { <-l.walks }()
	default:
		return control.ErrBusy
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

// errEnough ends a walk that needs no more messages.
var errEnough = errors.New("enough")

// snapshot is what a filter with these arguments has to know at this moment.
func (l *Local) snapshot(a control.Arguments) filter.View {
	v := filter.View{Now: l.now()}
	if l.outbound == nil {
		return v
	}
	v.Sites = l.outbound.Sites

	// Both take outbound's lock for a look at all attempts or domains.
	if a.Text("state") != "" {
		v.Active, v.Suspended = l.outbound.Active(), map[string]bool{}
		for domain := range l.outbound.Suspensions() {
			v.Suspended[domain] = true
		}
	}
	return v
}

// translateError turns the queue's word for a message that is not there into ours.
func translateError(err error) error {
	if errors.Is(err, store.ErrUnknown) {
		return control.ErrUnknown
	}
	return err
}

// findError returns why Find does not find a message.
func (l *Local) findError(id mail.ID) error {
	_, _, err := l.queue.Load(id)
	return cmp.Or(translateError(err), control.ErrUnknown)
}

// requireMessage fails if a message is not in the queue, or cannot be read.
func (l *Local) requireMessage(id mail.ID) error {
	if _, ok := l.queue.Find(id); !ok {
		return l.findError(id)
	}
	return nil
}
