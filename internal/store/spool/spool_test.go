package spool

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/vfs"
)

const id = mail.ID("F47AC10B-58CC-4372-A567-0E02B2C3D479.1")

func sample(id mail.ID) *State {
	next := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	return &State{
		Size: 5,
		Envelope: &mail.Envelope{
			ID: id, From: mail.Address{Local: "a \"b", Domain: "x"}, Received: next,
			Recipients: []mail.Recipient{{Address: mail.Address{Local: "é", Domain: "y"}}, {Address: mail.Address{Local: "postmaster"}, ORCPT: "rfc822;\n}"}},
		},
		Recipients: []Recipient{{Status: Pending, Attempts: 2, Next: &next, Last: "451 \x00\"\n"}, {Status: Settled}},
	}
}

func open(t testing.TB) (*Spool, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(vfs.OS{}, dir)
	must(t, err)
	return s, dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func walk(t testing.TB, s *Spool) map[mail.ID]Found {
	t.Helper()
	m := map[mail.ID]Found{}
	s.Walk(func(f Found) { m[f.ID] = f }, func(dir string, err error) { t.Error(dir, err) })
	return m
}

// write writes a content that is accepted.
func write(s *Spool, id mail.ID, c mail.Content) error {
	_, err := s.WriteContent(id, c)
	if err == nil {
		err = s.Accept(id)
	}
	return err
}

// writeState writes a state with and without a barrier.
func writeState(t testing.TB, s *Spool, id mail.ID) {
	t.Helper()
	for _, few := range []bool{false, true} {
		b := s.Batch(few)
		must(t, b.Write(sample(id), nil))
		must(t, b.Commit())
	}
}

func TestWriteLoadRemove(t *testing.T) {
	s, dir := open(t)
	for _, id := range []mail.ID{id, "x.1", "A"} {
		must(t, write(s, id, mail.Memory{[]byte("he"), []byte("llo")}))
		writeState(t, s, id)
		writeState(t, s, id)
		must(t, s.Sync())
		st, err := s.LoadState(id)
		must(t, err)
		a, _ := st.Encode()
		b, _ := sample(id).Encode()
		if !bytes.Equal(a, b) {
			t.Errorf("got\n%s\nwant\n%s", a, b)
		}
		if b, err := os.ReadFile(s.Path(id)); string(b) != "hello" {
			t.Errorf("%q %v", b, err)
		}
		if info, err := os.Stat(s.Path(id)); err != nil || info.Mode().Perm() != 0o600 {
			t.Error(info, err)
		}
		if info, err := os.Stat(filepath.Dir(s.Path(id))); err != nil || info.Mode().Perm() != 0o700 {
			t.Error(info, err)
		}
	}
	if s.Path(id) != filepath.Join(dir, "msg", "F4", string(id)+".eml") || filepath.Base(filepath.Dir(s.Path("x.1"))) != "00" {
		t.Error(s.Path(id), s.Path("x.1"))
	}
	must(t, os.WriteFile(s.Path(id)+".9.tmp", nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "msg", "body.9.tmp"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "msg", "F4", "note.txt"), nil, 0o600))
	got := walk(t, s)
	if len(got) != 3 || got[id] != (Found{ID: id, Content: true, State: true}) {
		t.Errorf("%+v", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "msg", "*", "*.tmp")); len(left) > 0 {
		t.Error(left)
	}
	for i := range got {
		must(t, s.Remove(i))
		must(t, s.Remove(i))
	}
	must(t, s.Sync())
	if got := walk(t, s); len(got) > 0 {
		t.Errorf("%+v", got)
	}
}

func TestContentThatLies(t *testing.T) {
	s, dir := open(t)
	if err := write(s, id, liar{mail.Memory{[]byte("hello")}}); err == nil {
		t.Error("taken")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "msg", "*", "*")); len(left) > 0 {
		t.Error(left)
	}
}

