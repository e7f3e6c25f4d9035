package maillog

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Levels below debug: what clients and we say to each other, and Haraka's data, at
// which nothing more is logged.
const (
	ProtocolLevel = zapcore.DebugLevel - 1
	DataLevel     = zapcore.DebugLevel - 2
)

// levelNames are Haraka's levels, most verbose first, with what they mean to
// zap. There is no notice between zap's info and warn: mail events, notices in
// Haraka, are at info, so a threshold of notice lets info through.
var levelNames = []struct {
	name  string
	level zapcore.Level
}{
	{"data", DataLevel},
	{"protocol", ProtocolLevel},
	{"debug", zapcore.DebugLevel},
	{"info", zapcore.InfoLevel},
	{"notice", zapcore.InfoLevel},
	{"warn", zapcore.WarnLevel},
	{"error", zapcore.ErrorLevel},
	{"crit", zapcore.DPanicLevel},
	{"alert", zapcore.PanicLevel},
	{"emerg", zapcore.FatalLevel},
}

// ParseLevel returns the threshold for one of Haraka's level names, data to
// emerg, in any case.
func ParseLevel(name string) (zapcore.Level, error) {
	for _, l := range levelNames {
		if strings.EqualFold(name, l.name) {
			return l.level, nil
		}
	}
	return zapcore.InfoLevel, fmt.Errorf("unknown log level %q", name)
}

// levelName is the reverse of ParseLevel; zap has no level of its own that is
// called notice.
func levelName(level zapcore.Level) string {
	for _, l := range levelNames {
		if l.level == level {
			return l.name
		}
	}
	if level < DataLevel {
		return "data"
	}
	return "emerg"
}

// Core writes each entry as one line, with one call of w.Write at a time. Settings.Format
// is
//
//	default  [LEVEL] [ID] [origin] message id=ID k=v k="v v"
//	logfmt   level=… uuid=ID origin=… message=… id=ID k=v
//	json     {"level":…,"uuid":"ID","origin":…,"message":…,"id":"ID","k":v}
//
// and anything else is taken for default. ID is the field "uuid" of the entry
// ("-" if there is none): it stands first where Haraka has it, and as the field
// id of every line so that grep can look for it as a whole. The logger's name is
// the origin ("core" if it has none). With timestamps a line begins with the time,
// ISO 8601 in UTC with milliseconds; logfmt and json have it as their first key,
// timestamp. Nothing in an entry can begin a new line or change how it is shown:
// the characters of mail.IsHidden are written as escapes. A text has at most 8 KiB.
type Core struct {
	how     *atomic.Pointer[manner] // of a core and all its children
	context []zapcore.Field
	out     *output
}

// manner is Settings, read.
type manner struct {
	level      zapcore.Level
	format     string
	timestamps bool
}

// NewCore returns a Core that writes to w. A level that is not known is info.
func NewCore(s Settings, w io.Writer) *Core {
	out := &output{w: w}
	out.buffer, _ = w.(*Writer)
	c := &Core{how: &atomic.Pointer[manner]{}, out: out}
	c.Use(s)
	return c
}

// Use makes c, and every core that was made from it, write as s says from now on.
func (c *Core) Use(s Settings) {
	level, _ := ParseLevel(s.Level) // info if it is not known
	c.how.Store(&manner{level, s.Format, s.Timestamps})
}

// output is where the lines of a core and of all its children go.
type output struct {
	buffer *Writer // what w is, if it is one

	mu sync.Mutex
	w  io.Writer
}

