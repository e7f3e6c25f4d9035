package crashfs

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
)

func content(f *FS, name string) string {
	h, err := f.Open(name)
	if err != nil {
		return "none"
	}
	b := make([]byte, 100)
	n, _ := h.ReadAt(b, 0)
	return string(b[:n])
}

func TestWhatSurvives(t *testing.T) {
	f := New()
	a, _ := f.Create("/a")
	_, _ = a.Write([]byte("one"))
	_ = a.Sync()
	_ = f.SyncDir("/")
	_, _ = a.Write([]byte("two"))
	_, _ = f.Create("/b")
	for s, want := range map[Survival][2]string{Nothing: {"one", "none"}, All: {"onetwo", ""}} {
		r := f.Restart(s, nil)
		if got := [2]string{content(r, "/a"), content(r, "/b")}; got != want {
			t.Errorf("%d: %q", s, got)
		}
	}
	seen := map[[2]string]bool{}
	for i := range 100 {
		r := f.Restart(Some, rand.New(rand.NewPCG(1, uint64(i))))
		seen[[2]string{content(r, "/a"), content(r, "/b")}] = true
	}
	if len(seen) != 4 {
		t.Errorf("%v", seen)
	}
	if _, err := f.Create("/c"); !errors.Is(err, ErrCrashed) {
		t.Error(err)
	}
}

func TestAFailedSyncIsForGood(t *testing.T) {
	f := New()
	a, _ := f.Create("/a")
	_ = f.SyncDir("/")
	_, _ = a.Write([]byte("lost"))
	f.FailAt(1, syscall.EIO)
	if err := a.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if err := a.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := content(f, "/a"); got != "lost" {
		t.Errorf("%q", got)
	}
	if got := content(f.Restart(All, nil), "/a"); got != "" {
		t.Errorf("%q survives", got)
	}
}

func TestCrashAt(t *testing.T) {
	f := New()
	f.CrashAt(2)
	a, err := f.Create("/a")
	if err != nil || f.Crashed() {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("half")); !errors.Is(err, ErrCrashed) || !f.Crashed() || f.Ops() != 2 {
		t.Fatal(err, f.Ops())
	}
	if got := content(f.Restart(All, nil), "/a"); got != "ha" {
		t.Errorf("%q", got)
	}
}
