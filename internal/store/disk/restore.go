package disk

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

	"tarishi/internal/mail"
	"tarishi/internal/store"
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

var errNothing = errors.New("nothing in it can be read as a message")

// Restore brings back what corrupt/ holds and can be read by now: whole messages
// in pieces of segments, in segments that the disk gives again, in records, and in
// pairs of ID.json and ID.eml that match. Recipients that are settled, as far as
// any file there knows, stay settled. Files of which all was brought back are moved
// to corrupt/recovered/; the others stay, with the reason. Restore is for a queue
// from which nothing is delivered meanwhile. If it is cut short it is to be repeated before
// anything is delivered. A dry run changes nothing, and may be made on a queue of
// OpenReadOnly.
func (q *Store) Restore(ctx context.Context, dryRun bool) ([]Restoration, error) {
	if q.look && !dryRun {
		return nil, store.ErrReadOnly
	}
	r := &restorer{q: q, dryRun: dryRun, settled: settlements{}, changes: map[mail.ID][]kindOfChange{}, ranges: map[uint32][]span{}, taken: map[mail.ID]bool{}}
	names, err := q.spool.Quarantined()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := r.learn(name); err != nil && settledName.MatchString(name) {
			return nil, fmt.Errorf("corrupt/%s: %w", name, err) // other files give the same error again
		}
	}
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
	q       *Store
	dryRun  bool
	settled settlements
	changes map[mail.ID][]kindOfChange // in pieces of segments
	ranges  map[uint32][]span          // of segments, that could not be read
	taken   map[mail.ID]bool           // brought back by now
	done    orphans                    // the same, as lines of a settled file
}

type kindOfChange struct {
	journal.Kind
	change
}

type span struct{ from, to int64 }

var (
	pieceName   = regexp.MustCompile(`^(\d{8,10})\.log@(\d+)\+(\d+)(\.\d+)?$`)
	segmentName = regexp.MustCompile(`^(\d{8,10})\.log(\.\d+)?$`)
	settledName = regexp.MustCompile(`^(.+\.)?settled(\.\d+)?$`)
	recordName  = regexp.MustCompile(`^(.+)\.record(\.\d+)?$`)
)

// learn reads what a file says of settled recipients, and which part of a segment
// it was.
func (r *restorer) learn(name string) error {
	visit := func(rec journal.Record) {
		c, err := decodeChange(rec.Kind, rec.Payload)
		switch {
		case rec.Kind == kindMessage || err != nil:
		case rec.Kind == kindDone:
			r.settled.add(c.id, nil)
		case rec.Kind == kindSettled:
			r.settled.add(c.id, c.recipients)
		default:
			r.changes[c.id] = append(r.changes[c.id], kindOfChange{rec.Kind, c})
		}
	}
	if settledName.MatchString(name) {
		f, err := r.q.spool.OpenQuarantined(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return r.settled.read(io.NewSectionReader(f, 0, math.MaxInt64))
	}
	if m := pieceName.FindStringSubmatch(name); m != nil {
		number, base, length := parsePiece(m)
		r.ranges[number] = append(r.ranges[number], span{base, base + length})
		return r.scan(name, base, visit)
	}
	if segmentName.MatchString(name) {
		return r.scan(name, 0, visit)
	}
	return nil
}

func parsePiece(m []string) (number uint32, base, length int64) {
	n, _ := strconv.ParseUint(m[1], 10, 32)
	base, _ = strconv.ParseInt(m[2], 10, 64)
	length, _ = strconv.ParseInt(m[3], 10, 64)
	return uint32(n), base, length
}

// scan passes the records in a piece of a segment to visit.
func (r *restorer) scan(name string, base int64, visit func(journal.Record)) error {
	f, err := r.q.spool.OpenQuarantined(name)
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
		res.Err = r.record(&res)
	case filepath.Ext(name) == ".json":
		res.Err = r.pair(&res)
	default: // ID.eml and ID.new belong to the others
		id := mail.ID(strings.TrimSuffix(name, filepath.Ext(name)))
		if !id.Valid() || r.taken[id] || r.q.spool.Kept(string(id)+".json") || r.q.spool.Kept(string(id)+".record") {
			return res, false
		}
		res.Err = errors.New("nothing says for whom it is")
	}
	return res, true
}

// pieces brings back the messages of a piece of a segment whose records touch one
// of the spans.
func (r *restorer) pieces(res *Restoration, base int64, spans []span) {
	res.Err = r.scan(res.Name, base, func(rec journal.Record) {
		const header = 16 // bytes before the payload
		from, to := int64(rec.Location.Offset)-header, int64(rec.Location.Offset)+int64(rec.Location.Length)
		touched := false
		for _, s := range spans {
			touched = touched || from < s.to && to > s.from
		}
		if rec.Kind == kindMessage && touched {
			if err := r.message(res, rec.Payload); err != nil && res.Err == nil {
				res.Err = err
			}
		}
	})
	if res.Err == nil && len(res.Messages)+res.Known == 0 {
		res.Err = errNothing
	}
}

// message brings back a message from its record.
func (r *restorer) message(res *Restoration, payload []byte) error {
	m, err := decodeMessage(payload, int64(len(payload)))
	if err != nil {
		return err
	}
	env, err := decodeEnvelope(payload[:m.offset()], m)
	if err != nil {
		return err
	}
	var c mail.Content = mail.Memory{payload[m.offset():]}
	if m.spooled {
		if c, err = r.content(m.id, m.size, m.sum); err != nil {
			return err
		}
	} else if m.sum.Known && spool.SumOf(payload[m.offset():]) != m.sum {
		return fmt.Errorf("%w: the content's checksum does not match", errDamaged)
	}
	return r.put(res, env, c, r.changes[m.id])
}

