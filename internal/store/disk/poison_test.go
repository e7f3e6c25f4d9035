package disk

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

// fate is what must become of a damaged message.
type fate int

const (
	quarantined fate = iota // in corrupt/, with a reason
	leftAlone               // where it was, with a line in the log
)

// victim is a message of a healthy spool that is about to be damaged.
type victim struct {
	id           mail.ID
	eml, json    string // names of its files
	outside      string // a file that is none of the queue's business
	content, doc []byte
	other        []byte // the state of another message
	rnd          *rand.Rand
}

var spoolPoisons = []struct {
	name string
	fate fate
	do   func(v *victim) error
}{
	{"state truncated", quarantined, func(v *victim) error { return os.Truncate(v.json, int64(v.rnd.IntN(len(v.doc)-2))) }},
	{"state empty", quarantined, func(v *victim) error { return os.Truncate(v.json, 0) }},
	{"state is zeros", quarantined, func(v *victim) error { return os.WriteFile(v.json, make([]byte, len(v.doc)), 0o600) }},
	{"state bit-flipped", quarantined, func(v *victim) error {
		return os.WriteFile(v.json, flipped(v.doc, v.rnd.IntN(len(v.doc)), v.rnd), 0o600)
	}},
	{"state's first byte bit-flipped", quarantined, func(v *victim) error { return os.WriteFile(v.json, flipped(v.doc, 0, v.rnd), 0o600) }},
	{"state of a newer version", leftAlone, func(v *victim) error {
		return os.WriteFile(v.json, sealed(bytes.Replace(v.doc, []byte(`"version": 2`), []byte(`"version": 3`), 1)), 0o600)
	}},
	{"state of a newer version that is damaged", quarantined, func(v *victim) error {
		return os.WriteFile(v.json, bytes.Replace(v.doc, []byte(`"version": 2`), []byte(`"version": 3`), 1), 0o600)
	}},
	{"state without its checksum", quarantined, func(v *victim) error {
		return os.WriteFile(v.json, append(v.doc[:bytes.LastIndexByte(v.doc, ',')], "\n}\n"...), 0o600)
	}},
	{"state of a newer version that looks different", leftAlone, func(v *victim) error { return os.WriteFile(v.json, []byte(`{"version":7,"recipients":"none"}`), 0o600) }},
	{"state of another message", quarantined, func(v *victim) error { return os.WriteFile(v.json, v.other, 0o600) }},
	{"state of nobody", quarantined, func(v *victim) error { return os.WriteFile(v.json, []byte(`{"version":1,"envelope":null}`), 0o600) }},
	{"state missing", quarantined, func(v *victim) error { return os.Remove(v.json) }},
	{"state is a folder", quarantined, func(v *victim) error { return folderInstead(v.json) }},
	{"state is a link to nothing", quarantined, func(v *victim) error { return linkInstead(v.json, "/nowhere/at/all") }},
	{"state is a link", quarantined, func(v *victim) error { return linkInstead(v.json, v.outside) }},
	{"state is a FIFO", quarantined, func(v *victim) error { return errors.Join(os.Remove(v.json), syscall.Mkfifo(v.json, 0o600)) }},
	{"content truncated", quarantined, func(v *victim) error { return os.Truncate(v.eml, int64(v.rnd.IntN(len(v.content)))) }},
	{"content empty", quarantined, func(v *victim) error { return os.Truncate(v.eml, 0) }},
	{"content too long", quarantined, func(v *victim) error { return os.WriteFile(v.eml, append(v.content, "more"...), 0o600) }},
	{"content bit-flipped", quarantined, func(v *victim) error {
		return os.WriteFile(v.eml, flipped(v.content, v.rnd.IntN(len(v.content)), v.rnd), 0o600)
	}},
	{"content is a FIFO", quarantined, func(v *victim) error { return errors.Join(os.Remove(v.eml), syscall.Mkfifo(v.eml, 0o600)) }},
	{"content missing", quarantined, func(v *victim) error { return os.Remove(v.eml) }},
	{"content is a folder", quarantined, func(v *victim) error { return folderInstead(v.eml) }},
	{"content is a link", quarantined, func(v *victim) error { return linkInstead(v.eml, v.outside) }},
	{"both empty", quarantined, func(v *victim) error { return errors.Join(os.Truncate(v.eml, 0), os.Truncate(v.json, 0)) }},
	{"the other name is a folder that is not empty", quarantined, func(v *victim) error {
		return errors.Join(folderInstead(v.json), os.WriteFile(filepath.Join(v.json, "x"), nil, 0o600))
	}},
	{"names in corrupt/ are taken", quarantined, func(v *victim) error {
		corrupt := filepath.Join(filepath.Dir(v.eml), "../../corrupt", string(v.id))
		return errors.Join(os.WriteFile(corrupt+".eml", nil, 0o600), os.WriteFile(corrupt+".eml.reason", nil, 0o600), os.Remove(v.json))
	}},
}

