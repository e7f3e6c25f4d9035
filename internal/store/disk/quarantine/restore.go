package quarantine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk/index"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
	"tarishi/internal/vfs"
)

// Restoration is what Restore did with one file in corrupt/.
type Restoration struct {
	Name     string
	Messages []mail.ID // brought back, or with a dry run: that would be
	Known    int       // messages in it that are in the queue, or done with
	Err      error     // why the file stays; nil: it was moved to corrupt/recovered/
}

// Store is what messages are brought back to. It has no use for a message twice.
type Store interface {
	Contains(id mail.ID) bool
	Put(env *mail.Envelope, c mail.Content) error
	Settle(id mail.ID, recipients []int) error
	Defer(id mail.ID, recipients []int, attempts int, next time.Time, last string) error
	Hold(id mail.ID, recipients []int) error
	Release(id mail.ID, recipients []int) error
	Sync() error
}

// Options is what Restore works with.
type Options struct {
	Spool  *spool.Spool
	Store  Store
	DryRun bool // change nothing
	Log    *zap.Logger
}

var (
	errNothing = errors.New("nothing in it can be read as a message")
	errDamaged = errors.New("message is damaged")
)

// Restore brings back what corrupt/ holds and can be read by now: whole messages
// in pieces of segments, in segments that the disk gives again, in records, and in
// pairs of ID.json and ID.eml that match. Recipients that are settled, as far as
// any file there knows, stay settled. Files that were brought back whole are moved
// to corrupt/recovered/; the others stay, with the reason. Nothing may be delivered
// meanwhile. A Restore that was cut short is to be repeated before anything is.
func Restore(ctx context.Context, o Options) ([]Restoration, error) {
	r := &restorer{options: o, settled: settlements{}, changes: map[mail.ID][]kindOfChange{}, ranges: map[uint32][]span{}, taken: map[mail.ID]bool{}}
	names, err := o.Spool.Quarantined()
	if err != nil {
		return nil, err
	}

	// Settled recipients are learned from all files first, as any of them may hold a recipient
	// back that another one would bring.
	for _, name := range names {
		if err := r.learnFrom(name); err != nil && settledName.MatchString(name) {
			return nil, fmt.Errorf("corrupt/%s: %w", name, err) // other files give the same error again
		}
	}

	// Contents alone come last: those that a message needed are gone from the list by
	// then.
	var all []Restoration
	for _, contents := range []bool{false, true} { // last those that belong to others
		for _, name := range names {
			if ext := filepath.Ext(name); contents != (ext == ".eml" || ext == ".new") || ctx.Err() != nil {
				continue
			}
			if res, mine := r.restore(name); mine {
				all = append(all, res)
			}
		}
	}
	return r.finish(ctx, all)
}

// restorer is the state of Restore.
type restorer struct {
	options Options
	settled settlements
	changes map[mail.ID][]kindOfChange // in pieces of segments
	ranges  map[uint32][]span          // of segments, that could not be read
	taken   map[mail.ID]bool           // brought back by now
	done    Settled                    // the same, as a settled file
}

type kindOfChange struct {
	journal.Kind
	record.Change
}

type span struct{ from, to int64 }

var (
	pieceName   = regexp.MustCompile(`^(\d{8,10})\.log@(\d+)\+(\d+)(\.\d+)?$`)
	segmentName = regexp.MustCompile(`^(\d{8,10})\.log(\.\d+)?$`)
	settledName = regexp.MustCompile(`^(.+\.)?settled(\.\d+)?$`)
	recordName  = regexp.MustCompile(`^(.+)\.record(\.\d+)?$`)
)

