package lease

import (
	"errors"
	"io"
	"sync"
	"testing"

	"tarishi/internal/mail"
)

// TestRevocationWaits: what a borrower is doing when its time ends is done whole.
func TestRevocationWaits(t *testing.T) {
	g := &Gate{}
	n := 0
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 10_000 {
				Touch(g, &n, func(n *int) { *n++ })
			}
		})
	}
	g.Revoke()
	was := n
	all.Wait()
	if n != was {
		t.Errorf("%d changes behind the revocation", n-was)
	}
	if got := Look(g, &n, func(n *int) int { return *n + 1 }); got != 0 || !g.Revoked() {
		t.Errorf("saw %d", got)
	}
}

// TestNoGate: without a gate everything is open.
func TestNoGate(t *testing.T) {
	n := 1
	Touch(nil, &n, func(n *int) { *n++ })
	if got := Look(nil, &n, func(n *int) int { return *n }); got != 2 || (*Gate)(nil).Revoked() {
		t.Errorf("saw %d", got)
	}
	if got := Look(nil, (*int)(nil), func(n *int) int { return *n }); got != 0 {
		t.Errorf("saw %d of nothing", got)
	}
	c := mail.Memory{[]byte("text")}
	if same, ok := Content(nil, c).(mail.Memory); !ok || len(same) != 1 {
		t.Error("the content is another one")
	}
}

// stream is a content whose readers cannot seek.
type stream struct{ mail.Memory }

func (s stream) Open() (io.ReadCloser, error) {
	r, err := s.Memory.Open()
	return struct{ io.ReadCloser }{r}, err
}

func TestContent(t *testing.T) {
	for _, c := range []mail.Content{mail.Memory{[]byte("some "), []byte("text")}, stream{mail.Memory{[]byte("some text")}}} {
		g := &Gate{}
		lent := Content(g, c)
		r, err := lent.Open()
		if err != nil || lent.Size() != 9 {
			t.Fatal(err)
		}
		at, seeks := r.(io.Seeker)
		if _, can := c.(mail.Memory); seeks != can {
			t.Errorf("%T seeks: %v", c, seeks)
		}
		if seeks {
			_, err = at.Seek(5, io.SeekStart)
		} else {
			_, err = io.CopyN(io.Discard, r, 5)
		}
		b := make([]byte, 2)
		if _, bad := io.ReadFull(r, b); bad != nil || err != nil || string(b) != "te" {
			t.Errorf("%q, %v, %v", b, bad, err)
		}
		g.Revoke()
		if _, err := r.Read(b); !errors.Is(err, ErrRevoked) {
			t.Errorf("%v", err)
		}
		if seeks {
			if _, err := at.Seek(0, io.SeekStart); !errors.Is(err, ErrRevoked) {
				t.Errorf("%v", err)
			}
		}
		if _, err := lent.Open(); !errors.Is(err, ErrRevoked) {
			t.Errorf("%v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