func flipped(b []byte, at int, rnd *rand.Rand) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1 << rnd.IntN(7)
	return b
}

// sealed returns a state with the checksum that it should have.
func sealed(doc []byte) []byte {
	doc = doc[:bytes.LastIndexByte(doc, ',')]
	sum := crc32.Checksum(doc, crc32.MakeTable(crc32.Castagnoli))
	return fmt.Appendf(bytes.Clone(doc), ",\n \"crc32c\": \"%08x\"\n}\n", sum)
}

func folderInstead(name string) error { return errors.Join(os.Remove(name), os.Mkdir(name, 0o700)) }

func linkInstead(name, target string) error {
	return errors.Join(os.Remove(name), os.Symlink(target, name))
}

// segmentPoisons damage a segment that holds ten messages. They return how many
// of them, the first, must survive; the others need not. Damage that stands for
// itself is kept in corrupt/.
var segmentPoisons = []struct {
	name string
	kept bool // in corrupt/
	do   func(b []byte, locs []journal.Location, rnd *rand.Rand) (damaged []byte, lost map[int]bool)
}{
	{"empty", false, func([]byte, []journal.Location, *rand.Rand) ([]byte, map[int]bool) { return nil, from(0) }},
	{"less than a head", true, func(b []byte, _ []journal.Location, _ *rand.Rand) ([]byte, map[int]bool) { return b[:1000], from(0) }},
	{"a head only", false, func(b []byte, _ []journal.Location, _ *rand.Rand) ([]byte, map[int]bool) { return b[:4096], from(0) }},
	{"truncated in a record", false, func(b []byte, l []journal.Location, _ *rand.Rand) ([]byte, map[int]bool) {
		return b[:l[6].Offset+20], from(6)
	}},
	{"truncated in a frame's header", false, func(b []byte, l []journal.Location, _ *rand.Rand) ([]byte, map[int]bool) {
		return b[:l[3].Offset-5], from(3)
	}},
	{"head destroyed", true, func(b []byte, _ []journal.Location, _ *rand.Rand) ([]byte, map[int]bool) {
		return overwritten(b, 0, 4096), nil
	}},
	{"head and more destroyed", true, func(b []byte, l []journal.Location, _ *rand.Rand) ([]byte, map[int]bool) {
		return overwritten(b, 0, 8192), touched(l, 0, 8192)
	}},
	{"head zeroed", true, func(b []byte, _ []journal.Location, _ *rand.Rand) ([]byte, map[int]bool) {
		clear(b[:4096])
		return b, nil
	}},
	{"one copy of the head destroyed", false, func(b []byte, _ []journal.Location, _ *rand.Rand) ([]byte, map[int]bool) {
		return overwritten(b, 0, 512), nil
	}},
	{"a record bit-flipped", true, func(b []byte, l []journal.Location, rnd *rand.Rand) ([]byte, map[int]bool) {
		return flipped(b, int(l[4].Offset)+rnd.IntN(int(l[4].Length)), rnd), map[int]bool{4: true}
	}},
	{"a frame's header bit-flipped", true, func(b []byte, l []journal.Location, rnd *rand.Rand) ([]byte, map[int]bool) {
		return flipped(b, int(l[5].Offset)-16+rnd.IntN(16), rnd), map[int]bool{5: true}
	}},
	{"a length that is far too large", true, func(b []byte, l []journal.Location, _ *rand.Rand) ([]byte, map[int]bool) {
		return overwritten(b, int(l[5].Offset)-12, 4), map[int]bool{5: true}
	}},
	{"a sector destroyed", true, func(b []byte, l []journal.Location, _ *rand.Rand) ([]byte, map[int]bool) {
		at := int(l[7].Offset+l[7].Length/2) &^ 511
		return overwritten(b, at, 512), touched(l, at, at+512)
	}},
	{"a commit bit-flipped", true, func(b []byte, l []journal.Location, rnd *rand.Rand) ([]byte, map[int]bool) {
		return flipped(b, int(l[2].Offset+(l[2].Length+7)&^7)+rnd.IntN(16), rnd), nil
	}},
	{"half of it destroyed", true, func(b []byte, l []journal.Location, _ *rand.Rand) ([]byte, map[int]bool) {
		return overwritten(b, int(l[2].Offset), int(l[7].Offset-l[2].Offset)), touched(l, int(l[2].Offset), int(l[7].Offset))
	}},
}