// learnFrom reads what a file says of settled recipients, and which part of a segment
// it was.
func (r *restorer) learnFrom(name string) error {
	visit := func(rec journal.Record) {
		c, err := record.DecodeChange(rec.Kind, rec.Payload)
		switch {
		case rec.Kind == record.KindMessage || err != nil:
		case rec.Kind == record.KindDone:
			r.settled.addRecipients(c.ID, nil)
		case rec.Kind == record.KindSettled:
			r.settled.addRecipients(c.ID, c.Recipients)
		default:
			r.changes[c.ID] = append(r.changes[c.ID], kindOfChange{rec.Kind, c})
		}
	}

	// The lists of settled recipients are ours; everything else is a piece of a segment or
	// no help.
	if settledName.MatchString(name) {
		f, err := r.options.Spool.OpenQuarantined(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return r.settled.readLines(io.NewSectionReader(f, 0, math.MaxInt64))
	}

	// The place of a piece tells which records of a whole segment were damaged.
	if m := pieceName.FindStringSubmatch(name); m != nil {
		number, base, length := parsePiece(m)
		r.ranges[number] = append(r.ranges[number], span{base, base + length})
		return r.scanPiece(name, base, visit)
	}
	if segmentName.MatchString(name) {
		return r.scanPiece(name, 0, visit)
	}
	return nil
}

func parsePiece(m []string) (number uint32, base, length int64) {
	n, _ := strconv.ParseUint(m[1], 10, 32)
	base, _ = strconv.ParseInt(m[2], 10, 64)
	length, _ = strconv.ParseInt(m[3], 10, 64)
	return uint32(n), base, length
}

// scanPiece passes the records in a piece of a segment to visit.
func (r *restorer) scanPiece(name string, base int64, visit func(journal.Record)) error {
	f, err := r.options.Spool.OpenQuarantined(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return journal.ScanPiece(f, base, visit)
}

// restore brings back what one file holds; mine is false for one that only belongs
// to others.
func (r *restorer) restore(name string) (res Restoration, mine bool) {
	res.Name = name
	m := pieceName.FindStringSubmatch(name)

	// The name says how a file is to be read.
	switch {
	case settledName.MatchString(name):
		return res, false
	case m != nil:
		_, base, length := parsePiece(m)
		r.pieces(&res, base, []span{{base, base + length}})
	case segmentName.MatchString(name):
		number, _ := strconv.ParseUint(segmentName.FindStringSubmatch(name)[1], 10, 32)
		r.pieces(&res, 0, r.ranges[uint32(number)])
	case recordName.MatchString(name):
		res.Err = r.restoreRecord(&res)
	case filepath.Ext(name) == ".json":
		res.Err = r.restorePair(&res)
	default: // ID.eml and ID.new belong to the others
		id := mail.ID(strings.TrimSuffix(name, filepath.Ext(name)))
		if !id.Valid() || r.taken[id] || r.options.Spool.Kept(string(id)+".json") || r.options.Spool.Kept(string(id)+".record") {
			return res, false
		}
		res.Err = errors.New("nothing says for whom it is")
	}
	return res, true
}

// pieces brings back the messages of a piece of a segment if their records touch one
// of the spans.
func (r *restorer) pieces(res *Restoration, base int64, spans []span) {
	res.Err = r.scanPiece(res.Name, base, func(rec journal.Record) {
		const header = 16 // bytes before the payload
		from, to := int64(rec.Location.Offset)-header, int64(rec.Location.Offset)+int64(rec.Location.Length)
		touched := false
		for _, s := range spans {
			touched = touched || from < s.to && to > s.from
		}
		if rec.Kind == record.KindMessage && touched {
			if err := r.restoreMessage(res, rec.Payload); err != nil && res.Err == nil {
				res.Err = err
			}
		}
	})
	if res.Err == nil && len(res.Messages)+res.Known == 0 {
		res.Err = errNothing
	}
}

// restoreMessage brings back a message from its record.
func (r *restorer) restoreMessage(res *Restoration, payload []byte) error {
	m, err := record.DecodeMessage(payload, int64(len(payload)))
	if err != nil {
		return err
	}
	env, err := record.DecodeEnvelope(payload[:m.Offset()], m)
	if err != nil {
		return err
	}

	// The content is behind the envelope, or a file beside it.
	var c mail.Content = mail.Memory{payload[m.Offset():]}
	if m.Spooled {
		if c, err = r.content(m.ID, m.Size, m.Sum); err != nil {
			return err
		}
	} else if m.Sum.Known && spool.SumOf(payload[m.Offset():]) != m.Sum {
		return fmt.Errorf("%w: the content's checksum does not match", errDamaged)
	}
	return r.putBack(res, env, c, r.changes[m.ID])
}

// restoreRecord is message for a file that holds one.
func (r *restorer) restoreRecord(res *Restoration) error {
	f, err := r.options.Spool.OpenQuarantined(res.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	payload, err := io.ReadAll(io.NewSectionReader(f, 0, journal.MaxRecord))
	if err != nil {
		return err
	}
	return r.restoreMessage(res, payload)
}

// restorePair brings back a message from its state and its content.
func (r *restorer) restorePair(res *Restoration) error {
	id := mail.ID(strings.TrimSuffix(res.Name, ".json"))
	f, err := r.options.Spool.OpenQuarantined(res.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, math.MaxInt64))
	if err != nil {
		return err
	}

	// Both files must fit: the state says how long the content is, and its checksum.
	st, err := spool.DecodeState(id, b)
	if err != nil {
		return err
	}
	c, err := r.content(id, st.Size, st.Content)
	if err != nil {
		return err
	}

	// What the state says of the recipients is repeated as if records had said it, after
	// the message is in the queue again.
	var changes []kindOfChange
	settled := []int{}
	for i, s := range st.Recipients {
		c := record.Change{ID: id, Recipients: []int{i}, Attempts: s.Attempts, Last: s.Last}
		switch {
		case s.Status == spool.Settled:
			settled = append(settled, i)
			continue
		case s.Held:
			changes = append(changes, kindOfChange{record.KindHeld, c})
		}
		if s.Next != nil {
			c.Next = index.Millis(*s.Next)
		}
		if s.Attempts > 0 || s.Next != nil {
			changes = append(changes, kindOfChange{record.KindDeferred, c})
		}
	}
	if len(settled) > 0 {
		r.settled.addRecipients(id, settled)
	}
	return r.putBack(res, st.Envelope, c, changes)
}

// content returns the file in corrupt/ with the content of a message, if it is
// what was accepted.
func (r *restorer) content(id mail.ID, size int64, want spool.Sum) (mail.Content, error) {
	err := error(fs.ErrNotExist)
	for _, ext := range []string{".eml", ".new"} {
		var f vfs.File
		if f, err = r.options.Spool.OpenQuarantined(string(id) + ext); err != nil {
			continue
		}
		var sum spool.Summer

		// A content is believed only if it is as long as it was and has the checksum it
		// had.
		n, e := io.Copy(&sum, io.NewSectionReader(f, 0, math.MaxInt64))
		f.Close()
		switch {
		case e != nil:
			err = e
		case n != size || want.Known && sum.Sum() != want:
			err = fmt.Errorf("%w: its content is another one", errDamaged)
		default:
			return keptContent{r.options.Spool, string(id) + ext, size}, nil
		}
	}
	return nil, fmt.Errorf("the content of %s: %w", id, err)
}

// keptContent is the Content of a file in corrupt/.
type keptContent struct {
	spool *spool.Spool
	name  string
	size  int64
}

// Size implements mail.Content.
func (c keptContent) Size() int64 { return c.size }

// Open implements mail.Content.
func (c keptContent) Open() (io.ReadCloser, error) {
	f, err := c.spool.OpenQuarantined(c.name)
	if err != nil {
		return nil, err
	}
	return spool.NewReader(f, 0, c.size, f), nil
}

// putBack brings a message back, unless it is in the queue or done with.
func (r *restorer) putBack(res *Restoration, env *mail.Envelope, c mail.Content, changes []kindOfChange) error {
	settled := []int{}
	for i := range r.settled[env.ID] {
		if i < len(env.Recipients) {
			settled = append(settled, i)
		}
	}

	// A message for which nothing is left to do must not come back.
	if r.settled.isSettled(env.ID) || len(settled) == len(env.Recipients) {
		res.Known++
		return nil
	}

	// One that is in the queue already only learns of settled recipients.
	known := r.taken[env.ID] || r.options.Store.Contains(env.ID)
	switch {
	case known:
		res.Known++
	default:
		res.Messages = append(res.Messages, env.ID)
	}
	if r.options.DryRun {
		r.taken[env.ID] = true
		return nil
	}

	// From here on the store changes: first the message, then what became of it.
	if !known {
		if err := r.options.Store.Put(env, c); err != nil {
			return err
		}
		r.done.AddRecipients(env.ID, nil)
	}
	r.taken[env.ID] = true

	// Settled recipients come before anything that could have the message attempted.
	if err := r.options.Store.Settle(env.ID, settled); err != nil || known {
		return err // what else is known of one in the queue counts more
	}
	for _, ch := range changes {
		if err := r.applyChange(env, ch); err != nil {
			return err
		}
	}
	return nil
}

// applyChange repeats what a record said of recipients of a message that is back.
func (r *restorer) applyChange(env *mail.Envelope, ch kindOfChange) error {
	// A damaged record may name recipients that there are not.
	for _, i := range ch.Recipients {
		if i >= len(env.Recipients) {
			return fmt.Errorf("%w: message %s has no recipient %d", record.ErrMalformed, env.ID, i)
		}
	}
	switch ch.Kind {
	case record.KindDeferred:
		next := time.Time{}
		if ch.Next != 0 {
			next = time.UnixMilli(ch.Next)
		}
		return r.options.Store.Defer(env.ID, ch.Recipients, ch.Attempts, next, ch.Last)
	case record.KindHeld:
		return r.options.Store.Hold(env.ID, ch.Recipients)
	case record.KindReleased:
		return r.options.Store.Release(env.ID, ch.Recipients)
	}
	return nil // notes: plugins begin anew
}

// finish makes durable what was brought back, and moves files out of the way that
// are not needed any more.
func (r *restorer) finish(ctx context.Context, all []Restoration) ([]Restoration, error) {
	if r.options.DryRun {
		return all, ctx.Err()
	}

	// The list of what was brought back is durable before any file goes: a second run must
	// not bring it again.
	err := r.options.Store.Sync()
	if err == nil {
		err = r.done.KeepIn(r.options.Spool, SettledName, "brought back", r.options.Log)
	}
	if err != nil {
		return all, err
	}

	// Files with all of their messages back are moved out of the way, each with its content.
	for i := range all {
		res := &all[i]
		if res.Err != nil {
			continue
		}
		res.Err = r.options.Spool.Recovered(res.Name)
		for _, id := range res.Messages {
			for _, ext := range []string{".eml", ".new"} {
				if r.options.Spool.Kept(string(id) + ext) {
					res.Err = errors.Join(res.Err, r.options.Spool.Recovered(string(id)+ext))
				}
			}
		}
	}
	return all, errors.Join(r.options.Spool.Sync(), ctx.Err())
}
