// Package attachment is the plugin attachment: it refuses messages by the names and types
// of their attachments, and by the names of files in archives. See README.md.
package attachment

import (
	"context"
	"errors"
	"runtime"

	"go.uber.org/zap"

	"tarishi/internal/archive"
	"tarishi/internal/hook"
	"tarishi/internal/message"
	"tarishi/internal/plugin"
	"tarishi/internal/reply"
	"tarishi/internal/result"
)

// Name is the plugin's name in config/plugins.
const Name = "attachment"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	s := env.Settings.(*Settings)
	return &checker{
		Settings: s, disallowed: parseExtensions(s.Disallowed), archives: parseExtensions(s.Extensions), log: env.Log,
		recorder: env.NewRecorder(Name, result.Format{Hide: []string{"attach"}}), turns: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}, nil
}

// checker is the plugin.
type checker struct {
	*Settings
	disallowed, archives extensions
	log                  *zap.Logger
	recorder             *plugin.Recorder
	turns                chan struct{} // holds one for each message with archives being unpacked
}

// Register implements plugin.Plugin. The archives, which can take long, have Timeout.
func (c *checker) Register(h plugin.Host) {
	h.Timeout(0)
	h.On(hook.OnDataPost, "check_attachments", 0, c.checkAttachments)
}

// The replies, which are Haraka's.
const (
	textDepth     = "Message contains nested archives exceeding the maximum depth"
	textBytes     = "Message contains an archive whose decompressed size exceeds the limit"
	textEntries   = "Message contains an archive whose entry count exceeds the limit"
	textEncrypted = "Message contains encrypted archive"
	textUnpacking = "Error unpacking archive"
	textParts     = "Transaction failed due to too many MIME parts"
	textDeep      = "Message is too complex to be checked"
)

// checkAttachments looks at all parts of a message.
func (c *checker) checkAttachments(ctx context.Context, e *hook.Event) hook.Verdict {
	m := e.Tx.Message()
	if m == nil {
		return hook.Proceed()
	}
	record := c.recorder.On(e.Tx.Results())
	defer record.Log()

	// A message that cannot be looked at as a whole does not become simpler when it comes again,
	// unless it is the storage that fails.
	root, err := m.Root()
	switch {
	case errors.Is(err, message.ErrParts):
		return tooComplex(record, textParts)
	case errors.Is(err, message.ErrDepth), errors.Is(err, message.ErrHeader):
		return tooComplex(record, textDeep)
	case err != nil:
		record.Err(err.Error())
		return refuse(record, hook.DenySoft, textUnpacking)
	}
	s := c.newSurvey(e, record)
	if err := s.look(ctx, root); err != nil {
		record.Err(err.Error())
		return refuse(record, hook.DenySoft, textUnpacking)
	}
	s.note(e.Tx.Notes())
	return c.judge(s)
}

// judge returns the verdict on what was found, in Haraka's order.
func (c *checker) judge(s *survey) hook.Verdict {
	if s.result.Code != 0 {
		return refuse(s.record, s.result.Code, s.result.Text)
	}
	members := s.walker.Names
	for _, names := range [][]string{s.files, members} {
		for _, name := range names {
			if c.disallowed.has(name) {
				return refuse(s.record, hook.Deny, "Message contains disallowed file extension ("+extension(name)+")")
			}
		}
	}

	// The expression that matched is for the administrator, not for the sender.
	for _, check := range []struct {
		list  *list
		texts []string
		what  string
	}{{&c.Types, s.types, "content type"}, {&c.Files, s.files, "attachment"}, {&c.Members, members, "attachment"}} {
		if text, expression, matched := check.list.match(check.texts); matched {
			c.log.Info("match", zap.String("uuid", s.id), zap.String("text", text), zap.String("regexp", expression))
			return refuse(s.record, hook.Deny, "Message contains unacceptable "+check.what+" ("+text+")")
		}
	}
	return hook.Proceed()
}

// refuse records a refusal and returns it.
func refuse(record plugin.Record, how hook.Code, text string) hook.Verdict {
	record.Fail(text)
	return record.Refuse(hook.Answer(how, text))
}

// tooComplex refuses a message with the reply that Haraka has while it receives one.
func tooComplex(record plugin.Record, text string) hook.Verdict {
	v := refuse(record, hook.Deny, text)
	v.Reply = reply.New(554, "5.6.0", text)
	return v
}

// unpackingFailed returns the answer to archives that could not be looked into as a whole.
func unpackingFailed(err error, relaying bool) hook.Verdict {
	switch {
	case errors.Is(err, archive.ErrBytes):
		return hook.Answer(hook.Deny, textBytes)
	case errors.Is(err, archive.ErrEntries):
		return hook.Answer(hook.Deny, textEntries)
	case errors.Is(err, archive.ErrDepth):
		return hook.Answer(hook.Deny, textDepth)
	case relaying: // our own clients, as in Haraka
		return hook.Verdict{}
	}
	return hook.Answer(hook.DenySoft, textUnpacking)
}
