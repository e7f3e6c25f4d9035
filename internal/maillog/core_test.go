package maillog

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tarishi/internal/mail"
)

func entry(message string) zapcore.Entry {
	return zapcore.Entry{Level: zapcore.InfoLevel, Time: time.Date(2026, 11, 22, 4, 5, 6, 7_000_000, time.FixedZone("", 3600)), Message: message}
}

func write(t testing.TB, format string, timestamps bool, e zapcore.Entry, fields ...zapcore.Field) string {
	t.Helper()
	var b bytes.Buffer
	if err := NewCore(Settings{Level: "debug", Format: format, Timestamps: timestamps}, &b).Write(e, fields); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFormats(t *testing.T) {
	named := entry("connect")
	named.LoggerName = "session"
	stack := entry("panic")
	stack.Level, stack.Stack = zapcore.ErrorLevel, "a\n\tb"
	uuid := zap.String("uuid", "ABC.1")
	for _, test := range []struct {
		name       string
		timestamps bool
		entry      zapcore.Entry
		fields     []zapcore.Field
		plain      string
		logfmt     string
		json       string
	}{
		{
			name: "bare", entry: entry("hello there"),
			plain:  `[INFO] [-] [core] hello there id=-`,
			logfmt: `level=info uuid=- origin=core message="hello there" id=-`,
			json:   `{"level":"info","uuid":"-","origin":"core","message":"hello there","id":"-"}`,
		},
		{
			name: "time", timestamps: true, entry: named, fields: []zapcore.Field{uuid, zap.Int("port", 25)},
			plain:  `2026-11-22T03:05:06.007Z [INFO] [ABC.1] [session] connect id=ABC.1 port=25`,
			logfmt: `timestamp=2026-11-22T03:05:06.007Z level=info uuid=ABC.1 origin=session message=connect id=ABC.1 port=25`,
			json:   `{"timestamp":"2026-11-22T03:05:06.007Z","level":"info","uuid":"ABC.1","origin":"session","message":"connect","id":"ABC.1","port":25}`,
		},
		{
			name: "types", entry: entry("m"), fields: []zapcore.Field{
				zap.String("s", "v v"), zap.String("empty", ""), zap.Bool("b", true), zap.Float64("f", 0.25), zap.Float64("nan", math.NaN()),
				zap.Uint64("u", math.MaxUint64), zap.Int8("i8", -1), zap.Duration("d", 1500*time.Millisecond), zap.Error(errors.New(`bad "x"`)),
				zap.Ints("n", []int{1, 0, 2}), zap.Strings("to", []string{"a@b", "c@d"}), zap.Time("next", entry("").Time), zap.Skip(),
				zap.Float32("f32", 0.5), zap.ByteString("raw", []byte("x")), zap.Any("map", map[string]int{"a": 1}), zap.Strings("none", nil),
				zap.Durations("ds", []time.Duration{time.Second}), zap.Bools("bs", []bool{true, false}),
			},
			plain: `[INFO] [-] [core] m id=- s="v v" empty="" b=true f=0.25 nan=NaN u=18446744073709551615 i8=-1 d=1.5 error="bad \"x\"" ` +
				`n=1/0/2 to=a@b,c@d next=2026-11-22T03:05:06.007Z f32=0.5 raw=x map="{\"a\":1}" none="" ds=1 bs=true,false`,
			json: `{"level":"info","uuid":"-","origin":"core","message":"m","id":"-","s":"v v","empty":"","b":true,"f":0.25,"nan":"NaN","u":18446744073709551615,` +
				`"i8":-1,"d":1.5,"error":"bad \"x\"","n":[1,0,2],"to":["a@b","c@d"],"next":"2026-11-22T03:05:06.007Z","f32":0.5,"raw":"x","map":{"a":1},"none":[],"ds":[1],"bs":[true,false]}`,
		},
		{
			name: "injection", entry: entry("a\r\nb\x1b\u2028"),
			fields: []zapcore.Field{zap.String("uuid", "X] [y\n"), zap.String("k\n=", "1\r\n[INFO] \x00\x7f\xff\\"), zap.Strings("l", []string{"a\nb"})},
			plain:  `[INFO] [X_ [y\n] [core] a\r\nb\u001b\u2028 id="X] [y\n" k__="1\r\n[INFO] \u0000\u007f\ufffd\\" l="a\nb"`,
			logfmt: `level=info uuid="X] [y\n" origin=core message="a\r\nb\u001b\u2028" id="X] [y\n" k__="1\r\n[INFO] \u0000\u007f\ufffd\\" l="a\nb"`,
			json:   `{"level":"info","uuid":"X] [y\n","origin":"core","message":"a\r\nb\u001b\u2028","id":"X] [y\n","k\n=":"1\r\n[INFO] \u0000\u007f\ufffd\\","l":["a\nb"]}`,
		},
		{
			name: "hidden", entry: entry("a\u202eb\u200bü"), fields: []zapcore.Field{zap.String("uuid", "\u2066"), zap.String("from", "a\u0085b\U000e0041c👋"), zap.Any("m", []string{"\u061c"})},
			plain:  `[INFO] [\u2066] [core] a\u202eb\u200bü id="\u2066" from="a\u0085b\udb40\udc41c👋" m="\u061c"`,
			logfmt: `level=info uuid="\u2066" origin=core message="a\u202eb\u200bü" id="\u2066" from="a\u0085b\udb40\udc41c👋" m="\u061c"`,
			json:   `{"level":"info","uuid":"\u2066","origin":"core","message":"a\u202eb\u200bü","id":"\u2066","from":"a\u0085b\udb40\udc41c👋","m":["\u061c"]}`,
		},
		{
			name: "own names", entry: stack, fields: []zapcore.Field{zap.String("level", "x"), zap.Int("uuid", 3), zap.Int("id", 7)},
			plain: `[ERROR] [-] [core] panic id=- level_=x uuid_=3 id_=7 stack="a\n\tb"`,
			json:  `{"level":"error","uuid":"-","origin":"core","message":"panic","id":"-","level_":"x","uuid_":3,"id_":7,"stack":"a\n\tb"}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			for format, want := range map[string]string{"default": test.plain, "logfmt": test.logfmt, "json": test.json} {
				got := write(t, format, test.timestamps, test.entry, test.fields...)
				if want != "" && got != want+"\n" {
					t.Errorf("%s\n got %s\nwant %s", format, got, want)
				}
				if format == "json" && !json.Valid([]byte(got)) {
					t.Errorf("no JSON: %s", got)
				}
			}
		})
	}
}

func TestLevels(t *testing.T) {
	var b bytes.Buffer
	for name, want := range map[string]zapcore.Level{
		"DATA": -3, "protocol": -2, "debug": -1, "info": 0, "notice": 0, "warn": 1, "error": 2, "crit": 3, "alert": 4, "emerg": 5,
	} {
		got, err := ParseLevel(name)
		if err != nil || got != want {
			t.Errorf("ParseLevel(%q) = %v, %v", name, got, err)
		}
		if name == "notice" {
			continue
		}
		b.Reset()
		c := NewCore(Settings{Level: name}, &b)
		e := entry("x")
		for e.Level = DataLevel; e.Level <= zapcore.FatalLevel; e.Level++ {
			if c.Enabled(e.Level) != (e.Level >= want) || (c.Check(e, nil) != nil) != (e.Level >= want) {
				t.Errorf("%s: level %d", name, e.Level)
			}
		}
		e.Level = want
		if c.Write(e, nil); !strings.HasPrefix(b.String(), "["+strings.ToUpper(name)+"]") {
			t.Errorf("%s: %s", name, b.String())
		}
	}
	if _, err := ParseLevel("loud"); err == nil {
		t.Error("loud is a level")
	}
}

func TestContext(t *testing.T) {
	var b bytes.Buffer
	z := zap.New(NewCore(Settings{}, &b)).With(zap.String("uuid", "C"), zap.Int("a", 1))
	z.Named("tls").Info("m", zap.Int("b", 2))
	z.Info("n", zap.String("uuid", "C.1"))
	z.With(zap.Int("x", 1)).Debug("not written")
	if want := "[INFO] [C] [tls] m id=C a=1 b=2\n[INFO] [C.1] [core] n id=C.1 a=1\n"; b.String() != want {
		t.Errorf("got %q", b.String())
	}
}

type badError struct{ *bytes.Buffer }

func (e badError) Error() string { return e.String()[5:] }

func TestPanickingError(t *testing.T) {
	if got := write(t, "json", false, entry("m"), zap.Error(badError{&bytes.Buffer{}})); !json.Valid([]byte(got)) || !strings.Contains(got, "no text") {
		t.Error(got)
	}
}

// TestConcurrent checks that lines of many goroutines stay whole.
func TestConcurrent(t *testing.T) {
	var b bytes.Buffer
	z := zap.New(NewCore(Settings{Format: "json", Timestamps: true}, &b))
	var wg sync.WaitGroup
	for i := range 8 {
		child := z.With(zap.Int("i", i))
		wg.Go(func() {
			for range 200 {
				child.Info("m", zap.Strings("to", []string{"a", "b"}), zap.String("v", strings.Repeat("x", i*100)))
			}
		})
	}
	wg.Wait()
	got := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(got) != 1600 {
		t.Fatalf("%d lines", len(got))
	}
	for _, l := range got {
		if !json.Valid([]byte(l)) {
			t.Fatal(l)
		}
	}
}

// TestEvents: only the line of a refusal has the client's address.
func TestEvents(t *testing.T) {
	var b bytes.Buffer
	l, ip := New(zap.New(NewCore(Settings{}, &b))), netip.MustParseAddr("2001:db8::1")
	l.Message("U.1", ip, "<x@y>", 12, [3]int{1, 0, 0}, 15*time.Millisecond, 250, "Message Queued (U.1)")
	l.Message("U.2", ip, "<x@y>", 12, [3]int{1, 0, 0}, 0, 550, "no")
	l.Sender("U.3", ip, "a@b", 250, "OK")
	l.Sender("U.3", ip, "a@b", 421, "no")
	l.Recipient("U.4", ip, "a@b", "c@d", 250, "OK")
	l.Recipient("U.4", ip, "a@b", "c@d", 550, "no")
	want := `[INFO] [U.1] [core] message id=U.1 mid=<x@y> size=12 rcpts=1/0/0 delay=0.015 code=250 msg="Message Queued (U.1)"
[INFO] [U.2] [core] message id=U.2 ip=2001:db8::1 mid=<x@y> size=12 rcpts=1/0/0 delay=0 code=550 msg=no
[INFO] [U.3] [core] sender id=U.3 from=a@b code=250 msg=OK
[INFO] [U.3] [core] sender id=U.3 ip=2001:db8::1 from=a@b code=421 msg=no
[INFO] [U.4] [core] recipient id=U.4 to=c@d sender=a@b code=250 msg=OK
[INFO] [U.4] [core] recipient id=U.4 ip=2001:db8::1 to=c@d sender=a@b code=550 msg=no
`
	if b.String() != want {
		t.Errorf("\n%s\nwant\n%s", b.String(), want)
	}
}

// TestLongTexts: what a peer has made long takes little of the buffer, in each place where a
// text can stand.
func TestLongTexts(t *testing.T) {
	long := strings.Repeat("\x01\u00e4", 1<<20)
	for _, format := range []string{"default", "logfmt", "json"} {
		got := write(t, format, false, entry(long), zap.String("a", long), zap.Error(errors.New(long)), zap.ByteString("b", []byte(long)),
			zap.Strings("c", []string{long, "end"}), zap.Any("d", long), zap.Stringer("e", text(long)))
		if len(got) > 7*4*maxText || strings.Count(got, "…") != 7 || !strings.Contains(got, "end") || strings.ContainsRune(got, utf8.RuneError) {
			t.Errorf("%s: %d bytes, %d cuts", format, len(got), strings.Count(got, "…"))
		}
		if format == "json" && !json.Valid([]byte(got)) {
			t.Error("no JSON")
		}
	}
	if got := clip(strings.Repeat("x", maxText)); len(got) != maxText {
		t.Errorf("%d bytes of %d", len(got), maxText)
	}
}

// text is a Stringer.
type text string

func (t text) String() string { return string(t) }

// FuzzOneLine checks that nothing makes a second line, and that JSON stays JSON.
func FuzzOneLine(f *testing.F) {
	f.Add("m", "k", "v", "u")
	f.Add("q", "p", "\u0085\x10", "\u009f")
	f.Add("\u202e", "\U000e0041", "\u200b", "\ufeff")
	f.Add("a\nb", "k\r", "\xff\u2028\"", "]\n")
	f.Fuzz(func(t *testing.T, message, key, value, uuid string) {
		fields := []zapcore.Field{zap.String("uuid", uuid), zap.String(key, value), zap.Strings(key, []string{value, message}), zap.Any("any", []any{value})}
		for _, format := range []string{"default", "logfmt", "json"} {
			got := write(t, format, false, entry(message), fields...)
			if strings.Count(got, "\n") != 1 || strings.ContainsFunc(got[:len(got)-1], mail.IsHidden) {
				t.Errorf("%s: %q", format, got)
			}
			if format == "json" && !json.Valid([]byte(got)) {
				t.Errorf("no JSON: %q", got)
			}
		}
	})
}

func BenchmarkCore(b *testing.B) {
	d := Delivery{ID: "ABCDEF-1.1", From: "a@b.example", Domain: "c.example", Host: "mx.c.example", IP: "192.0.2.1", Port: 25, Mode: "SMTP", TLS: "none", Delay: time.Second}
	for _, format := range []string{"default", "logfmt", "json"} {
		b.Run(format, func(b *testing.B) {
			log := New(zap.New(NewCore(Settings{Format: format, Timestamps: true}, io.Discard)))
			b.ReportAllocs()
			for b.Loop() {
				log.Delivered(d, []string{"x@c.example"}, "250 2.0.0 OK queued as 12345")
			}
		})
	}
}

// What is written changes while loggers are in use, also those that were made before.
func TestUse(t *testing.T) {
	var b bytes.Buffer
	core := NewCore(Settings{Level: "warn"}, &b)
	child := zap.New(core).With(zap.String("uuid", "A")).Named("x")
	child.Info("one")
	core.Use(Settings{Level: "info", Format: "logfmt"})
	child.Info("two")
	core.Use(Settings{Level: "error"})
	child.Warn("three")
	child.Error("four")
	if want := "level=info uuid=A origin=x message=two id=A\n[ERROR] [A] [x] four id=A\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
}
