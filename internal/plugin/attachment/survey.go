package attachment

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"io"
	"regexp"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/archive"
	"tarishi/internal/hook"
	"tarishi/internal/lease"
	"tarishi/internal/message"
	"tarishi/internal/plugin"
)

// survey is what was found in one message.
type survey struct {
	c        *checker
	id       string // of the message
	record   plugin.Record
	relaying bool
	walker   *archive.Walker
	result   hook.Verdict // what the archives alone ask for; its zero value: nothing

	attachments []any    // of map[string]any
	types       []string // content types, as they are written
	files       []string // names of attachments
	attach      []any    // the result of that name
}

// newSurvey returns an empty survey.
func (c *checker) newSurvey(e *hook.Event, record plugin.Record) *survey {
	return &survey{
		c: c, id: string(e.Tx.ID()), record: record, relaying: e.Tx.Relaying(),
		walker: archive.NewWalker(archive.Options{
			Limits:    archive.Limits{Depth: c.MaxDepth, Entries: c.MaxEntries, Bytes: c.MaxBytes},
			IsArchive: c.archives.has,
			NewBody:   func() (archive.Body, error) { return e.Tx.NewBody() },
		}),
	}
}

// look looks at a part and those in it, attachments first, as their types stand first in the
// notes.
func (s *survey) look(ctx context.Context, root *message.Part) error {
	// The time of the archives runs from the first on: reading the rest is bounded by the
	// size of the message.
	var archives []named
	var err error
	each(root, func(p *message.Part) {
		if err == nil && isAttachment(p) {
			var name string
			if name, err = s.lookAt(ctx, p); name != "" {
				archives = append(archives, named{name, p})
			}
		}
	})
	if err != nil {
		return err
	}
	each(root, func(p *message.Part) {
		if t := contentType(p); t != "" {
			s.types = append(s.types, t)
		}
	})
	s.record.Set("attach", s.attach)
	if len(archives) > 0 {
		s.unpack(ctx, archives)
	}
	return nil
}

// named is an attachment with the name of an archive.
type named struct {
	name string
	part *message.Part
}

// each calls visit for a part and for all in it.
func each(p *message.Part, visit func(*message.Part)) {
	visit(p)
	for _, child := range p.Parts {
		each(child, visit)
	}
}

// isAttachment reports whether a part is no text to be read. One with a file name is an
// attachment whatever it says of itself: programs save it under that name.
func isAttachment(p *message.Part) bool {
	switch {
	case len(p.Parts) > 0:
		return false
	case p.Disposition() == "attachment" || p.Filename() != "" || p.Params["name"] != "":
		return true
	}
	return !strings.HasPrefix(p.Type, "text/") && !strings.HasPrefix(p.Type, "message/") && !p.IsMultipart()
}

// typePattern is what counts of a field Content-Type.
var typePattern = regexp.MustCompile(`^[^/]+/[^;\r\n ]+`)

// contentType returns the content type that a part names, as it is written; "": it names
// none.
func contentType(p *message.Part) string { return typePattern.FindString(p.Header.Get("Content-Type")) }

// lookAt takes down an attachment, and returns its name if that is of an archive.
func (s *survey) lookAt(ctx context.Context, p *message.Part) (archiveName string, err error) {
	// A part may have two names, and programs choose differently.
	name := clean(p.Filename())
	names := []string{name}
	if other := clean(message.DecodeWords(p.Params["name"])); other != "" && other != name {
		names = append(names, other)
	}
	for _, one := range names {
		if one == "" {
			continue
		}
		s.files = append(s.files, one)
		if archiveName == "" && s.c.archives.has(one) {
			archiveName = one
		}
	}

	// The sum is for looking a file up where viruses are known.
	r, err := p.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	sum := md5.New()
	size, err := io.Copy(sum, during{ctx, r})
	if err != nil {
		return "", err
	}
	digest, written := hex.EncodeToString(sum.Sum(nil)), contentType(p)
	kind := "unknown/unknown"
	if written != "" {
		s.types = append(s.types, written)
		kind = strings.ToLower(written)
	}
	s.attachments = append(s.attachments, map[string]any{"ctype": kind, "filename": name, "extension": strings.ToLower(extension(name)), "md5": digest})
	s.attach = append(s.attach, map[string]any{"file": name, "ctype": kind, "md5": digest, "bytes": size})
	s.c.log.Info("attachment", zap.String("uuid", s.id), zap.String("file", name), zap.String("ctype", kind),
		zap.String("md5", digest), zap.Int64("bytes", size))
	return archiveName, nil
}

// during reads for as long as a context lasts.
type during struct {
	ctx  context.Context
	from io.Reader
}

// Read implements io.Reader.
func (d during) Read(to []byte) (int, error) {
	if err := d.ctx.Err(); err != nil {
		return 0, err
	}
	return d.from.Read(to)
}

// clean returns a name without what cannot be shown.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(name, "?"))
}

// errTurn is the error of archives that nobody had time for.
var errTurn = errors.New("too many other archives were being unpacked")

// unpack looks into archives. Few messages are at it at a time, for it takes memory and
// processors.
func (s *survey) unpack(ctx context.Context, archives []named) {
	ctx, cancel := context.WithTimeout(ctx, s.c.Timeout)
	defer cancel()
	select {
	case s.c.turns <- struct{}{}:
		defer func() { <-s.c.turns }()
	case <-ctx.Done():
		s.fail(archives[0].name, errTurn)
		return
	}

	// After an archive beyond a limit the others do not matter, but after a broken one they do.
	for _, a := range archives {
		if err := s.walker.Walk(ctx, a.name, a.part.Open); err != nil {
			s.fail(a.name, err)
			if !errors.Is(err, archive.ErrDamaged) {
				break
			}
		}
	}
	for i, name := range s.walker.Names {
		s.walker.Names[i] = clean(name)
	}
	for _, name := range s.walker.Opaque {
		s.record.Skip("no archive of a known format: " + clean(name))
	}
	if s.walker.Encrypted && !s.c.AllowEncrypted && s.result.Code != hook.Deny {
		s.result = hook.Answer(hook.Deny, textEncrypted)
	}
}

// fail takes down that an archive could not be looked into. A permanent refusal counts more
// than a temporary one.
func (s *survey) fail(name string, err error) {
	s.record.Err(name + ": " + err.Error())
	if v := unpackingFailed(err, s.relaying); s.result.Code == 0 || v.Code == hook.Deny {
		s.result = v
	}
}

// note leaves Haraka's notes.
func (s *survey) note(notes lease.Notes) {
	for name, list := range map[string][]string{
		"attachment_ctypes": s.types, "attachment_files": s.files, "attachment_archive_files": s.walker.Names,
	} {
		if list == nil {
			list = []string{}
		}
		notes.Set(name, list)
	}
	attachments := s.attachments
	if attachments == nil {
		attachments = []any{}
	}
	notes.Set("attachments", attachments)
	notes.Set("attachment_count", 0) // of archives that are still being unpacked
	if s.result.Code != 0 {
		notes.Set("attachment_result", []any{int(s.result.Code), s.result.Text})
	}
}
