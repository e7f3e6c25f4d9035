package spool

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
		must(t, s.WriteContent(id, mail.Memory{[]byte("he"), []byte("llo")}))
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
	if len(got) != 3 || got[id] != (Found{id, true, true}) {
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
	if err := s.WriteContent(id, liar{mail.Memory{[]byte("hello")}}); err == nil {
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
	must(t, s.WriteContent(id, mail.Memory{[]byte("hello")}))
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
		must(t, s.WriteContent(id, mail.Memory{[]byte("hello")}))
		writeState(t, s, id)
		must(t, s.Quarantine(id, "why not"))
		must(t, s.Sync())
		if got := walk(t, s); len(got) > 0 {
			t.Errorf("%+v", got)
		}
	}
	for range 2 {
		must(t, s.Preserve("1.log@5+3", "torn", strings.NewReader("abc")))
	}
	must(t, s.Preserve("2.log@0+0", "unreadable", nil))
	list, err := os.ReadDir(filepath.Join(dir, "corrupt"))
	must(t, err)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	want := strings.Fields(`1.log@5+3 1.log@5+3.reason 2.log@0+0.reason ID.eml ID.eml.1 ID.eml.1.reason ID.eml.reason ID.json ID.json.1 ID.json.1.reason ID.json.reason`)
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
		"newer":           {`"version": 1`, `"version": 2`, ErrVersion},
		"no version":      {`"version": 1,`, ``, ErrDamaged},
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
			b = bytes.Replace(good, []byte(c.old), []byte(c.new), 1)
		}
		if _, err := DecodeState(id, b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzState(f *testing.F) {
	b, err := sample(id).Encode()
	must(f, err)
	f.Add(b)
	f.Add([]byte(`{"version":1,"size":1,"envelope":{"id":"A.1","recipients":[{}]},"recipients":[{"status":"pending"}]}`))
	f.Add([]byte(`{"version":1e9}`))
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
