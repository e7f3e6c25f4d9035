package migrate

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/qfile"
	"tarishi/internal/smtpclient"
	"tarishi/internal/store/disk"
	"tarishi/internal/test/smtptest"
	"tarishi/internal/vfs"
	"tarishi/internal/vfs/crashfs"
)

const samples = "../qfile/testdata"

// folder is files by name.
type folder map[string][]byte

func readFolder(tb testing.TB, dir string) folder {
	tb.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	all := folder{}
	for _, e := range list {
		if !e.Type().IsRegular() {
			continue
		}
		if all[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			tb.Fatal(err)
		}
	}
	return all
}

func haraka(tb testing.TB) folder {
	tb.Helper()
	all := readFolder(tb, samples)
	for name := range all {
		if _, kind := qfile.ParseName(name); kind != qfile.Waiting {
			delete(all, name)
		}
	}
	return all
}

func (f folder) names() []string {
	var names []string
	for name := range f {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// in writes the files to a new folder.
func (f folder) in(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, b := range f {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// harakaFile makes a file of an envelope and a message as it is stuffed.
func harakaFile(uuid, rcpt, notes, message string) []byte {
	e := fmt.Sprintf(`{"queue_time":1700000000123,"domain":"d.test","rcpt_to":[%s],"mail_from":"<s@src.test>","notes":%s,"uuid":%q}`, rcpt, notes, uuid)
	return append(append(binary.BigEndian.AppendUint32(nil, uint32(len(e))), e...), message...)
}

// message returns the part of a file behind its envelope.
func message(b []byte) []byte { return b[4+binary.BigEndian.Uint32(b):] }

func openQueue(tb testing.TB) *disk.Store {
	tb.Helper()
	q, err := disk.Open(disk.Options{Dir: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { q.Close() })
	return q
}

func mustImport(tb testing.TB, q Queue, dir string, o ImportOptions) *Report {
	tb.Helper()
	r, err := Import(tb.Context(), q, dir, o)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// stored is a message in a queue.
type stored struct {
	pending mail.Pending
	env     *mail.Envelope
	content mail.Content
}

// all returns what is in a queue, by the name of the file that it came from or
// else by ID.
func all(tb testing.TB, q Source) map[string]stored {
	tb.Helper()
	found := map[string]stored{}
	q.Walk(func(p mail.Pending) bool {
		env, c, err := q.Load(p.ID)
		if err != nil {
			tb.Fatal(err)
		}
		key := env.Notes.String(originFile)
		if key == "" {
			key = string(p.ID)
		}
		if _, twice := found[key]; twice {
			tb.Fatalf("%s is there twice", key)
		}
		found[key] = stored{p, env, c}
		return true
	})
	return found
}

func text(tb testing.TB, c mail.Content) string {
	tb.Helper()
	r, err := c.Open()
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func TestImport(t *testing.T) {
	files := haraka(t)
	const (
		fresh  = "1700000000123_1700000000123_0_12_abcdef_1_mx"
		later  = "1700000000123_33000000000000_0_12_abcdeg_1_mx"
		old    = "1700000000500_2_12_345.mx.old"
		dotted = "From: x\r\n\r\n..a\r\n...\r\nb.\r\n"
	)
	files[fresh] = harakaFile("U.1.1", `"<a@D.test>"`, `{"using_lmtp":true,"queue":{"next_hop":"lmtp://127.0.0.1:24"},"n":1700000000123}`, dotted)
	files[later] = harakaFile("U.1.2", `"<a@d.test>"`, `{}`, dotted)
	files[old] = harakaFile("U.1.3", `{"user":"a","host":"d.test","reason":"busy"},{"user":"b","host":"d.test"}`, `null`, dotted)
	dir := files.in(t)
	q := openQueue(t)

	dry := mustImport(t, nil, dir, ImportOptions{DryRun: true})
	if dry.Messages != len(files) || len(dry.Failed)+len(dry.Skipped) > 0 || len(readFolder(t, dir)) != len(files) {
		t.Fatalf("dry run: %+v", dry)
	}
	var told []mail.Pending
	r := mustImport(t, q, dir, ImportOptions{Put: func(p mail.Pending) { told = append(told, p) }})
	if len(told) != len(files) {
		t.Errorf("told of %d messages", len(told))
	}
	if r.Messages != len(files) || r.Known != 0 || len(r.Failed)+len(r.Skipped) > 0 {
		t.Fatalf("%+v", r)
	}
	if left := readFolder(t, dir); len(left) != 0 {
		t.Error("files are left:", left.names())
	}
	done := readFolder(t, filepath.Join(dir, imported))
	got := all(t, q)
	for name, b := range files {
		if !bytes.Equal(done[name], b) {
			t.Errorf("%s was changed", name)
		}
		s := got[name]
		if s.env == nil {
			t.Errorf("%s is not in the queue", name)
			continue
		}
		m, err := qfile.Decode(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		n, _ := qfile.ParseName(name)
		if string(s.env.ID) != m.UUID || s.env.From != m.From || !s.env.Received.Equal(m.Queued) {
			t.Errorf("%s: %+v", name, s.env)
		}
		want := n.Next
		if name == fresh {
			want = time.Time{}
		}
		for k, rcpt := range s.pending.Recipients {
			if rcpt.Address != m.Recipients[k].Address || rcpt.Attempts != n.Attempts || !rcpt.Next.Equal(want) || rcpt.Last != m.Recipients[k].Last {
				t.Errorf("%s: %+v", name, rcpt)
			}
		}
		var out bytes.Buffer
		m.Content = s.content
		if err := qfile.Encode(&out, m); err != nil || !bytes.Equal(message(out.Bytes()), message(b)) {
			t.Errorf("%s: another message, %v", name, err)
		}
	}
	notes := got[fresh].env.Notes
	if !notes.Bool("using_lmtp") || notes.String("queue.next_hop") != "lmtp://127.0.0.1:24" || notes.Get("n") != 1700000000123.0 ||
		notes.String(originUUID) != "U.1.1" {
		t.Errorf("%v", notes)
	}
	for name, s := range got {
		if utf8 := s.pending.Recipients[0].Address.IsUTF8(); s.env.UTF8 != utf8 {
			t.Errorf("%s: SMTPUTF8 %v", name, s.env.UTF8)
		}
	}
	if again := mustImport(t, q, dir, ImportOptions{}); again.Messages != 0 || len(again.Failed)+len(again.Skipped) > 0 {
		t.Errorf("again: %+v", again)
	}
}

// TestWire sends what was imported: the next hop gets the bytes that it would
// have from Haraka, which are those of the file.
func TestWire(t *testing.T) {
	files := haraka(t)
	files["1700000000123_1700000000123_0_12_abcdef_1_mx"] = harakaFile("U.1.1", `"<a@d.test>"`, `{}`, "..A: b\r\n\r\n..\r\n...c\r\nd\r\n")
	q := openQueue(t)
	mustImport(t, q, files.in(t), ImportOptions{})
	for name, s := range all(t, q) {
		srv := smtptest.New(t)
		c, err := smtpclient.Dial(t.Context(), smtpclient.Options{Addr: srv.Addr(), Helo: "test"})
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Send(t.Context(), s.env, s.content)
		if err != nil || res.Replies[0].Code != 250 {
			t.Fatal(err, res.Replies)
		}
		c.Quit()
		want := strings.ReplaceAll("\r\n"+string(message(files[name])), "\r\n.", "\r\n")[2:] // as the server un-stuffs it
		if got := srv.Messages(); len(got) != 1 || string(got[0].Content) != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestProblems(t *testing.T) {
	files := haraka(t)
	name := files.names()[1]
	good := files[name]
	cut := func(n int) []byte { return good[:n] }
	damage := folder{
		"1_1_0_1_aaaaaa_1_h": nil,
		"2_1_0_1_aaaaaa_1_h": make([]byte, 1000),
		"3_1_0_1_aaaaaa_1_h": cut(100),
		"4_1_0_1_aaaaaa_1_h": append([]byte{0, 0, 1, 0}, good[4:]...),
		"5_1_0_1_aaaaaa_1_h": harakaFile("U", `"<nobody>"`, `{}`, "x\r\n"),
		"6_1_0_1_aaaaaa_1_h": harakaFile("U", `"<a@empty..label.test>"`, `{}`, "x\r\n"),
		"7_1_0_1_aaaaaa_1_h": harakaFile("U", ``, `{}`, "x\r\n"),
	}
	other := folder{
		"__tmp__.1_1_0_1_aaaaaa_1_h": good, "error.1_1_0_1_aaaaaa_1_h": good, "README": nil, ".hidden": nil,
	}
	for _, f := range []folder{damage, other} {
		for n, b := range f {
			files[n] = b
		}
	}
	dir := files.in(t)
	if err := os.Symlink(filepath.Join(dir, name), filepath.Join(dir, "8_1_0_1_aaaaaa_1_h")); err != nil {
		t.Fatal(err)
	}
	q := openQueue(t)
	dry := mustImport(t, q, dir, ImportOptions{DryRun: true})
	r := mustImport(t, q, dir, ImportOptions{})
	if r.Messages != 6 || len(r.Failed) != len(damage)+1 || len(r.Skipped) != len(other) {
		t.Fatalf("%+v", r)
	}
	if dry.Messages != r.Messages || len(dry.Failed) != len(r.Failed) || len(dry.Skipped) != len(r.Skipped) {
		t.Errorf("the dry run said %+v", dry)
	}
	for _, p := range r.Failed {
		if !strings.HasPrefix(p.Name, "8") && !errors.Is(p, qfile.ErrDamaged) || !strings.HasPrefix(p.Error(), p.Name+": ") {
			t.Error(p)
		}
	}
	left := readFolder(t, dir)
	for _, f := range []folder{damage, other} {
		for n, b := range f {
			if !bytes.Equal(left[n], b) {
				t.Errorf("%s was touched", n)
			}
		}
	}
	own := mustImport(t, q, dir, ImportOptions{Own: true})
	if own.Messages != 0 || len(own.Skipped) != 1 || own.Skipped[0].Name != "error.1_1_0_1_aaaaaa_1_h" {
		t.Errorf("%+v", own)
	}
	if n := len(all(t, q)); n != 6 {
		t.Errorf("%d messages", n)
	}
}

func TestIDs(t *testing.T) {
	files := folder{}
	for i, uuid := range []string{"U.1.1", "U.1.1", "U.1.1", "", "../../x", strings.Repeat("x", 65), "U.1.2"} {
		files[fmt.Sprintf("1_1_0_1_aaaaa%d_1_h", i)] = harakaFile(uuid, `"<a@d.test>"`, `{}`, "x\r\n")
	}
	dir := files.in(t)
	q := openQueue(t)
	mustImport(t, q, dir, ImportOptions{})
	got := all(t, q)
	if len(got) != len(files) {
		t.Fatalf("%d messages of %d", len(got), len(files))
	}
	kept := 0
	for name, s := range got {
		if !s.env.ID.Valid() {
			t.Errorf("%s: %q", name, s.env.ID)
		}
		if string(s.env.ID) == s.env.Notes.String(originUUID) {
			kept++
		}
	}
	if kept != 2 {
		t.Errorf("%d kept their IDs", kept)
	}
	// The files are back, as if they had not been moved: nothing is put twice,
	// and attempts made meanwhile count.
	id := got["1_1_0_1_aaaaa6_1_h"].env.ID
	if err := q.Defer(id, []int{0}, 5, time.Time{}, "450 busy"); err != nil {
		t.Fatal(err)
	}
	dir = files.in(t)
	told := func(p mail.Pending) { t.Errorf("told of %s again", p.ID) }
	if r := mustImport(t, q, dir, ImportOptions{Put: told}); r.Messages != len(files) || r.Known != len(files) {
		t.Errorf("%+v", r)
	}
	if n := len(all(t, q)); n != len(files) {
		t.Errorf("%d messages", n)
	}
	if p, _ := q.Find(id); p.Recipients[0].Attempts != 5 {
		t.Errorf("%+v", p)
	}
	// All IDs are taken by others: the file has to stay.
	const name = "1_1_0_1_bbbbbb_1_h"
	for _, id := range candidateIDs(name, &qfile.Message{UUID: "U.1.1"}) {
		env := &mail.Envelope{ID: id, Recipients: []mail.Recipient{{Address: mail.Address{Local: "a", Domain: "d.test"}}}}
		if _, there := q.Find(id); !there {
			if err := q.Put(env, mail.Memory{[]byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir = folder{name: harakaFile("U.1.1", `"<a@d.test>"`, `{}`, "x\r\n")}.in(t)
	if r := mustImport(t, q, dir, ImportOptions{}); len(r.Failed) != 1 || !errors.Is(r.Failed[0], errClash) {
		t.Errorf("%+v", r)
	}
}

// TestTakenName imports a file whose name is in imported/ already.
// Containers and old hosts have an underscore in their names.
func TestUnderscore(t *testing.T) {
	q := openQueue(t)
	mustImport(t, q, folder{"1_1_0_1_aaaaaa_1_h": harakaFile("U.1", `"<a@web_01.test>"`, `{}`, "x\r\n")}.in(t), ImportOptions{})
	q.Walk(func(p mail.Pending) bool {
		if got := p.Recipients[0].Address.String(); got != "a@web_01.test" {
			t.Error(got)
		}
		return true
	})
	if n := len(all(t, q)); n != 1 {
		t.Errorf("%d messages", n)
	}
}

// A mailbox line would end the header section of what is imported at the next hop.
func TestMailboxLine(t *testing.T) {
	const name = "1700000000123_1700000000123_0_12_abcdef_1_mx"
	for in, want := range map[string]string{
		"Received: by haraka\r\nFrom x y\r\nSubject: s\r\n\r\n..b\r\n": "Received: by haraka\r\nX-Mailbox-Line: From x y\r\nSubject: s\r\n\r\n.b\r\n",
		">From x y\r\nSubject: s\r\n\r\nFrom b\r\n":                    "X-Mailbox-Line: >From x y\r\nSubject: s\r\n\r\nFrom b\r\n",
		"Subject: s\r\n\r\nFrom b\r\n":                                 "Subject: s\r\n\r\nFrom b\r\n",
	} {
		q := openQueue(t)
		mustImport(t, q, folder{name: harakaFile("U.1", `"<a@d.test>"`, `{}`, in)}.in(t), ImportOptions{})
		if got := text(t, all(t, q)[name].content); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestTakenName(t *testing.T) {
	const name = "1_1_0_1_aaaaaa_1_h"
	q := openQueue(t)
	dir := folder{name: harakaFile("A.1.1", `"<a@d.test>"`, `{}`, "one\r\n")}.in(t)
	mustImport(t, q, dir, ImportOptions{})
	if err := os.WriteFile(filepath.Join(dir, name), harakaFile("A.1.2", `"<a@d.test>"`, `{}`, "two\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustImport(t, q, dir, ImportOptions{})
	got := readFolder(t, filepath.Join(dir, imported))
	if len(got) != 2 || !bytes.Contains(got[name], []byte("one")) || !bytes.Contains(got[name+".1"], []byte("two")) {
		t.Error(got.names())
	}
}

func TestRoundTrip(t *testing.T) {
	files := haraka(t)
	files["1700000000123_1700000000123_0_12_abcdef_1_mx"] = harakaFile("U.1.1", `"<\"a b\"@d.test>","<b@d.test>"`, `{"queue":{"next_hop":"smtp://x"}}`, "..A: b\r\n\r\n..\r\n")
	files["1700000000124_33000000000000_7_12_abcdef_1_mx"] = harakaFile("U.1.1", `"<c@d.test>"`, `{}`, "x\r\n") // a part split off
	first, second := openQueue(t), openQueue(t)
	mustImport(t, first, files.in(t), ImportOptions{})
	out := filepath.Join(t.TempDir(), "new", "queue")
	r, err := Export(t.Context(), first, out, ExportOptions{Host: "mx_1.test"})
	if err != nil || r.Messages != len(files) || len(r.Failed)+len(r.Skipped) > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if n := len(all(t, first)); n != len(files) {
		t.Errorf("the export left %d messages", n)
	}
	if r := mustImport(t, second, out, ImportOptions{}); r.Messages != len(files) || len(r.Failed)+len(r.Skipped) > 0 {
		t.Fatalf("%+v", r)
	}
	// Everything but the name of the file must be as it was.
	describe := func(q Source) []string {
		var list []string
		for _, s := range all(t, q) {
			s.env.Notes.Set(originFile, "")
			s.env.ID, s.pending.ID = "", ""
			j, err := json.Marshal([]any{s.env, s.pending, text(t, s.content)})
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, string(j))
		}
		slices.Sort(list)
		return list
	}
	if a, b := describe(first), describe(second); !slices.Equal(a, b) {
		t.Errorf("\n%.3000q\n%.3000q", a, b)
	}
	if _, err := Export(t.Context(), first, filepath.Join(out, imported), ExportOptions{}); err == nil || !strings.Contains(err.Error(), "deliver twice") {
		t.Error("exported beside other files:", err)
	}
}

func TestExport(t *testing.T) {
	q := openQueue(t)
	address := func(s string) mail.Recipient {
		a, err := mail.ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		return mail.Recipient{Address: a}
	}
	received := time.UnixMilli(1700000000123)
	env := &mail.Envelope{
		ID: "F47AC10B-58CC-4372-A567-0E02B2C3D479.3", Received: received.Add(500 * time.Microsecond),
		Recipients: []mail.Recipient{address("a@One.test"), address("b@two.test"), address("c@one.test"), address("d@one.test"), address("gone@one.test")},
	}
	strict := &mail.Envelope{ID: "F47AC10B-58CC-4372-A567-0E02B2C3D479.4", Received: received, RequireTLS: true, Recipients: env.Recipients}
	for _, e := range []*mail.Envelope{env, strict} {
		if err := q.Put(e, mail.Memory{[]byte("A: b\r\n\r\n.dot\r\nend")}); err != nil {
			t.Fatal(err)
		}
	}
	next := received.Add(time.Hour)
	if err := errors.Join(q.Settle(env.ID, []int{4}), q.Defer(env.ID, []int{3}, 2, next, "450 later")); err != nil {
		t.Fatal(err)
	}
	if err := q.SetNotes(env.ID, map[string]any{"n": 1, mail.DeliveryNotes + ".0-1": "ours"}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r, err := Export(t.Context(), q, dir, ExportOptions{Host: "mx_1.test"})
	if err != nil || r.Messages != 3 || len(r.Failed) > 0 || len(r.Skipped) != 1 || r.Skipped[0].Name != string(strict.ID) {
		t.Fatalf("%+v, %v", r, err)
	}
	var got []string
	for name, b := range readFolder(t, dir) {
		n, kind := qfile.ParseName(name)
		m, err := qfile.Decode(bytes.NewReader(b), int64(len(b)))
		if kind != qfile.Waiting || err != nil {
			t.Fatal(name, kind, err)
		}
		var to []string
		for _, r := range m.Recipients {
			to = append(to, r.Address.String())
		}
		if n.Host != "mx_1.test" || n.PID != os.Getpid() || len(n.Unique) != 6 || n.Counter < 1 || !m.Queued.Equal(received) || !n.Arrival.Equal(received) || !m.From.IsNull() {
			t.Errorf("%s: %+v", name, m)
		}
		if got := strings.Join(strings.Fields(string(m.Notes)), ""); got != `{"n":1}` {
			t.Errorf("%s", m.Notes)
		}
		if string(message(b)) != "A: b\r\n\r\n..dot\r\nend\r\n" {
			t.Errorf("%q", message(b))
		}
		got = append(got, fmt.Sprintf("%s %s %d %d %s", m.Domain, m.UUID, n.Attempts, n.Next.Sub(received)/time.Second, to))
	}
	slices.Sort(got)
	want := []string{
		"one.test F47AC10B-58CC-4372-A567-0E02B2C3D479.3.1 0 0 [a@One.test c@one.test]",
		"one.test F47AC10B-58CC-4372-A567-0E02B2C3D479.3.3 2 3600 [d@one.test]",
		"two.test F47AC10B-58CC-4372-A567-0E02B2C3D479.3.2 0 0 [b@two.test]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	files := haraka(t)
	dir := files.in(t)
	q := openQueue(t)
	if _, err := Import(ctx, q, dir, ImportOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if len(readFolder(t, dir)) != len(files) {
		t.Error("files are gone")
	}
	if _, err := Export(ctx, q, t.TempDir(), ExportOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := Import(t.Context(), q, filepath.Join(dir, "nowhere"), ImportOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if r, err := Import(t.Context(), nil, t.TempDir(), ImportOptions{}); err != nil || r.Messages != 0 {
		t.Error("an empty folder:", r, err)
	}
}

// stage returns a file system with an empty queue and Haraka's files, durable.
func stage(t *testing.T, files folder) *crashfs.FS {
	t.Helper()
	fs := crashfs.New()
	if err := fs.Mkdir("/haraka"); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		f, err := fs.Create("/haraka/" + name)
		if err == nil {
			_, err = f.Write(b)
		}
		if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := fs.SyncDir("/haraka"); err != nil {
		t.Fatal(err)
	}
	return fs
}

func queueOn(t *testing.T, fs vfs.FS) *disk.Store {
	t.Helper()
	q, err := disk.Open(disk.Options{Dir: "/queue", FS: fs, SegmentSize: 64 << 10, LargeBody: 4000})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// smallFiles are a few messages, two of which share a UUID and one of which is
// large for queueOn.
func smallFiles() folder {
	files := folder{}
	for i, uuid := range []string{"U.1.1", "U.1.1", "U.1.2"} {
		files[fmt.Sprintf("1700000000123_33000000000000_%d_1_aaaaa%d_1_h", i+1, i)] = harakaFile(uuid, `"<a@d.test>"`, `{}`, strings.Repeat("x\r\n", 10+1500*(i/2)))
	}
	return files
}

// complete checks that a queue holds each file's message once, as it should be.
func complete(t *testing.T, q *disk.Store, files folder) {
	t.Helper()
	got := all(t, q)
	if len(got) != len(files) {
		t.Fatalf("%d messages of %d", len(got), len(files))
	}
	for name, b := range files {
		s, ok := got[name]
		if !ok || text(t, s.content) != string(message(b)) {
			t.Fatalf("%s: the message is not there or another one", name)
		}
		n, _ := qfile.ParseName(name)
		if r := s.pending.Recipients[0]; r.Attempts != n.Attempts || !r.Next.Equal(n.Next) {
			t.Fatalf("%s: %+v", name, r)
		}
	}
}

// TestCrash takes the power at every operation of an import, and repeats it.
func TestCrash(t *testing.T) {
	files := smallFiles()
	for i := 1; ; i++ {
		fs := stage(t, files)
		q := queueOn(t, fs)
		fs.CrashAt(i)
		_, _ = Import(t.Context(), q, "/haraka", ImportOptions{FS: fs})
		done := !fs.Crashed()
		q.Close()
		for _, s := range []crashfs.Survival{crashfs.Nothing, crashfs.Some, crashfs.Some, crashfs.All} {
			next := fs.Restart(s, rand.New(rand.NewPCG(uint64(i), uint64(s))))
			q := queueOn(t, next)
			r, err := Import(t.Context(), q, "/haraka", ImportOptions{FS: next})
			if err != nil || len(r.Failed) > 0 {
				t.Fatalf("at %d: %+v, %v", i, r, err)
			}
			complete(t, q, files)
			list, err := next.List("/haraka")
			if err != nil || len(list) != 1 { // imported/
				t.Fatalf("at %d: %v, %v", i, list, err)
			}
			q.Close()
		}
		if done {
			t.Logf("%d operations", i-1)
			return
		}
	}
}

// TestFail makes every operation of an import fail once. What failed is
// imported by the next one, and nothing twice.
func TestFail(t *testing.T) {
	files := smallFiles()
	for i := 1; ; i++ {
		fs := stage(t, files)
		q := queueOn(t, fs)
		before := fs.Ops()
		fs.FailAt(i, errors.New("input/output error"))
		_, _ = Import(t.Context(), q, "/haraka", ImportOptions{FS: fs})
		done := fs.Ops()-before < i
		inQueue := all(t, q)
		list, err := fs.List("/haraka")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if _, twice := inQueue[e.Name]; twice {
				t.Fatalf("at %d: %s is a file and in the queue", i, e.Name)
			}
		}
		r, err := Import(t.Context(), q, "/haraka", ImportOptions{FS: fs})
		if err != nil || len(r.Failed) > 0 {
			t.Fatalf("at %d: %+v, %v", i, r, err)
		}
		complete(t, q, files)
		q.Close()
		if done {
			t.Logf("%d operations", i-1)
			return
		}
	}
}

// TestExportFails makes every operation of an export fail once: no half file
// has the name of a message, and what is missing is reported.
func TestExportFails(t *testing.T) {
	files := smallFiles()
	for i := 1; ; i++ {
		fs := stage(t, files)
		q := queueOn(t, fs)
		if _, err := Import(t.Context(), q, "/haraka", ImportOptions{FS: fs}); err != nil {
			t.Fatal(err)
		}
		before := fs.Ops()
		fs.FailAt(i, errors.New("input/output error"))
		r, err := Export(t.Context(), q, "/out", ExportOptions{FS: fs, Host: "h"})
		done := fs.Ops()-before < i
		if !done && err == nil && len(r.Failed) == 0 {
			t.Errorf("at %d: nobody was told", i)
		}
		whole := 0
		list, _ := fs.List("/out")
		for _, e := range list {
			if _, kind := qfile.ParseName(e.Name); kind != qfile.Waiting {
				continue
			}
			f, err := fs.Open("/out/" + e.Name)
			if err != nil {
				t.Fatal(err)
			}
			size, err := f.Size()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := qfile.Decode(f, size); err != nil {
				t.Errorf("at %d: %v", i, err)
			}
			whole++
		}
		if whole != r.Messages {
			t.Errorf("at %d: %d files, %+v", i, whole, r)
		}
		q.Close()
		if done {
			t.Logf("%d operations", i-1)
			return
		}
	}
}
