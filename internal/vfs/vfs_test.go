package vfs_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"tarishi/internal/vfs"
	"tarishi/internal/vfs/crashfs"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestTwins holds the real file system and the one in memory to the same rules.
func TestTwins(t *testing.T) {
	for name, fsys := range map[string]vfs.FS{"OS": vfs.OS{}, "NoSync": vfs.NoSync(vfs.OS{}), "crashfs": crashfs.New()} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "b")
			must(t, fsys.Mkdir(dir))
			must(t, fsys.Mkdir(dir))
			x, y := filepath.Join(dir, "x"), filepath.Join(dir, "y")
			f, err := fsys.Create(x)
			must(t, err)
			_, err = f.Write([]byte("ab"))
			must(t, err)
			_, err = f.Write([]byte("cd"))
			must(t, err)
			var bufs [][]byte
			var want bytes.Buffer
			want.WriteString("abcd\x00")
			for i := range 2500 { // more than one call of the kernel takes
				b := bytes.Repeat([]byte{byte(i)}, i%7)
				bufs = append(bufs, b)
				want.Write(b)
			}
			must(t, f.WriteVec(bufs, 5))
			must(t, f.WriteVec(nil, 0))
			must(t, f.Sync())
			must(t, f.Reserve(int64(want.Len()+100)))
			want.Write(make([]byte, 100))
			must(t, f.Close())
			if _, err := fsys.Create(x); !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
			must(t, fsys.Rename(x, y))
			must(t, fsys.SyncDir(dir))
			if _, err := fsys.Open(x); !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			f, err = fsys.Open(y)
			must(t, err)
			n, err := f.Size()
			must(t, err)
			b := make([]byte, n)
			if _, err := f.ReadAt(b, 0); err != nil || !bytes.Equal(b, want.Bytes()) {
				t.Error("content differs", n, want.Len(), err)
			}
			must(t, f.Close())
			must(t, fsys.Mkdir(filepath.Join(dir, "z")))
			list, err := fsys.List(dir)
			must(t, err)
			if len(list) != 2 || list[0] != (vfs.Entry{Name: "y"}) || list[1] != (vfs.Entry{Name: "z", Dir: true}) {
				t.Errorf("%+v", list)
			}
			if size, err := fsys.Size(y); err != nil || size != n {
				t.Error(size, err)
			}
			if _, err := fsys.Size(x); !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			if size, err := fsys.Size(dir); err != nil || size != -1 {
				t.Error(size, err)
			}
			if _, err := fsys.Open(dir); !errors.Is(err, vfs.ErrNotRegular) {
				t.Error(err)
			}
			if b, err := fsys.Barrier(dir); err == nil {
				must(t, b.Sync())
				must(t, b.Close())
			} else if !errors.Is(err, errors.ErrUnsupported) {
				t.Error(err)
			}
			ro := vfs.ReadOnly(fsys)
			_, err = ro.Create(x)
			for _, err := range []error{err, ro.Remove(y), ro.Rename(y, x)} {
				if !errors.Is(err, vfs.ErrReadOnly) {
					t.Error(err)
				}
			}
			if list, err := ro.List(filepath.Join(dir, "nowhere")); err != nil || len(list) > 0 {
				t.Error(list, err)
			}
			must(t, fsys.Remove(y))
			if err := fsys.Remove(y); !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			l, err := fsys.Lock(y)
			must(t, err)
			var locked *vfs.LockedError
			if _, err := fsys.Lock(y); !errors.As(err, &locked) || locked.PID == 0 {
				t.Error(err)
			}
			must(t, l.Close())
			l, err = fsys.Lock(y)
			must(t, err)
			must(t, l.Close())
			if s, err := fsys.Free(dir); err != nil || s.Bytes <= 0 || s.TotalBytes < s.Bytes || s.TotalFiles < s.Files {
				t.Error(s, err)
			}
		})
	}
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink("/etc/hostname", filepath.Join(dir, "link")))
	for _, name := range []string{dir, filepath.Join(dir, "link"), "/dev/null"} {
		if f, err := (vfs.OS{}).Open(name); err == nil {
			f.Close()
			t.Errorf("%s was opened", name)
		}
	}
	if _, err := (vfs.OS{}).Create(filepath.Join(dir, "link")); err == nil {
		t.Error("created through a link")
	}
}

// TestLockWithoutItsFile: the lock holds though somebody removed its file.
func TestLockWithoutItsFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	l, err := vfs.OS{}.Lock(name)
	must(t, err)
	must(t, os.Remove(name))
	var locked *vfs.LockedError
	if _, err := (vfs.OS{}).Lock(name); !errors.As(err, &locked) {
		t.Error(err)
	}
	must(t, l.Close())
	l, err = vfs.OS{}.Lock(name)
	must(t, err)
	must(t, l.Close())
}
