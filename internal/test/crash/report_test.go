package crash

import (
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/mail"
	"tarishi/internal/vfs/crashfs"
)

var finalRecipient = regexp.MustCompile(`Final-Recipient: rfc822;(\S+)`)

// read notes whom a report names.
func (w *world) read(c mail.Content) error {
	r, err := c.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	for _, m := range finalRecipient.FindAllSubmatch(b, -1) {
		w.named[string(m[1])] = true
	}
	return nil
}

// The power fails, again and again, while failures wait to be reported: with
// others of their message, and with others of their sender. Every one is reported.
func TestReportsOverCrashes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { reportsOverCrashes(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func reportsOverCrashes(t *testing.T, rnd *rand.Rand) {
	p := &plant{
		t: t, world: &world{arrived: map[string]int{}, named: map[string]bool{}, hesitates: true},
		config: &destination.Settings{
			TempFailIntervals: []time.Duration{time.Minute, time.Minute, time.Hour}, MaxLifetime: 5 * 24 * time.Hour, DelayWarning: -1,
			DSNWait: 10 * time.Second, DSNRate: destination.Rate{Count: 3, Per: 10 * time.Minute},
		},
	}
	fs := crashfs.New()
	p.start(fs, spacious)
	var owed []string
	for range 12 {
		for range rnd.IntN(8) {
			p.n++
			env := &mail.Envelope{
				ID: mail.NewID(mail.NewConnectionID(), 1), From: mail.Address{Local: fmt.Sprint("s", p.n%2), Domain: "sender.test"}, Received: time.Now(),
			}
			for _, domain := range []string{"no.test", "later.test", "yes.test"} {
				env.Recipients = append(env.Recipients, mail.Recipient{Address: mail.Address{Local: fmt.Sprint("r", p.n), Domain: domain}})
			}
			c := mail.Memory{[]byte("Subject: x\r\n\r\nbody\r\n")}
			if err := p.queue.Put(env, c); err != nil {
				t.Fatal(err)
			}
			p.out.Enqueue(mail.NewPending(env, c.Size()))
			owed = append(owed, fmt.Sprintf("r%d@no.test", p.n), fmt.Sprintf("r%d@later.test", p.n))
		}
		pass(time.Duration(rnd.Int64N(int64(3 * time.Minute))))
		if rnd.IntN(3) == 0 {
			p.world.set(true, true) // those of later.test fail too
		}
		survives := crashfs.Nothing
		if rnd.IntN(2) == 0 {
			survives = crashfs.All
		}
		p.world.isolate(true)
		next := fs.Restart(survives, rnd)
		p.stop()
		_ = p.queue.Close()
		p.world.isolate(false)
		fs = next
		p.start(fs, spacious)
	}
	p.world.set(true, true)
	pass(3 * time.Hour)
	p.stop()
	if s := p.queue.Stat(); s.Messages > 0 {
		t.Errorf("left in the queue: %+v", s)
	}
	if err := p.queue.Close(); err != nil {
		t.Error(err)
	}
	for _, to := range owed {
		if !p.world.named[to] {
			t.Errorf("nobody was told of %s", to)
		}
	}
	t.Logf("%d failures, %d refusals, %d reports", len(owed), p.world.refused, p.world.arrived["s0@sender.test"]+p.world.arrived["s1@sender.test"])
}

// isolate cuts the world off, or not any more.
func (w *world) isolate(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}