// record is message for a file that holds one.
func (r *restorer) record(res *Restoration) error {
	f, err := r.q.spool.OpenQuarantined(res.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	payload, err := io.ReadAll(io.NewSectionReader(f, 0, journal.MaxRecord))
	if err != nil {
		return err
	}
	return r.message(res, payload)
}

// pair brings back a message from its state and its content.
func (r *restorer) pair(res *Restoration) error {
	id := mail.ID(strings.TrimSuffix(res.Name, ".json"))
	f, err := r.q.spool.OpenQuarantined(res.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, math.MaxInt64))
	if err != nil {
		return err
	}
	st, err := spool.DecodeState(id, b)
	if err != nil {
		return err
	}
	c, err := r.content(id, st.Size, st.Content)
	if err != nil {
		return err
	}
	var changes []kindOfChange
	settled := []int{}
	for i, s := range st.Recipients {
		c := change{id: id, recipients: []int{i}, attempts: s.Attempts, last: s.Last}
		switch {
		case s.Status == spool.Settled:
			settled = append(settled, i)
			continue
		case s.Held:
			changes = append(changes, kindOfChange{kindHeld, c})
		}
		if s.Next != nil {
			c.next = millis(*s.Next)
		}
		if s.Attempts > 0 || s.Next != nil {
			changes = append(changes, kindOfChange{kindDeferred, c})
		}
	}
	if len(settled) > 0 {
		r.settled.add(id, settled)
	}
	return r.put(res, st.Envelope, c, changes)
}

// content returns the file in corrupt/ with the content of a message, if it is
// what was accepted.
func (r *restorer) content(id mail.ID, size int64, want spool.Sum) (mail.Content, error) {
	err := error(fs.ErrNotExist)
	for _, ext := range []string{".eml", ".new"} {
		var f vfs.File
		if f, err = r.q.spool.OpenQuarantined(string(id) + ext); err != nil {
			continue
		}
		var sum spool.Summer
		n, e := io.Copy(&sum, io.NewSectionReader(f, 0, math.MaxInt64))
		f.Close()
		switch {
		case e != nil:
			err = e
		case n != size || want.Known && sum.Sum() != want:
			err = fmt.Errorf("%w: its content is another one", errDamaged)
		default:
			return keptContent{r.q.spool, string(id) + ext, size}, nil
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
	return newReader(f, 0, c.size, func() { f.Close() }), nil
}

// put brings a message back, unless it is in the queue or done with.
func (r *restorer) put(res *Restoration, env *mail.Envelope, c mail.Content, changes []kindOfChange) error {
	settled := []int{}
	for i := range r.settled[env.ID] {
		if i < len(env.Recipients) {
			settled = append(settled, i)
		}
	}
	if r.settled.all(env.ID) || len(settled) == len(env.Recipients) {
		res.Known++
		return nil
	}
	_, err := r.q.where(env.ID)
	known := err == nil || r.taken[env.ID]
	switch {
	case known:
		res.Known++
	default:
		res.Messages = append(res.Messages, env.ID)
	}
	if r.dryRun {
		r.taken[env.ID] = true
		return nil
	}
	if !known {
		if err := r.q.Put(env, c); err != nil {
			return err
		}
		r.done.add(env.ID, nil)
	}
	r.taken[env.ID] = true
	if err := r.q.Settle(env.ID, settled); err != nil || known {
		return err // what else is known of one in the queue counts more
	}
	for _, ch := range changes {
		if err := r.apply(env, ch); err != nil {
			return err
		}
	}
	return nil
}

// apply repeats what a record said of recipients of a message that is back.
func (r *restorer) apply(env *mail.Envelope, ch kindOfChange) error {
	for _, i := range ch.recipients {
		if i >= len(env.Recipients) {
			return fmt.Errorf("%w: message %s has no recipient %d", errRecord, env.ID, i)
		}
	}
	switch ch.Kind {
	case kindDeferred:
		next := time.Time{}
		if ch.next != 0 {
			next = time.UnixMilli(ch.next)
		}
		return r.q.Defer(env.ID, ch.recipients, ch.attempts, next, ch.last)
	case kindHeld:
		return r.q.Hold(env.ID, ch.recipients)
	case kindReleased:
		return r.q.Release(env.ID, ch.recipients)
	}
	return nil // notes: plugins begin anew
}

// finish makes durable what was brought back, and moves files out of the way that
// are not needed any more.
func (r *restorer) finish(ctx context.Context, all []Restoration) ([]Restoration, error) {
	if r.dryRun {
		return all, ctx.Err()
	}
	err := r.q.Sync()
	if err == nil {
		err = r.q.keepOrphans(&r.done, extSettled, "brought back")
	}
	if err != nil {
		return all, err
	}
	for i := range all {
		res := &all[i]
		if res.Err != nil {
			continue
		}
		res.Err = r.q.spool.Recovered(res.Name)
		for _, id := range res.Messages {
			for _, ext := range []string{".eml", ".new"} {
				if r.q.spool.Kept(string(id) + ext) {
					res.Err = errors.Join(res.Err, r.q.spool.Recovered(string(id)+ext))
				}
			}
		}
	}
	return all, errors.Join(r.q.spool.Sync(), ctx.Err())
}
