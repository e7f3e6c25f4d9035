package maillog

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"go.uber.org/zap/zapcore"

	"tarishi/internal/mail"
)

// line is one entry in the making: key=value pairs, or the members of a JSON
// object.
type line struct {
	b    []byte
	json bool
	list list // the array encoder, kept here so that arrays need no allocation
}

// key begins a pair. A name that the entry itself uses gets an underscore.
func (l *line) key(name string) {
	if !l.json {
		if len(l.b) > 0 && l.b[len(l.b)-1] != ' ' {
			l.b = append(l.b, ' ')
		}
		for i := 0; i < len(name); i++ {
			c := name[i]
			if c <= ' ' || c == '=' || c == '"' || c >= 0x7f {
				c = '_'
			}
			l.b = append(l.b, c)
		}
		l.b = append(l.b, '=')
		return
	}
	if l.b[len(l.b)-1] != '{' {
		l.b = append(l.b, ',')
	}
	l.quote(name)
	l.b = append(l.b, ':')
}

// text writes a pair whose value is a string.
func (l *line) text(key, value string) {
	l.key(key)
	l.value(clip(value))
}

// maxText is how many bytes of a text are written. Peers choose some, such as a Message-ID or the
// name of a file: one that fills the buffer would cost the lines of other mail, or its own.
const maxText = 8 << 10

// clip cuts a text that is too long.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for n > maxText-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// value writes a string: quoted in JSON, and elsewhere if it needs it.
func (l *line) value(s string) {
	if l.json || needsQuotes(s) {
		l.quote(s)
		return
	}
	l.b = append(l.b, s...)
}

func needsQuotes(s string) bool {
	if s == "" {
		return true
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c == '"' || c == '\\' || c == '=' || c >= 0x7f {
			return true
		}
	}
	return false
}