// write hands over one line. lost is how many are missing before it, if it is
// time to say so.
func (o *output) write(line []byte, important bool) (lost int64, err error) {
	if o.buffer != nil {
		return o.buffer.write(line, important), nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err = o.w.Write(line)
	return 0, err
}

// lines are the buffers in which entries are composed.
var lines = sync.Pool{New: func() any { return &line{b: make([]byte, 0, 1024)} }}

// maxKeptLine is the capacity above which a buffer is not used again.
const maxKeptLine = 64 << 10

// Enabled implements zapcore.Core.
func (c *Core) Enabled(level zapcore.Level) bool { return c.how.Load().level.Enabled(level) }

// With implements zapcore.Core.
func (c *Core) With(fields []zapcore.Field) zapcore.Core {
	child := *c
	child.context = append(c.context[:len(c.context):len(c.context)], fields...)
	return &child
}

// Check implements zapcore.Core.
func (c *Core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *Core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	lost, err := c.line(&e, fields)
	if lost > 0 {
		gap := zapcore.Entry{Level: zapcore.WarnLevel, Time: e.Time, LoggerName: "log", Message: "log lines were lost"}
		own := Core{how: c.how, out: c.out}
		own.line(&gap, []zapcore.Field{zap.Int64("lines", lost)})
	}
	if e.Level > zapcore.ErrorLevel {
		c.Sync() // the process may end with this entry
	}
	return err
}

// line composes an entry and hands it over.
func (c *Core) line(e *zapcore.Entry, fields []zapcore.Field) (lost int64, err error) {
	l := lines.Get().(*line)
	l.b = l.b[:0]
	how := c.how.Load()
	switch how.format {
	case "json":
		c.json(l, e, fields, how.timestamps)
	case "logfmt":
		c.logfmt(l, e, fields, how.timestamps)
	default:
		c.plain(l, e, fields, how.timestamps)
	}
	l.b = append(l.b, '\n')
	lost, err = c.out.write(l.b, e.Level >= zapcore.ErrorLevel)
	if cap(l.b) <= maxKeptLine {
		lines.Put(l)
	}
	return lost, err
}

// Sync implements zapcore.Core. A terminal or a pipe cannot be synced, so there
// is no error to speak of.
func (c *Core) Sync() error {
	if c.out.buffer != nil {
		_ = c.out.buffer.Sync() // without the lock, which is for direct writes
		return nil
	}
	if s, ok := c.out.w.(interface{ Sync() error }); ok {
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		_ = s.Sync()
	}
	return nil
}

// uuid returns the last field of that name, or "-".
func (c *Core) uuid(fields []zapcore.Field) string {
	for _, list := range [2][]zapcore.Field{fields, c.context} {
		for i := len(list) - 1; i >= 0; i-- {
			if isUUID(&list[i]) && list[i].String != "" {
				return list[i].String
			}
		}
	}
	return "-"
}

func isUUID(f *zapcore.Field) bool { return f.Type == zapcore.StringType && f.Key == "uuid" }

func origin(e *zapcore.Entry) string {
	if e.LoggerName == "" {
		return "core"
	}
	return e.LoggerName
}

func (c *Core) plain(l *line, e *zapcore.Entry, fields []zapcore.Field, timestamps bool) {
	if timestamps {
		l.time(e.Time)
		l.b = append(l.b, ' ')
	}
	l.b = append(l.b, '[')
	l.b = append(l.b, strings.ToUpper(levelName(e.Level))...)
	l.b = append(l.b, "] ["...)
	id := c.uuid(fields)
	l.escape(id, true)
	l.b = append(l.b, "] ["...)
	l.escape(origin(e), true)
	l.b = append(l.b, "] "...)
	l.escape(clip(e.Message), false)
	l.text("id", id)
	c.fields(l, fields, e.Stack)
}

func (c *Core) logfmt(l *line, e *zapcore.Entry, fields []zapcore.Field, timestamps bool) {
	if timestamps {
		l.key("timestamp")
		l.time(e.Time)
	}
	id := c.uuid(fields)
	l.text("level", levelName(e.Level))
	l.text("uuid", id)
	l.text("origin", origin(e))
	l.text("message", e.Message)
	l.text("id", id)
	c.fields(l, fields, e.Stack)
}

func (c *Core) json(l *line, e *zapcore.Entry, fields []zapcore.Field, timestamps bool) {
	l.json = true
	defer func() { l.json = false }()
	l.b = append(l.b, '{')
	if timestamps {
		l.key("timestamp")
		l.b = append(l.b, '"')
		l.time(e.Time)
		l.b = append(l.b, '"')
	}
	id := c.uuid(fields)
	l.text("level", levelName(e.Level))
	l.text("uuid", id)
	l.text("origin", origin(e))
	l.text("message", e.Message)
	l.text("id", id)
	c.fields(l, fields, e.Stack)
	l.b = append(l.b, '}')
}

// fields writes the context, the fields and the stack of an entry.
func (c *Core) fields(l *line, fields []zapcore.Field, stack string) {
	for _, list := range [2][]zapcore.Field{c.context, fields} {
		for i := range list {
			if !isUUID(&list[i]) {
				l.field(&list[i])
			}
		}
	}
	if stack != "" {
		l.text("stack", stack)
	}
}

// time writes t as ISO 8601 in UTC with milliseconds.
func (l *line) time(t time.Time) { l.b = t.UTC().AppendFormat(l.b, "2006-01-02T15:04:05.000Z") }
