package disk

import "testing"

// TestUse: settings count from the moment at which they are given, for the size from
// which a content has a file and for the space that stays free.
func TestUse(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), LargeBody: 5000})
	isFile := func(size int) bool {
		t.Helper()
		b := q.NewBody().(*Body)
		defer b.Discard()
		if _, err := b.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		return b.file != nil
	}
	if isFile(4000) || !isFile(6000) {
		t.Error("not 5000 bytes")
	}
	q.Use(Settings{SpoolAfter: 1000})
	if !isFile(4000) || q.mustStayFree(1<<40) != 0 {
		t.Error("the new settings do not count")
	}
	q.Use(Settings{SpoolAfter: 0})
	if !isFile(2) {
		t.Error("0 bytes of a message are kept in memory")
	}
	q.Use(Settings{MinFree: MinFree{Bytes: 1 << 62}})
	if q.Room(1) == nil || q.mustStayFree(1<<40) != 1<<62 {
		t.Error("the newest settings do not count")
	}
}
