package window

import (
	"bytes"
	"testing"
)

func TestLastByte(t *testing.T) {
	b := make([]byte, 3*windowSize+100)
	for _, at := range []int{-1, 0, 1, 99, len(zeros) - 1, len(zeros), windowSize - 1, windowSize, 2*windowSize + 50, len(b) - 1} {
		clear(b)
		if at >= 0 {
			b[at] = 1
		}
		w := New(bytes.NewReader(b), int64(len(b)))
		if got := w.LastByte(0); got != int64(at+1) {
			t.Errorf("byte at %d: %d", at, got)
		}
		want := int64(len(b)) / Align * Align
		if at >= 0 && at < int(want) {
			want = int64(at) / Align * Align
		}
		if got := w.SkipZeros(0, int64(len(b))/Align*Align); got != want {
			t.Errorf("zeros up to %d: %d, want %d", at, got, want)
		}
	}
}