// from are the messages from n on.
func from(n int) map[int]bool {
	lost := map[int]bool{}
	for ; n < 10; n++ {
		lost[n] = true
	}
	return lost
}

// touched are the messages with a byte in [begin, end), frame headers included.
func touched(locs []journal.Location, begin, end int) map[int]bool {
	lost := map[int]bool{}
	for i, l := range locs {
		if int(l.Offset)-16 < end && int(l.Offset+l.Length) > begin {
			lost[i] = true
		}
	}
	return lost
}

func overwritten(b []byte, at, n int) []byte {
	b = bytes.Clone(b)
	copy(b[at:at+n], bytes.Repeat([]byte{0xA5}, n))
	return b
}

// TestPoison damages more than a thousand items of a healthy queue at once, each
// in its own way, and opens it: no other message is touched.
func TestPoison(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir := filepath.Join(t.TempDir(), "queue")
	core, logs := observer.New(zapcore.WarnLevel)
	o := Options{Dir: dir, SegmentSize: 1 << 20, LargeBody: 5000, NoSync: true, Log: zap.New(core)}
	q := open(t, o)
	q.spiller.Tune(unlimited)
	healthy := map[mail.ID]int{} // its size
	accept := func(size int) mail.ID {
		env := envelope(newID(), 2)
		put(t, q, env, text(size))
		healthy[env.ID] = size
		return env.ID
	}

	// In files: the victims, some that stay healthy, of both kinds.
	var victims []mail.ID
	for i := range 1100 {
		victims = append(victims, accept(40+rnd.IntN(600)))
		if i%5 == 0 {
			must(t, q.Defer(accept([]int{100, 7000}[i/5%2]), []int{1}, 1, time.Unix(1, 0), "451 later"))
		}
	}
	retireAll(t, q)
	// In the journal: ten messages and a segment for each poison, and one more.
	var segments [][]journal.Location
	var inSegment [][]mail.ID
	for range len(segmentPoisons) + 1 {
		var locs []journal.Location
		var ids []mail.ID
		for range 10 {
			id := accept(300 + rnd.IntN(2000))
			e, err := q.catalog.Lookup(id)
			must(t, err)
			ids, locs = append(ids, id), append(locs, e.Loc)
		}
		must(t, q.journal.Roll())
		segments, inSegment = append(segments, locs), append(inSegment, ids)
	}
	odd := oddRecords(t, q)
	must(t, q.Close())

	v := victim{outside: filepath.Join(t.TempDir(), "outside"), rnd: rnd}
	must(t, os.WriteFile(v.outside, []byte("not mail"), 0o600))
	files, err := spool.Open(q.fs, dir)
	must(t, err)
	for i, id := range victims {
		delete(healthy, id)
		v.id, v.eml = id, files.Path(id)
		v.json = strings.TrimSuffix(v.eml, "eml") + "json"
		v.other = v.doc
		v.content, err = os.ReadFile(v.eml)
		must(t, err)
		v.doc, err = os.ReadFile(v.json)
		must(t, err)
		if v.other == nil {
			v.other = []byte("{}")
		}
		if err := spoolPoisons[i%len(spoolPoisons)].do(&v); err != nil {
			t.Fatalf("%s: %v", spoolPoisons[i%len(spoolPoisons)].name, err)
		}
	}
	for i, p := range segmentPoisons {
		name := filepath.Join(dir, "journal", fmt.Sprintf("%08d.log", segments[i][0].Segment))
		b, err := os.ReadFile(name)
		must(t, err)
		b, lost := p.do(b, segments[i], rnd)
		for n := range lost {
			delete(healthy, inSegment[i][n])
		}
		must(t, os.WriteFile(name, b, 0o600))
	}
	strays(t, dir, v.outside)

	began := time.Now()
	q = open(t, o)
	t.Logf("%d damaged files, %d healthy messages: opened in %v", len(victims), len(healthy), time.Since(began).Round(time.Millisecond))
	q.Adopt(func(mail.Pending) bool { return true }) // state files are read when they are needed
	for i, id := range victims {                     // and contents when they are sent
		_, c, err := q.Load(id)
		if err != nil {
			continue
		}
		r, err := c.Open()
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			r.Close()
		}
		if err == nil {
			t.Errorf("%s: it is served", spoolPoisons[i%len(spoolPoisons)].name)
		}
	}
	said := map[mail.ID]bool{}
	for _, e := range logs.All() {
		id, _ := e.ContextMap()["uuid"].(string)
		said[mail.ID(id)] = true
	}
	q.WalkUnreadable(func(id mail.ID, _ string) bool { // the log counts them
		said[id] = true
		return true
	})
	reasons := map[mail.ID][]string{}
	for _, name := range corruptNames(t, dir) {
		if id := mail.ID(filepath.Base(name)); strings.HasSuffix(name, ".reason") && len(id) > 38 {
			id = id[:38] // the number of a transaction has one digit here
			reasons[id] = append(reasons[id], name)
		}
	}
	for i, id := range victims {
		p := spoolPoisons[i%len(spoolPoisons)]
		if _, _, err := q.Load(id); err == nil || p.fate == quarantined && !errors.Is(err, store.ErrUnknown) {
			t.Errorf("%s: it is served: %v", p.name, err)
		}
		met(t, p.name, p.fate, id, files.Path(id), reasons[id], said)
	}
	for i, p := range segmentPoisons {
		found, err := filepath.Glob(filepath.Join(dir, "corrupt", fmt.Sprintf("%08d.log@*.reason", segments[i][0].Segment)))
		must(t, err)
		if p.kept != (len(found) > 0) {
			t.Errorf("segment %d, %s: in corrupt/ are %q", segments[i][0].Segment, p.name, found)
		}
	}
	found, err := filepath.Glob(filepath.Join(dir, "corrupt", fmt.Sprintf("%08d.log@*.reason", odd.segment)))
	must(t, err)
	if len(found) != odd.records {
		t.Errorf("of %d records that make no sense %d are in corrupt/", odd.records, len(found))
	}

	// Everything else is delivered.
	before := corruptNames(t, dir)
	for id, size := range healthy {
		same(t, q, envelope(id, 2), text(size))
		must(t, q.Settle(id, []int{0, 1}))
	}
	retireAll(t, q)
	accept(100)
	last := accept(7000)
	_, err = q.Path(last)
	must(t, err)
	must(t, q.Close())
	after := corruptNames(t, dir)

	// The next start finds nothing new.
	q = open(t, o)
	if got := corruptNames(t, dir); len(got) != len(after) {
		t.Errorf("%d files in corrupt/ after one start, %d after two", len(after), len(got))
	}
	if len(after) < len(before) {
		t.Errorf("corrupt/ has lost files: %d, then %d", len(before), len(after))
	}
	same(t, q, envelope(last, 2), text(7000))
	if b, err := os.ReadFile(v.outside); err != nil || string(b) != "not mail" {
		t.Errorf("a file outside of the queue was changed: %q, %v", b, err)
	}
}