// quote writes s as a JSON string, which is also how the other formats quote.
func (l *line) quote(s string) {
	l.b = append(l.b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		if c < utf8.RuneSelf && (c == '"' || c == '\\') {
			l.b = append(l.b, s[start:i]...)
			l.b = append(l.b, '\\', c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if !breaks(r, size) {
			i += size
			continue
		}
		l.b = append(l.b, s[start:i]...)
		l.escaped(r)
		i += size
		start = i
	}
	l.b = append(l.b, s[start:]...)
	l.b = append(l.b, '"')
}

// breaks reports whether a rune must not stand in a line as it is: what cannot be
// seen or changes how the rest of the line is shown, and what is not UTF-8.
func breaks(r rune, size int) bool {
	return mail.IsHidden(r) || r == utf8.RuneError && size == 1
}

// escaped writes a rune for which breaks is true, as JSON does.
func (l *line) escaped(r rune) {
	switch r {
	case '\n':
		l.b = append(l.b, '\\', 'n')
	case '\r':
		l.b = append(l.b, '\\', 'r')
	case '\t':
		l.b = append(l.b, '\\', 't')
	default:
		if r > 0xffff {
			high, low := utf16.EncodeRune(r)
			l.escaped(high)
			r = low
		}
		const hex = "0123456789abcdef"
		l.b = append(l.b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
	}
}

// escape writes s without quotes; bracketed text may hold no closing bracket.
func (l *line) escape(s string, bracketed bool) {
	for _, r := range s {
		size := utf8.RuneLen(r)
		switch {
		case r == utf8.RuneError: // of a bad byte or a real one, all the same
			l.b = utf8.AppendRune(l.b, r)
		case breaks(r, size):
			l.escaped(r)
		case bracketed && r == ']':
			l.b = append(l.b, '_')
		default:
			l.b = utf8.AppendRune(l.b, r)
		}
	}
}

// field writes one field. The types that entries are made of are written
// without allocation; what is rare goes through encoding/json.
func (l *line) field(f *zapcore.Field) {
	key := f.Key
	switch key {
	case "level", "uuid", "id", "origin", "message", "timestamp":
		key += "_"
	}
	switch f.Type {
	case zapcore.StringType:
		l.text(key, f.String)
	case zapcore.BoolType:
		l.key(key)
		l.b = strconv.AppendBool(l.b, f.Integer == 1)
	case zapcore.Int64Type, zapcore.Int32Type, zapcore.Int16Type, zapcore.Int8Type:
		l.key(key)
		l.b = strconv.AppendInt(l.b, f.Integer, 10)
	case zapcore.Uint64Type, zapcore.Uint32Type, zapcore.Uint16Type, zapcore.Uint8Type, zapcore.UintptrType:
		l.key(key)
		l.b = strconv.AppendUint(l.b, uint64(f.Integer), 10)
	case zapcore.Float64Type:
		l.key(key)
		l.float(math.Float64frombits(uint64(f.Integer)))
	case zapcore.Float32Type:
		l.key(key)
		l.float(float64(math.Float32frombits(uint32(f.Integer))))
	case zapcore.DurationType:
		l.key(key)
		l.float(time.Duration(f.Integer).Seconds())
	case zapcore.TimeType, zapcore.TimeFullType:
		t, ok := f.Interface.(time.Time)
		if !ok {
			t = time.Unix(0, f.Integer)
		}
		l.key(key)
		if l.json {
			l.b = append(l.b, '"')
			l.time(t)
			l.b = append(l.b, '"')
			return
		}
		l.time(t)
	case zapcore.ErrorType:
		l.text(key, errorText(f.Interface))
	case zapcore.ArrayMarshalerType:
		l.array(key, f.Interface.(zapcore.ArrayMarshaler))
	case zapcore.ByteStringType:
		l.text(key, string(f.Interface.([]byte)))
	case zapcore.SkipType, zapcore.NamespaceType:
	default:
		l.other(key, f)
	}
}

// errorText is an error's text, whatever its method does.
func errorText(v any) (text string) {
	defer func() {
		if p := recover(); p != nil {
			text = fmt.Sprintf("no text: %v", p)
		}
	}()
	return v.(error).Error()
}

// other writes a field of a rare type as the text of its JSON.
func (l *line) other(key string, f *zapcore.Field) {
	m := zapcore.NewMapObjectEncoder()
	f.AddTo(m)
	for name, v := range m.Fields { // one, but for an inlined object or an error
		if name == f.Key {
			name = key
		}
		l.key(name)
		l.json1(v)
	}
}

// json1 writes v in JSON, or its text where that is no JSON format.
func (l *line) json1(v any) {
	if s, ok := v.(string); ok {
		l.value(clip(s))
		return
	}
	j, err := json.Marshal(v)
	switch {
	case err != nil:
		l.value(fmt.Sprint(v))
	case l.json:
		l.escape(string(j), false) // encoding/json lets the C1 controls through
	default:
		l.value(string(j))
	}
}

// float writes a number; JSON has none for NaN and the infinities.
func (l *line) float(v float64) {
	if l.json && (math.IsNaN(v) || math.IsInf(v, 0)) {
		l.quote(strconv.FormatFloat(v, 'f', -1, 64))
		return
	}
	l.b = strconv.AppendFloat(l.b, v, 'f', -1, 64)
}

// array writes a JSON array, or elsewhere numbers joined by slashes and texts
// joined by commas, as Haraka does.
func (l *line) array(key string, a zapcore.ArrayMarshaler) {
	l.key(key)
	l.list = list{line: l, texts: l.list.texts[:0]}
	if l.json {
		l.b = append(l.b, '[')
	}
	if err := a.MarshalLogArray(&l.list); err != nil {
		l.list.AppendString(err.Error())
	}
	if l.json {
		l.b = append(l.b, ']')
	} else {
		l.value(string(l.list.texts))
	}
	l.list.line = nil
}

// list is the array encoder. In JSON it writes into the line at once, otherwise
// into texts, which is quoted as a whole.
type list struct {
	line  *line
	texts []byte
	n     int
}

var _ zapcore.ArrayEncoder = (*list)(nil)

// next begins an element; sep stands before it outside JSON.
func (a *list) next(sep byte) {
	if a.n++; a.n == 1 {
		return
	}
	if a.line.json {
		a.line.b = append(a.line.b, ',')
	} else {
		a.texts = append(a.texts, sep)
	}
}

func (a *list) integer(n int64) {
	a.next('/')
	if a.line.json {
		a.line.b = strconv.AppendInt(a.line.b, n, 10)
	} else {
		a.texts = strconv.AppendInt(a.texts, n, 10)
	}
}

func (a *list) any(v any) error {
	j, err := json.Marshal(v)
	if err != nil {
		a.AppendString(fmt.Sprint(v))
		return nil
	}
	a.next(',')
	if a.line.json {
		a.line.escape(string(j), false)
	} else {
		a.texts = append(a.texts, j...)
	}
	return nil
}

// The rest implements zapcore.ArrayEncoder.

func (a *list) AppendString(s string) {
	a.next(',')
	s = clip(s)
	if a.line.json {
		a.line.quote(s)
	} else {
		a.texts = append(a.texts, s...)
	}
}

func (a *list) AppendByteString(b []byte)      { a.AppendString(string(b)) }
func (a *list) AppendInt(n int)                { a.integer(int64(n)) }
func (a *list) AppendInt64(n int64)            { a.integer(n) }
func (a *list) AppendInt32(n int32)            { a.integer(int64(n)) }
func (a *list) AppendInt16(n int16)            { a.integer(int64(n)) }
func (a *list) AppendInt8(n int8)              { a.integer(int64(n)) }
func (a *list) AppendUint32(n uint32)          { a.integer(int64(n)) }
func (a *list) AppendUint16(n uint16)          { a.integer(int64(n)) }
func (a *list) AppendUint8(n uint8)            { a.integer(int64(n)) }
func (a *list) AppendUint(n uint)              { _ = a.any(n) }
func (a *list) AppendUint64(n uint64)          { _ = a.any(n) }
func (a *list) AppendUintptr(n uintptr)        { _ = a.any(n) }
func (a *list) AppendBool(v bool)              { _ = a.any(v) }
func (a *list) AppendFloat64(v float64)        { _ = a.any(v) }
func (a *list) AppendFloat32(v float32)        { _ = a.any(v) }
func (a *list) AppendComplex128(v complex128)  { _ = a.any(v) }
func (a *list) AppendComplex64(v complex64)    { _ = a.any(v) }
func (a *list) AppendDuration(d time.Duration) { _ = a.any(d.Seconds()) }
func (a *list) AppendTime(t time.Time)         { _ = a.any(t.UTC()) }
func (a *list) AppendReflected(v any) error    { return a.any(v) }
func (a *list) AppendArray(m zapcore.ArrayMarshaler) error {
	e := zapcore.NewMapObjectEncoder()
	if err := e.AddArray("", m); err != nil {
		return err
	}
	return a.any(e.Fields[""])
}

func (a *list) AppendObject(m zapcore.ObjectMarshaler) error {
	e := zapcore.NewMapObjectEncoder()
	if err := m.MarshalLogObject(e); err != nil {
		return err
	}
	return a.any(e.Fields)
}
