package disk_test

import (
	"path/filepath"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/disk"
	"tarishi/internal/store/storetest"
	"tarishi/internal/vfs/crashfs"
)

// TestContract runs the suite of all stores on a disk that forgets what was not synced,
// and with a journal so short that messages leave it.
func TestContract(t *testing.T) {
	for name, survival := range map[string]crashfs.Survival{"the power fails": crashfs.Nothing, "the process dies": crashfs.All} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) *storetest.Place { return place(t, survival) })
		})
	}
}

func place(t *testing.T, survival crashfs.Survival) *storetest.Place {
	fs := crashfs.New()
	return &storetest.Place{
		Open: func() (store.Store, error) {
			return disk.Open(disk.Options{Dir: "/queue", FS: fs, SegmentSize: 32 << 10, LargeBody: 5000})
		},
		Crash:   func() { fs = fs.Restart(survival, nil) },
		CrashAt: func(n int) { fs.CrashAt(n) },
		Crashed: func() bool { return fs.Crashed() },
		Fail: func(err error) {
			if err == nil {
				fs.FailFrom(1, 0, nil)
			} else {
				fs.FailFrom(1, 1<<30, err)
			}
		},
		Damage: func(t *testing.T, id mail.ID) { flip(t, fs, id) },
	}
}

// flip changes a bit of the file with a content.
func flip(t *testing.T, fs *crashfs.FS, id mail.ID) {
	t.Helper()
	name := filepath.Join("/queue/msg", string(id[:2]), string(id)+".eml")
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	b[n/2] ^= 1
	if err := fs.Remove(name); err != nil {
		t.Fatal(err)
	}
	f, err = fs.Create(name)
	if err == nil {
		if _, err = f.Write(b); err == nil {
			if err = f.Sync(); err == nil {
				err = fs.SyncDir(filepath.Dir(name))
			}
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
