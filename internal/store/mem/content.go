package mem

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"tarishi/internal/mail"
	"tarishi/internal/store"
)

// content is the Content of a message as long as that is here.
type content struct {
	store *Store
	id    mail.ID
	mail.Memory
}

// Open implements mail.Content.
func (c *content) Open() (io.ReadCloser, error) {
	// Only new readers are refused once the message is gone. Open ones read on from memory.
	c.store.mu.Lock()
	_, _, err := c.store.findMessage(c.id)
	c.store.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return c.Memory.Open()
}

// Path implements store.Store: the file is in Options.Dir as long as the message is
// here.
func (s *Store) Path(id mail.ID) (string, error) {
	if s.cluster.options.Dir == "" {
		return "", errors.New("mem: no folder for files")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, m, err := s.findMessage(id)
	if err != nil {
		return "", err
	}

	// The file is made once, and goes with the message.
	if name := s.names[id]; name != "" {
		return name, nil
	}
	name := filepath.Join(s.cluster.options.Dir, string(id)+".eml")
	if err := os.WriteFile(name, m.content[0], 0o600); err != nil {
		return "", err
	}
	s.names[id] = name
	return name, nil
}

// body is a Body that stays in memory.
type body struct {
	text      []byte
	sealed    bool
	discarded bool
}

// NewBody implements store.Store.
func (s *Store) NewBody() store.Body { return &body{} }

var (
	errSealed    = refuse(errors.New("body written after its content was asked for"))
	errDiscarded = refuse(errors.New("body was discarded"))
)

// Write implements store.Body.
func (b *body) Write(p []byte) (int, error) {
	switch {
	case b.discarded:
		return 0, errDiscarded
	case b.sealed:
		return 0, errSealed
	}
	b.text = append(b.text, p...)
	return len(p), nil
}

// Held implements store.Body.
func (b *body) Held() int64 { return int64(cap(b.text)) }

// Spill implements store.Body: there is no other place.
func (b *body) Spill() error { return nil }

// Content implements store.Body.
func (b *body) Content() (mail.Content, error) {
	if b.discarded {
		return nil, errDiscarded
	}
	b.sealed = true
	return mail.Memory{b.text}, nil
}

// Discard implements store.Body.
func (b *body) Discard() { b.text, b.discarded = nil, true }