// met fails unless a message in the spool met its fate.
func met(t *testing.T, poison string, f fate, id mail.ID, eml string, reasons []string, said map[mail.ID]bool) {
	t.Helper()
	var there []string
	for _, name := range []string{eml, strings.TrimSuffix(eml, "eml") + "json"} {
		if _, err := os.Lstat(name); err == nil {
			there = append(there, name)
		}
	}
	switch f {
	case quarantined:
		if len(there) > 0 || len(reasons) == 0 {
			t.Errorf("%s: in msg/ are %q, in corrupt/ %q", poison, there, reasons)
		}
		for _, name := range reasons {
			b, err := os.ReadFile(name)
			must(t, err)
			if _, why, _ := strings.Cut(string(b), "reason: "); len(why) < 5 && len(b) > 0 {
				t.Errorf("%s: the reason is %q", poison, b)
			}
		}
	case leftAlone:
		if len(there) != 2 || len(reasons) > 0 {
			t.Errorf("%s: in msg/ are %q, in corrupt/ %q", poison, there, reasons)
		}
	}
	if !said[id] {
		t.Errorf("%s: the log says nothing", poison)
	}
}

func corruptNames(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "corrupt/*"))
	must(t, err)
	return names
}

type odd struct {
	segment uint32
	records int
}

