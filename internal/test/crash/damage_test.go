package crash

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk"
)

// damages are done to the two files of a message. Those that stay are left
// where they are: a newer version is not damage.
var damages = []struct {
	name  string
	stays bool
	do    func(eml, json string) error
}{
	{"state truncated", false, func(_, json string) error { return os.Truncate(json, 100) }},
	{"state empty", false, func(_, json string) error { return os.Truncate(json, 0) }},
	{"state bit-flipped", false, func(_, json string) error { return flip(json) }},
	{"state of a newer version", true, func(_, json string) error { return os.WriteFile(json, []byte(`{"version": 9}`), 0o600) }},
	{"state is a FIFO", false, func(_, json string) error { return errors.Join(os.Remove(json), syscall.Mkfifo(json, 0o600)) }},
	{"state is a link", false, func(_, json string) error { return errors.Join(os.Remove(json), os.Symlink("/etc/hostname", json)) }},
	{"state missing", false, func(_, json string) error { return os.Remove(json) }},
	{"state is a folder", false, func(_, json string) error { return errors.Join(os.Remove(json), os.Mkdir(json, 0o700)) }},
	{"content bit-flipped", false, func(eml, _ string) error { return flip(eml) }},
	{"content truncated", false, func(eml, _ string) error { return os.Truncate(eml, 10) }},
	{"content empty", false, func(eml, _ string) error { return os.Truncate(eml, 0) }},
	{"content missing", false, func(eml, _ string) error { return os.Remove(eml) }},
	{"content is a link", false, func(eml, _ string) error { return errors.Join(os.Remove(eml), os.Symlink("/etc/hostname", eml)) }},
}

// flip changes any one bit of a file.
func flip(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
	return os.WriteFile(name, b, 0o600)
}

// A daemon that finds a hundred damaged messages, and files and folders that
// have no place there, starts, says so and delivers the others.
func TestDamagedQueue(t *testing.T) {
	t.Parallel()
	l, dir := newLedger(), t.TempDir()
	l.nextLife()
	folder(t, dir, sink(t, l), nil)
	d := start(t, dir)
	l.hold(true)
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 5 {
		clients.Go(func() { l.client(ctx, d.Addr()) })
	}
	eventually(t, "300 messages", func() bool { return l.acceptances() >= 300 })
	d.stop()
	cancel()
	clients.Wait()

	victims := damage(t, dir)
	for _, name := range []string{"msg/README", "msg/00/x.eml", "msg/ZZ/x", "journal/README", "journal/90000000.log", "journal/90000001.log", "corrupt/x", "x"} {
		name = filepath.Join(dir, "queue", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	garbage := make([]byte, 100_000)
	for i := range garbage {
		garbage[i] = byte(rand.Uint32())
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "queue/journal/90000001.log"), garbage, 0o600),
		os.Mkdir(filepath.Join(dir, "queue/journal/90000002.log"), 0o700),
		os.Symlink("/etc/hostname", filepath.Join(dir, "queue/journal/90000003.log")),
	); err != nil {
		t.Fatal(err)
	}

	l.hold(false)
	for range 2 { // the second start finds nothing new
		l.nextLife()
		d = start(t, dir)
		eventually(t, "all that is not damaged", func() bool {
			for _, to := range l.lost() {
				if victims[number(to)] == nil {
					return false
				}
			}
			return true
		})
		d.stop()
		l.mu.Lock()
		for n, v := range victims {
			v.met(t, dir, d.Log())
			if len(l.arrivals[recipientsOf(n)[0]]) > 0 {
				t.Errorf("%s: it was delivered", v.damage)
			}
		}
		l.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := count(t, dir, "queue/corrupt/90000001.log@*.reason"); n == 0 {
		t.Error("nothing is said of a segment of garbage")
	}
	if len(l.damaged) > 0 {
		t.Errorf("delivered damaged: %q", l.damaged)
	}
	t.Logf("%d accepted, %d damaged, %d files in corrupt/", len(l.accepted), len(victims), count(t, dir, "queue/corrupt/*"))
}

func (l *ledger) acceptances() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted)
}

type victim struct {
	id     mail.ID
	damage string
	stays  bool
}

// met expects a damaged message to be in quarantine and the log to say so.
func (v *victim) met(t *testing.T, dir, log string) {
	t.Helper()
	there, reasons := count(t, dir, "queue/msg/*/"+string(v.id)+".*"), count(t, dir, "queue/corrupt/"+string(v.id)+".*.reason")
	switch {
	case v.stays && (there != 2 || reasons != 0 || !strings.Contains(log, string(v.id))):
		t.Errorf("%s: %d files and %d reasons, want 2 and 0, and a line in the log", v.damage, there, reasons)
	case !v.stays && (there != 0 || reasons == 0):
		t.Errorf("%s: %d files and %d reasons, want 0 and some", v.damage, there, reasons)
	}
}

// damage spills the queue of a stopped daemon, damages a hundred messages and
// returns them by number.
func damage(t *testing.T, dir string) map[int]*victim {
	t.Helper()
	// To this queue its segments are old.
	q, err := disk.Open(disk.Options{
		Dir: filepath.Join(dir, "queue"), NoSync: true, Now: func() time.Time { return time.Now().Add(time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = q.Run(ctx) })
	eventually(t, "an empty journal", func() bool { return count(t, dir, "queue/journal/*.log") == 0 })
	cancel()
	running.Wait()
	victims := map[int]*victim{}
	names := map[*victim]string{}
	q.Walk(func(p mail.Pending) bool {
		v := &victim{id: p.ID}
		victims[number(p.From.String())] = v
		if names[v], err = q.Path(p.ID); err != nil {
			t.Error(err)
		}
		return len(victims) < 100
	})
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	i := 0
	for _, v := range victims {
		c := damages[i%len(damages)]
		v.damage, v.stays = c.name, c.stays
		if err := c.do(names[v], strings.TrimSuffix(names[v], "eml")+"json"); err != nil {
			t.Fatal(err)
		}
		i++
	}
	return victims
}