type liar struct{ mail.Memory }

func (liar) Size() int64 { return 6 }

func TestNoLinkIsFollowed(t *testing.T) {
	s, dir := open(t)
	target := filepath.Join(dir, "target")
	must(t, os.WriteFile(target, []byte("precious"), 0o600))
	writeState(t, s, id)
	must(t, os.Symlink(target, s.Path(id)))
	if _, err := s.OpenContent(id); err == nil {
		t.Error("a link was opened")
	}
	must(t, write(s, id, mail.Memory{[]byte("hello")}))
	if b, _ := os.ReadFile(target); string(b) != "precious" {
		t.Errorf("%q", b)
	}
}

func TestTempAndPlace(t *testing.T) {
	s, _ := open(t)
	f, name, err := s.Temp()
	must(t, err)
	_, err = f.Write([]byte("hello"))
	must(t, err)
	must(t, f.Sync())
	must(t, s.Place(id, name))
	must(t, s.SyncContent(id))
	must(t, f.Close())
	if got := walk(t, s); len(got) != 1 || got[id] != (Found{ID: id, New: true}) {
		t.Errorf("before it is accepted: %+v", got)
	}
	if n, err := s.ContentSize(id); n != 5 || err != nil {
		t.Error(n, err)
	}
	must(t, s.Accept(id))
	if got := walk(t, s); len(got) != 1 || got[id] != (Found{ID: id, Content: true}) {
		t.Errorf("accepted: %+v", got)
	}
	c, err := s.OpenContent(id)
	must(t, err)
	defer c.Close()
	if n, err := c.Size(); n != 5 || err != nil {
		t.Error(n, err)
	}
	_, name, err = s.Temp()
	must(t, err)
	must(t, s.Drop(name))
	if err := s.Place(id, name); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestQuarantine(t *testing.T) {
	s, dir := open(t)
	for range 2 { // the same name comes again
		must(t, write(s, id, mail.Memory{[]byte("hello")}))
		writeState(t, s, id)
		must(t, s.Quarantine(id, "why not"))
		must(t, s.Sync())
		if got := walk(t, s); len(got) > 0 {
			t.Errorf("%+v", got)
		}
	}
	for range 2 {
		must(t, s.Preserve("1.log@5+3", "torn", strings.NewReader("abc")))
		must(t, s.Preserve("1.log@5+3", "torn", strings.NewReader("xyz"))) // of another segment with that number
	}
	for name, want := range map[string]string{"1.log@5+3": "abc", "1.log@5+3.1": "xyz"} {
		if b, err := os.ReadFile(filepath.Join(dir, "corrupt", name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	must(t, s.Preserve("2.log@0+0", "unreadable", nil))
	list, err := os.ReadDir(filepath.Join(dir, "corrupt"))
	must(t, err)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	want := strings.Fields(`1.log@5+3 1.log@5+3.1 1.log@5+3.1.reason 1.log@5+3.reason 2.log@0+0.reason ID.eml ID.eml.1 ID.eml.1.reason ID.eml.reason ID.json ID.json.1 ID.json.1.reason ID.json.reason`)
	if got := strings.ReplaceAll(strings.Join(names, " "), string(id), "ID"); got != strings.Join(want, " ") {
		t.Error(got)
	}
	b, _ := os.ReadFile(filepath.Join(dir, "corrupt", string(id)+".eml.reason"))
	if !strings.Contains(string(b), "reason: why not\n") {
		t.Errorf("%s", b)
	}
}

func TestDamagedStates(t *testing.T) {
	good, err := sample(id).Encode()
	must(t, err)
	for name, c := range map[string]struct {
		old, new string
		want     error
	}{
		"good":            {"", "", nil},
		"newer":           {`"version": 2`, `"version": 3`, ErrVersion},
		"no version":      {`"version": 2,`, ``, ErrDamaged},
		"an odd checksum": {`"size"`, `"content_crc32c": "123", "size"`, ErrDamaged},
		"negative size":   {`"size": 5`, `"size": -5`, ErrDamaged},
		"another message": {string(id), "A.1", ErrDamaged},
		"status":          {`"settled"`, `"setled"`, ErrDamaged},
		"attempts":        {`"attempts": 2`, `"attempts": -2`, ErrDamaged},
		"no envelope":     {`"envelope"`, `"env"`, ErrDamaged},
		"no states":       {`"status": "settled"`, `"status": "settled" }, { "status": "settled"`, ErrDamaged},
		"a list":          {string(good), `[]`, ErrDamaged},
		"nothing":         {string(good), ``, ErrDamaged},
		"null":            {string(good), `null`, ErrDamaged},
	} {
		b := good
		if c.old != "" {
			b = sealed(bytes.Replace(good, []byte(c.old), []byte(c.new), 1))
		}
		if _, err := DecodeState(id, b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// sealed returns a document with the checksum that it should have.
func sealed(doc []byte) []byte {
	if there, _ := checkSum(doc); !there {
		return doc
	}
	doc = doc[:len(doc)-trailerSize]
	return append(bytes.Clone(doc), trailer(doc)...)
}

// TestOneBit: whatever single bit of a document is another, it is noticed.
func TestOneBit(t *testing.T) {
	st := sample(id)
	st.Content = SumOf([]byte("hello"))
	good, err := st.Encode()
	must(t, err)
	if got, err := DecodeState(id, good); err != nil || got.Content != st.Content {
		t.Fatal(got, err)
	}
	for i := range 8 * len(good) {
		b := bytes.Clone(good)
		b[i/8] ^= 1 << (i % 8)
		if _, err := DecodeState(id, b); !errors.Is(err, ErrDamaged) {
			t.Errorf("bit %d of %q: %v", i%8, good[max(0, i/8-5):min(len(good), i/8+5)], err)
		}
	}
}

// TestWithoutChecksum: the documents of the first version had none.
func TestWithoutChecksum(t *testing.T) {
	b, err := sample(id).Encode()
	must(t, err)
	b = append(b[:len(b)-trailerSize], "\n}\n"...)
	if _, err := DecodeState(id, b); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	old := bytes.Replace(b, []byte(`"version": 2`), []byte(`"version": 1`), 1)
	if st, err := DecodeState(id, old); err != nil || st.Content.Known || st.Size != 5 {
		t.Error(st, err)
	}
}

// TestBatchChecksContents: a content is compared with its checksum on its way
// into a file, and nothing takes its place if it is another.
func TestBatchChecksContents(t *testing.T) {
	s, dir := open(t)
	for _, few := range []bool{false, true} {
		b, st := s.Batch(few), sample(id)
		st.Content = SumOf([]byte("hellp"))
		if err := b.Write(st, mail.Memory{[]byte("hello")}); !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
		must(t, b.Commit())
		if left, _ := filepath.Glob(filepath.Join(dir, "msg", "*", "*")); len(left) > 0 {
			t.Error(left)
		}
	}
	b := s.Batch(true)
	must(t, b.Write(sample(id), mail.Memory{[]byte("hel"), []byte("lo")}))
	must(t, b.Commit())
	if st, err := s.LoadState(id); err != nil || st.Content != SumOf([]byte("hello")) {
		t.Error(st, err)
	}
}

// TestAstray: files in a folder that is not theirs are brought home, or set aside
// if their place is taken.
func TestAstray(t *testing.T) {
	s, dir := open(t)
	names := []mail.ID{id, "0A.1", "0B.1", "0C.1"}
	for _, id := range names {
		must(t, write(s, id, mail.Memory{[]byte("hello")}))
		writeState(t, s, id)
	}
	msg := func(name string) string { return filepath.Join(dir, "msg", name) }
	must(t, os.Mkdir(msg("elsewhere"), 0o700))
	must(t, os.Rename(s.Path(id), msg(filepath.Base(s.Path(id)))))
	must(t, os.Rename(s.Path("0A.1"), msg("0B/0A.1.eml")))
	must(t, os.Rename(msg("0A/0A.1.json"), msg("elsewhere/0A.1.json")))
	must(t, os.WriteFile(msg("0A/0B.1.eml"), []byte("another"), 0o600))
	must(t, os.WriteFile(msg("0A/0C.1.new"), []byte("another"), 0o600))
	said := 0
	got := map[mail.ID]Found{}
	s.Walk(func(f Found) { got[f.ID] = f }, func(_ string, err error) { said++ })
	for _, id := range names {
		if got[id] != (Found{ID: id, Content: true, State: true}) {
			t.Errorf("%+v", got[id])
		}
		if b, err := os.ReadFile(s.Path(id)); string(b) != "hello" {
			t.Errorf("%q %v", b, err)
		}
	}
	if said < 6 {
		t.Errorf("of 5 files, and one again, %d are told", said)
	}
	for _, name := range []string{"0B.1.eml", "0B.1.eml.reason", "0C.1.new", "0C.1.new.reason"} {
		if _, err := os.Stat(filepath.Join(dir, "corrupt", name)); err != nil {
			t.Error(err)
		}
	}
	if got := walk(t, s); len(got) != 4 {
		t.Errorf("%+v", got)
	}
}

// TestNoFile: what is no regular file is damaged, and nobody waits for it.
func TestNoFile(t *testing.T) {
	for name, put := range map[string]func(name string) error{
		"link":   func(name string) error { return os.Symlink("/etc/hostname", name) },
		"folder": func(name string) error { return os.Mkdir(name, 0o700) },
		"FIFO":   func(name string) error { return syscall.Mkfifo(name, 0o600) },
		"socket": func(name string) error { return syscall.Mknod(name, syscall.S_IFSOCK|0o600, 0) },
	} {
		s, dir := open(t)
		must(t, s.prepareFolder(filepath.Dir(s.Path(id))))
		must(t, put(s.Path(id)))
		must(t, put(strings.TrimSuffix(s.Path(id), "eml")+"json"))
		if _, err := s.LoadState(id); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s as a state: %v", name, err)
		}
		if _, err := s.OpenContent(id); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s as a content: %v", name, err)
		}
		must(t, s.Quarantine(id, "no file"))
		for _, ext := range []string{".eml", ".json"} {
			if _, err := os.Lstat(filepath.Join(dir, "corrupt", string(id)+ext)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func FuzzState(f *testing.F) {
	b, err := sample(id).Encode()
	must(f, err)
	f.Add(b)
	f.Add([]byte(`{"version":1,"size":1,"envelope":{"id":"A.1","recipients":[{}]},"recipients":[{"status":"pending"}]}`))
	f.Add([]byte(`{"version":1e9}`))
	f.Add(sealed(bytes.Replace(b, []byte(`"size": 5`), []byte(`"size": 5, "content_crc32c": "00000000"`), 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, id := range []mail.ID{id, "A.1"} {
			st, err := DecodeState(id, b)
			if err != nil {
				continue
			}
			again, err := st.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := DecodeState(id, again); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestQuarantineBesideAFolder: what stands in corrupt/ under the name keeps it.
func TestQuarantineBesideAFolder(t *testing.T) {
	s, dir := open(t)
	id := mail.ID("ABC.1")
	writeState(t, s, id)
	must(t, os.Mkdir(filepath.Join(dir, "corrupt", "ABC.1.json"), 0o700))
	must(t, s.Quarantine(id, "for a test"))
	for _, name := range []string{"ABC.1.json.1", "ABC.1.json.1.reason"} {
		if _, err := os.Stat(filepath.Join(dir, "corrupt", name)); err != nil {
			t.Error(err)
		}
	}
}
