package crash

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func asRefusal(err error, target **textproto.Error) bool { return errors.As(err, target) }

// setting reads a number from the environment.
func setting(t *testing.T, name string, byDefault uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return byDefault
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// The daemon is killed again and again while it accepts, delivers, defers,
// spills and reports. What it answered with 250 arrives. What arrives twice was
// with the next hop at a kill and the daemon had not said so in its log, of which
// there are no more than attempts at a time; or it had said so, and the journal's
// last batch, which was not written, had held it.
func TestKill(t *testing.T) {
	t.Parallel()
	rounds := int(setting(t, "TARISHI_CRASH_ROUNDS", 10))
	if testing.Short() {
		rounds = min(rounds, 5)
	}
	ends := time.Now().Add(24 * time.Hour)
	if text := os.Getenv("TARISHI_CRASH_TIME"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		ends = time.Now().Add(d)
	}
	seed := setting(t, "TARISHI_CRASH_SEED", uint64(time.Now().UnixNano()))
	t.Logf("TARISHI_CRASH_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))

	l, dir := newLedger(), t.TempDir()
	folder(t, dir, sink(t, l), map[string]string{"connection.ini": "spool_after=65536\n"})
	var lives []life
	spilled := 0 // messages in files, summed up over the kills
	var starting time.Duration
	for len(lives) < rounds && time.Now().Before(ends) {
		l.nextLife()
		began := time.Now()
		d := start(t, dir)
		starting += time.Since(began)
		ctx, cancel := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for range 1 + rnd.IntN(12) {
			clients.Go(func() { l.client(ctx, d.Addr()) })
		}
		lasts := moment(rnd)
		time.Sleep(lasts)
		if lasts >= time.Second || len(lives) == rounds-1 { // enough happens however slow the machine is
			eventually(t, "messages in every life that lasts", func() bool { return l.acceptances() >= 10*(len(lives)+1) })
		}
		d.kill()
		cancel()
		clients.Wait()
		lives = append(lives, readLife(t, d.Log()))
		spilled += count(t, dir, "queue/msg/*/*.json")
	}
	kills := len(lives)

	l.nextLife()
	d := start(t, dir)
	eventually(t, "everything that was accepted", func() bool { return l.behind() < 3000 && len(l.lost()) == 0 })
	eventually(t, "an empty spool", func() bool { return count(t, dir, "queue/msg/*/*") == 0 })
	d.stop()
	lives = append(lives, readLife(t, d.Log()))

	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.account(t, lives)
	t.Logf("%d kills, %d messages offered, %d answered 250; %d recipients reached, %d refusals, %d reports; "+
		"%d times a message was spilled at a kill; a start took %v", kills, l.offered, len(l.accepted), l.distinct, l.refused, a.reports, spilled, (starting / time.Duration(kills)).Round(time.Millisecond))
	t.Logf("lost: %d; duplicates: %d, and %d second reports; at the kills %d were with the next hop (at most %d at one), "+
		"%d were settled in a batch that was cut off; arrived without a 250: %d messages",
		a.lost, a.duplicates, a.reportsAgain, a.inFlightAll, a.inFlight, a.unsynced, a.unasked)
	if a.lost > 0 || a.duplicates > a.inFlightAll+a.unsynced || a.reportsAgain > kills*concurrency+a.unsynced {
		t.Errorf("%+v", a)
	}
	if len(l.damaged) > 0 {
		t.Errorf("%d damaged messages: %q", len(l.damaged), l.damaged[:min(5, len(l.damaged))])
	}
	if kills == rounds && len(l.accepted) < 10*kills || l.refused == 0 || a.reports == 0 || rounds >= 50 && spilled == 0 {
		t.Errorf("too little happened")
	}
	l.quarantine(t, dir)
}

// moment is how long a life of the daemon lasts: many end while they begin, the
// others while there is work in the background, which begins after a second.
func moment(rnd *rand.Rand) time.Duration {
	if rnd.IntN(5) > 1 {
		return time.Duration(rnd.Int64N(int64(150 * time.Millisecond)))
	}
	return time.Second + time.Duration(rnd.Int64N(int64(250*time.Millisecond)))
}

// count is how many files match a pattern below dir.
func count(t *testing.T, dir, pattern string) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// quarantine checks that corrupt/ holds no more than large contents of messages
// that were not accepted, and were kept because a batch was cut off in the midst
// of a record. Caller holds l.mu.
func (l *ledger) quarantine(t *testing.T, dir string) {
	t.Helper()
	accepted := map[int]bool{}
	for _, n := range l.accepted {
		accepted[n] = true
	}
	for _, name := range corrupt(t, dir) {
		content, err := os.ReadFile(filepath.Join(dir, "queue/corrupt", name))
		if err != nil {
			t.Error(err)
			continue
		}
		_, text, _ := strings.Cut(string(content), "\r\nSubject: number ")
		text, _, _ = strings.Cut(text, "\r\n")
		if n, err := strconv.Atoi(text); err != nil || accepted[n] || !strings.HasSuffix(name, ".new") {
			t.Errorf("corrupt/ holds %s: message %q", name, text)
		}
	}
}

// corrupt lists what is in quarantine, without the reasons.
func corrupt(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(dir, "queue/corrupt"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		if !strings.HasSuffix(e.Name(), ".reason") {
			names = append(names, e.Name())
		}
	}
	return names
}

// done is one recipient that the log of a life calls delivered or failed: the
// line is written when the queue has been told.
type done struct{ uuid, to string }

// life is what the log of one life says, in order.
type life struct {
	done      []done
	delivered map[string]bool // by address
}

func readLife(t *testing.T, log string) life {
	t.Helper()
	l := life{delivered: map[string]bool{}}
	in := bufio.NewScanner(strings.NewReader(log))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var line struct {
			Message, UUID string
			To            []string
		}
		if !strings.Contains(in.Text(), `"message":"delivered"`) && !strings.Contains(in.Text(), `"message":"failed"`) {
			continue
		}
		if json.Unmarshal(in.Bytes(), &line) != nil {
			continue // the kill cut it
		}
		for _, to := range line.To {
			l.done = append(l.done, done{line.UUID, to})
			l.delivered[to] = l.delivered[to] || line.Message == "delivered"
		}
	}
	if err := in.Err(); err != nil {
		t.Error(err)
	}
	return l
}

type account struct {
	lost         int
	duplicates   int // arrivals beyond the first
	reports      int // senders that got one
	reportsAgain int // beyond the first
	unasked      int // messages that arrived though they were not answered with 250

	inFlight    int // the most in one life that the next hop took and the log does not say so
	inFlightAll int
	unsynced    int // settlements that were lost with their batch
}

// account compares what was promised with what arrived, and what arrived twice
// with what the daemon was doing when it was killed. Caller holds l.mu.
func (l *ledger) account(t *testing.T, lives []life) account {
	t.Helper()
	var a account
	accepted := map[int]bool{}
	for _, n := range l.accepted {
		accepted[n] = true
		for _, to := range owed(n) {
			if len(l.arrivals[to]) == 0 {
				a.lost++
			}
		}
	}
	unasked := map[int]bool{}
	inFlight := make([]int, len(lives)+1)
	again := make([]int, len(lives)+1) // those of inFlight that had to be sent once more
	for to, arrivals := range l.arrivals {
		if to[0] == 's' {
			a.reports++
			a.reportsAgain += len(arrivals) - 1
		} else {
			a.duplicates += len(arrivals) - 1
		}
		if !accepted[number(to)] {
			unasked[number(to)] = true
		}
		for i, n := range arrivals {
			if i > 0 && n == arrivals[i-1] && to[0] != 's' { // a sender may get two reports
				t.Errorf("%s arrived twice in life %d", to, n)
			}
			if !lives[n-1].delivered[to] {
				inFlight[n]++
				if i < len(arrivals)-1 {
					again[n]++
				}
			}
		}
	}
	a.unasked = len(unasked)
	for n, count := range inFlight {
		a.inFlight = max(a.inFlight, count)
		a.inFlightAll += count
		// The last lines of the log, which tell of deliveries, go with the process: a fast
		// machine has many. What was in the queue's hands is sent once. Slow attempts go on
		// beside those that have a place.
		if most := 5 * concurrency; again[n] > most {
			t.Errorf("life %d: %d that were with the next hop were sent again, at most %d attempts run at a time", n, again[n], most)
		}
	}
	a.unsynced = cutOff(t, lives)
	return a
}

// cutOff counts what is done in two lives. In each of them that can only be a
// tail: records keep their order, so everything that was recorded behind a lost
// one is lost as well. Attempts that run at the same time may log in another
// order than they recorded.
func cutOff(t *testing.T, lives []life) int {
	t.Helper()
	last := map[done]int{}
	for i, l := range lives {
		for _, d := range l.done {
			last[d] = i
		}
	}
	all := 0
	for i, l := range lives {
		first, lost := len(l.done), 0
		for k, d := range l.done {
			if last[d] > i {
				first = min(first, k)
				lost++
			}
		}
		if kept := len(l.done) - first - lost; kept >= concurrency {
			t.Errorf("life %d: %d recipients done later than a lost one were kept: what is lost is no tail", i+1, kept)
		}
		all += lost
	}
	return all
}