// oddRecords writes records that are whole and make no sense, as a program with
// an error, or of another version, would. They get a segment of their own.
func oddRecords(t *testing.T, q *Store) odd {
	t.Helper()
	good, err := record.EncodeMessage(envelope(newID(), 1), 3, false)
	must(t, err)
	record.SealMessage(good, spool.SumOf([]byte("abc")))
	good = append(good, "abc"...)
	newer, short, count := bytes.Clone(good), good[:len(good)-1], bytes.Clone(good)
	newer[0] = record.Version + 1
	count[4]++
	done := record.EncodeChange(record.KindDone, record.Change{ID: newID()})
	var at journal.Location
	all := []struct {
		kind    journal.Kind
		payload []byte
	}{
		{record.KindMessage, nil},
		{record.KindMessage, []byte("x")},
		{record.KindMessage, newer},
		{record.KindMessage, short},
		{record.KindMessage, make([]byte, 100)},
		{record.KindSettled, []byte("\xff\xff\xff\xff\xff")},
		{record.KindDeferred, done},
		{record.KindDone, append(done, 'x')},
		{record.KindDone, append([]byte{record.Version + 1}, done[1:]...)},
		{record.KindDone + 40, []byte("a kind that nobody knows")},
	}
	for _, r := range all {
		at, err = q.journal.Append(r.kind, r.payload)
		must(t, err)
	}
	must(t, q.journal.Roll())
	return odd{at.Segment, len(all)}
}

// strays puts files, folders and links into every folder of the queue that have
// no place there.
func strays(t *testing.T, dir, outside string) {
	t.Helper()
	stray := string(newID())
	for _, name := range []string{
		"README", "msg/README", "msg/ZZ", "msg/00/x.eml", "msg/00/.eml", "msg/00/x.json", "msg/00/ID.eml.bak",
		"msg/00/" + stray + ".txt", "msg/00/" + stray + ".eml.17.tmp", "msg/x.tmp", "msg/zz/" + stray + ".eml",
		"journal/README", "journal/00000000.log", "journal/99999999999.log", "journal/-0000001.log", "journal/00000007.log.bak",
		"journal/probe.tmp", "corrupt/README",
	} {
		name = filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(name), 0o700))
		must(t, os.WriteFile(name, []byte("stray"), 0o600))
	}
	for _, name := range []string{"folder", "msg/folder.tmp", "msg/00/folder.tmp", "msg/00/folder.eml", "journal/00700000.log", "journal/folder", "corrupt/folder"} {
		must(t, os.MkdirAll(filepath.Join(dir, name, "inner"), 0o700))
	}
	for _, name := range []string{"link", "msg/link", "msg/00/link.eml", "msg/00/" + string(newID()) + ".eml", "journal/00700001.log", "journal/link", "corrupt/link"} {
		must(t, os.Symlink(outside, filepath.Join(dir, name)))
		must(t, os.Symlink(name, filepath.Join(dir, name+"-to-itself")))
	}
	must(t, syscall.Mkfifo(filepath.Join(dir, "journal/00700002.log"), 0o600))
}
