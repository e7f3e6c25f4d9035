package catalog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/index"
	"tarishi/internal/store/spool"
)

// content is the Content of a message in the queue, wherever that is when it is
// opened.
type content struct {
	catalog *Catalog
	id      mail.ID
	size    int64
	sum     spool.Sum
	kept    mail.Memory // nil: it is read
}

// Size implements mail.Content.
func (t *content) Size() int64 { return t.size }

// Open implements mail.Content. The reader fails at the end of a content that is not
// what was accepted. Such a message goes to corrupt/.
func (t *content) Open() (io.ReadCloser, error) {
	if t.kept != nil {
		if !t.catalog.Contains(t.id) {
			return nil, fmt.Errorf("%w: %s", store.ErrUnknown, t.id)
		}
		return t.kept.Open()
	}
	var err error
	for range moves {
		var at index.Entry
		if at, err = t.catalog.Lookup(t.id); err != nil {
			return nil, err
		}
		// The message may move between this look and the read: then it is looked for
		// again.
		at.Size = t.size // a partial entry does not know it
		var r *spool.Reader
		if r, err = t.catalog.openContent(t.id, at); err == nil {
			t.catalog.noteUnreadable(t.id, true, nil)
			if !t.sum.Known {
				return r, nil
			}
			return &checked{reader: r, left: t.size, content: t}, nil
		}
		if !hasMoved(err) {
			break
		}
	}

	// A content that is gone or too short never gets better; anything else may.
	if damaged(err) {
		return nil, t.damaged(err)
	}
	t.catalog.noteUnreadable(t.id, true, err)
	return nil, fmt.Errorf("queue: open %s: %w", t.id, err)
}

// damaged moves a message with a damaged content out of the way. It returns the
// error for the reader.
func (t *content) damaged(cause error) error {
	if err := t.catalog.quarantineFound(t.id, cause); err != nil && !errors.Is(err, store.ErrUnknown) {
		t.catalog.log.Error("queue: damaged message stays", zap.String("uuid", string(t.id)), zap.Error(err))
	}
	return fmt.Errorf("queue: read %s: %w", t.id, cause)
}

// damaged says that a message's files or record will never be better.
func damaged(err error) bool {
	return errors.Is(err, errDamaged) || errors.Is(err, spool.ErrDamaged) || errors.Is(err, fs.ErrNotExist)
}

// placed is a content at a place that does not change while it is read.
type placed struct {
	catalog *Catalog
	id      mail.ID
	at      index.Entry
}

// Size implements mail.Content.
func (p placed) Size() int64 { return p.at.Size }

// Open implements mail.Content.
func (p placed) Open() (io.ReadCloser, error) {
	r, err := p.catalog.openContent(p.id, p.at)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// openContent opens a content at its place.
func (c *Catalog) openContent(id mail.ID, at index.Entry) (*spool.Reader, error) {
	if at.Spooled() || at.Is(index.Large) {
		f, err := c.spool.OpenContent(id)
		if err != nil {
			return nil, err
		}

		// A file of another length is not what was accepted.
		n, err := f.Size()
		if err == nil && n != at.Size {
			err = fmt.Errorf("%w: %d bytes instead of %d", errDamaged, n, at.Size)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		return spool.NewReader(f, 0, at.Size, f), nil
	}

	// In the journal the content ends the record.
	r, err := c.journal.Open(at.Loc)
	if err != nil {
		return nil, err
	}
	return spool.NewReader(r, r.Size()-at.Size, at.Size, r), nil
}

// checked reads a content to its end and compares it with its checksum. The last
// bytes are not passed on if that does not match, so that no reader takes a damaged
// content for whole, however it finds the end.
type checked struct {
	reader  *spool.Reader // not embedded: a Seek would go round the checksum
	left    int64
	summer  spool.Summer
	content *content
	err     error
}

// Read implements io.Reader.
func (t *checked) Read(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	if t.left == 0 {
		return 0, io.EOF
	}

	// The last bytes are held back until the checksum is right.
	n, err := t.reader.Read(p)
	t.left -= int64(n)
	_, _ = t.summer.Write(p[:n])
	switch {
	case t.left > 0 && errors.Is(err, io.EOF):
		t.err = t.content.damaged(fmt.Errorf("%w: %d bytes of the content are missing", errDamaged, t.left))
	case t.left == 0 && t.summer.Sum() != t.content.sum:
		t.err = t.content.damaged(fmt.Errorf("%w: the content's checksum does not match", errDamaged))
	default:
		return n, err
	}
	return 0, t.err
}

// Close implements io.Closer. It may be called again.
func (t *checked) Close() error { return t.reader.Close() }
