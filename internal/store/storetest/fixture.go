package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/store"
)

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newEnvelope returns one with values that survive any store.
func newEnvelope(recipients int) *mail.Envelope {
	env := &mail.Envelope{
		ID: mail.NewID(mail.NewConnectionID(), 1), From: mail.Address{Local: "a b", Domain: "example.org"},
		Received: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), UTF8: true, Return: "HDRS", EnvelopeID: "x\ny",
		Notes: mail.Notes{"queue": map[string]any{"wants": "outbound"}},
	}
	for i := range recipients {
		env.Recipients = append(env.Recipients, mail.Recipient{Address: mail.Address{Local: fmt.Sprintf("r%d", i), Domain: "example.com"}, Notify: mail.NotifyDelay})
	}
	return env
}

func sampleText(n int) []byte {
	return bytes.Repeat([]byte("Subject: hello\r\n\r\n0123456789abcdef\r\n"), n/36+1)[:n]
}

func mustPut(t *testing.T, s store.Store, env *mail.Envelope, content []byte) {
	t.Helper()
	noError(t, s.Put(env, mail.Memory{content}))
}

// eventually repeats what a store may refuse for a moment after failures.
func eventually(t *testing.T, do func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	err := do()
	for err != nil && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
		err = do()
	}
	noError(t, err)
}

// wantRefused fails unless err is a reply of class 4.
func wantRefused(t *testing.T, what string, err error) {
	t.Helper()
	var r *reply.Reply
	if !errors.As(err, &r) || !r.Temporary() {
		t.Errorf("%s: %v, want a reply of class 4", what, err)
	}
}

// wantUnknown fails unless err says that the message is not here.
func wantUnknown(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, store.ErrUnknown) {
		t.Errorf("%s: %v, want ErrUnknown", what, err)
	}
}

// readContent reads a message to its end.
func readContent(s store.Store, id mail.ID) ([]byte, error) {
	_, c, err := s.Load(id)
	if err != nil {
		return nil, err
	}
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err == nil && int64(len(b)) != c.Size() {
		err = fmt.Errorf("content has %d bytes and says %d", len(b), c.Size())
	}
	return b, err
}

// wantMessage fails unless the store has the message as it was put.
func wantMessage(t *testing.T, s store.Store, env *mail.Envelope, want []byte) {
	t.Helper()
	got, _, err := s.Load(env.ID)
	noError(t, err)
	if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", *env) {
		t.Fatalf("envelope\n%+v\nwant\n%+v", *got, *env)
	}
	if b, err := readContent(s, env.ID); err != nil || !bytes.Equal(b, want) {
		t.Fatalf("content differs: %v", err)
	}
}

// walkedIDs returns what Walk passes.
func walkedIDs(s store.Store) (all []mail.ID) {
	s.Walk(func(p mail.Pending) bool { all = append(all, p.ID); return true })
	return all
}
