package dnslist

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/dns"
	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/result"
)

// read reads dns-list.ini, and files beside it in pairs of name and content.
func read(text string, files ...string) (*Settings, ini.Problems) {
	folder := fstest.MapFS{file: {Data: []byte(text)}}
	for i := 0; i < len(files); i += 2 {
		folder[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	s := &Settings{}
	r := ini.NewReader(folder, "")
	r.Load(s.Tables())
	return s, r.Problems()
}

// zones is a resolver with lists, which may change.
type zones struct {
	plugintest.DNS
	mu      sync.Mutex
	answers map[string][]string // by query name
	errors  map[string]error
	queries map[string]int
}

// newZones returns one in which these lists pass their tests.
func newZones(names ...string) *zones {
	z := &zones{answers: map[string][]string{}, errors: map[string]error{}, queries: map[string]int{}}
	for _, name := range names {
		z.set("2.0.0.127."+name, "127.0.0.2")
	}
	return z
}

// set has a name answer; without answers it does not exist.
func (z *zones) set(name string, answers ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.answers[name] = answers
	delete(z.errors, name)
}

// fail has a name end with an error.
func (z *zones) fail(name string, err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.errors[name] = err
}

// asked is how often a name was asked for.
func (z *zones) asked(name string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.queries[name]
}

// IPv4 implements plugin.Resolver.
func (z *zones) IPv4(ctx context.Context, name string) ([]netip.Addr, error) {
	z.mu.Lock()
	z.queries[name]++
	answers := plugintest.DNS{Addresses: map[string][]string{name: z.answers[name]}, Errors: map[string]error{name: z.errors[name]}}
	if len(z.answers[name]) == 0 {
		answers.Addresses = nil
	}
	z.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, &dns.Error{Name: name, Cause: err}
	}
	return answers.IPv4(ctx, name)
}

// figures are the metrics of a test.
type figures struct {
	mu     sync.Mutex
	counts map[string]float64
	gauges map[string]func() float64
}

func newFigures() *figures {
	return &figures{counts: map[string]float64{}, gauges: map[string]func() float64{}}
}

type counter struct {
	*figures
	name string
}

func (f *figures) Counter(name, _ string, _ ...string) plugin.Counter { return counter{f, name} }

func (f *figures) Gauge(name, _ string, read func() float64) { f.gauges[name] = read }

func (c counter) Add(n float64, values ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[c.name+" "+strings.Join(values, " ")] += n
}

// rig is a plugin that runs.
type rig struct {
	*hook.Chain
	t     *testing.T
	lines *observer.ObservedLogs
	*figures
}

// run starts the plugin in the bubble of a test, and waits until its lists are tested.
func run(t *testing.T, text string, z plugin.Resolver, files ...string) *rig {
	t.Helper()
	s, problems := read(text, files...)
	if len(problems.Errors()) > 0 {
		t.Fatal(problems)
	}
	core, lines := observer.New(zapcore.InfoLevel)
	r := &rig{t: t, lines: lines, figures: newFigures()}
	r.Chain = plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{
		Resolver: z, Log: zap.New(core), Metrics: func(string) plugin.Metrics { return r.figures },
	})
	synctest.Wait()
	return r
}

// connect is a client that connects. It returns the verdict and what was found.
func (r *rig) connect(addr string) (hook.Verdict, *hook.Connection) {
	r.t.Helper()
	c, _ := plugintest.Session(r.t, "a@b.c")
	c.Remote.Addr = netip.AddrPortFrom(netip.MustParseAddr(addr), 1)
	return r.Run(r.t.Context(), hook.OnConnect, &hook.Event{Conn: c.View()}), c
}

// log is what was logged about lists, without what was found of clients.
func (r *rig) log() string {
	var all []string
	for _, line := range r.lines.TakeAll() {
		if zone, ok := line.ContextMap()["zone"].(string); ok {
			text := line.Level.String() + " " + line.Message + " " + zone
			if reason, ok := line.ContextMap()["reason"].(string); ok {
				text += " " + reason
			}
			all = append(all, text)
		}
	}
	return strings.Join(all, "\n")
}

const lists = "[bad.example]\n127.0.0.4=a text\n127.0.0.9=another\n[soft.example]\nreject=false\n[good.example]\ntype=allow\n[karma.example]\ntype=karma\n"

// The cases are those of haraka-plugin-dns-list 1.3.0, with the texts of its replies.
func TestClients(t *testing.T) {
	const four = "zones=bad.example, good.example;soft.example karma.example\n"
	const listed = "host [8.8.8.8] is listed on "
	for _, test := range []struct {
		name, text, addr string
		answers          string // ZONE=ADDRESS,ADDRESS …
		code             hook.Code
		reply, found     string
		allowed          bool
	}{
		{"unlisted", four, "8.8.8.8", "", hook.Cont, "", "pass:bad.example, soft.example", false},
		{"listed", four, "8.8.8.8", "bad=127.0.0.2", hook.Deny, listed + "bad.example", "pass:soft.example, fail:bad.example", false},
		{"texts", four, "8.8.8.8", "bad=127.0.0.9,127.0.0.4,127.0.0.5", hook.Deny, listed + "bad.example", "msg:another, a text, pass:soft.example, fail:bad.example", false},
		{"reject=false", four, "8.8.8.8", "soft=127.0.0.2", hook.Cont, "", "pass:bad.example, fail:soft.example", false},
		{"two", "zones=bad.example\nzones[]=bad.example\nzones[]=worse.example\n", "8.8.8.8", "bad=127.0.0.2 worse=127.0.0.3", hook.Deny, listed + "bad.example, worse.example", "fail:bad.example, worse.example", false},
		{"allowed", "zones=good.example\n", "8.8.8.8", "good=127.0.9.1", hook.OK, "", "pass:good.example", true},
		{"not allowed", "zones=good.example\n", "8.8.8.8", "", hook.Cont, "", "", false},
		{"karma good", four, "8.8.8.8", "karma=127.0.0.1", hook.Cont, "", "pass:bad.example, soft.example, karma.example", false},
		{"karma good wins", four, "8.8.8.8", "karma=127.0.0.2,127.0.0.1", hook.Cont, "", "pass:bad.example, soft.example, karma.example", false},
		{"karma bad", four, "8.8.8.8", "karma=127.0.0.2", hook.Deny, listed + "karma.example", "pass:bad.example, soft.example, fail:karma.example", false},
		{"karma remark", four, "8.8.8.8", "karma=127.0.0.3", hook.Cont, "", "msg:karma.example, pass:bad.example, soft.example", false},
		{"first, listed", "search=first\nzones=bad.example\n", "8.8.8.8", "bad=127.0.0.2", hook.Deny, listed + "bad.example", "fail:bad.example", false},
		{"first, reject=false", "search=first\nzones=soft.example\n", "8.8.8.8", "soft=127.0.0.2", hook.Cont, "", "fail:soft.example", false},
		{"mapped", four, "::ffff:8.8.8.8", "bad=127.0.0.2", hook.Deny, listed + "bad.example", "pass:soft.example, fail:bad.example", false},
		{"no lists", "zones=,\n", "8.8.8.8", "", hook.Cont, "", "err:no zones", false},
		{"IPv6", "zones=bad.example zen.spamhaus.org\n", "2a00:1450::8", "6=127.0.0.2", hook.Deny, "host [2a00:1450::8] is listed on bad.example", "fail:bad.example, skip:zen.spamhaus.org: ipv6 disabled", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := newZones("bad.example", "good.example", "soft.example", "karma.example", "worse.example", "zen.spamhaus.org")
				for answer := range strings.FieldsSeq(test.answers) {
					name, addrs, _ := strings.Cut(answer, "=")
					name = "8.8.8.8." + name + ".example"
					if strings.HasPrefix(answer, "6=") {
						name = "8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.4.1.0.0.a.2.bad.example"
					}
					z.set(name, strings.Split(addrs, ",")...)
				}
				r := run(t, test.text+lists, z)
				v, c := r.connect(test.addr)
				if v.Code != test.code || v.Text != test.reply {
					t.Errorf("%+v, want %s %q", v, test.code, test.reply)
				}
				if got := c.Results.Of(Name).Line(result.Format{}); got != test.found {
					t.Errorf("found %q, want %q", got, test.found)
				}
				if c.Notes.Bool(noteAllowed) != test.allowed {
					t.Errorf("notes %v", c.Notes)
				}
			})
		})
	}
}

// With XCLIENT a connection becomes another client's, for which no list has spoken.
func TestHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZones("good.example")
		z.set("8.8.8.8.good.example", "127.0.0.2")
		r := run(t, "zones=good.example\n[good.example]\ntype=allow\n", z)
		_, c := r.connect("8.8.8.8")
		if !c.Notes.Bool(noteAllowed) {
			t.Errorf("notes %v", c.Notes)
		}
		c.Remote = hook.Remote{Addr: netip.MustParseAddrPort("192.168.0.1:1"), Private: true}
		r.Run(t.Context(), hook.OnConnect, &hook.Event{Conn: c.View()})
		if c.Notes.Bool(noteAllowed) {
			t.Errorf("of another client: notes %v", c.Notes)
		}
	})
}

// Clients that are not of the world are not looked up.
func TestPrivate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, "zones=bad.example\n", newZones("bad.example"))
		c, _ := plugintest.Session(t, "a@b.c")
		c.Remote = hook.Remote{Addr: netip.MustParseAddrPort("192.168.0.1:1"), Private: true}
		v := r.Run(t.Context(), hook.OnConnect, &hook.Event{Conn: c.View()})
		if got := c.Results.Of(Name).Line(result.Format{}); v.Code != hook.Cont || got != "skip:private: 192.168.0.1" {
			t.Errorf("%+v, %q", v, got)
		}
	})
}

// An allow list lets a client in at once, whatever others say and however long they take;
// with search=first a listing ends the search as well.
func TestDecidesAtOnce(t *testing.T) {
	for text, want := range map[string]hook.Code{"search=all\n": hook.OK, "search=first\n": hook.OK} {
		synctest.Test(t, func(t *testing.T) {
			z := newZones("bad.example", "good.example", "slow.example")
			z.set("8.8.8.8.good.example", "127.0.0.2")
			z.fail("8.8.8.8.slow.example", plugintest.ErrSlow)
			r := run(t, text+"zones=slow.example good.example\n"+lists, z)
			began := time.Now()
			if v, _ := r.connect("8.8.8.8"); v.Code != want || time.Since(began) != 0 {
				t.Errorf("%s: %+v after %v", text, v, time.Since(began))
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		z := newZones("bad.example", "slow.example")
		z.set("8.8.8.8.bad.example", "127.0.0.2")
		z.fail("8.8.8.8.slow.example", plugintest.ErrSlow)
		r := run(t, "search=first\nzones=slow.example bad.example\n", z)
		began := time.Now()
		v, c := r.connect("8.8.8.8")
		if v.Code != hook.Deny || time.Since(began) != 0 {
			t.Errorf("%+v after %v", v, time.Since(began))
		}
		// What was given up says nothing about the list.
		if got := c.Results.Of(Name).Line(result.Format{}); got != "fail:bad.example" || r.gauges["zones_active"]() != 2 {
			t.Errorf("%q, %v active", got, r.gauges["zones_active"]())
		}
	})
}

// A list that is slow holds no client longer than the plugin's time, and is disabled.
func TestSlowList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZones("bad.example", "slow.example")
		z.set("8.8.8.8.bad.example", "127.0.0.2")
		z.fail("8.8.8.8.slow.example", plugintest.ErrSlow)
		r := run(t, "timeout=3\nzones=slow.example bad.example\n", z)
		r.log()
		began := time.Now()
		v, c := r.connect("8.8.8.8")
		if v.Code != hook.Deny || time.Since(began) != 3*time.Second {
			t.Errorf("%+v after %v", v, time.Since(began))
		}
		if got := c.Results.Of(Name).Line(result.Format{}); got != "fail:bad.example, err:slow.example: ETIMEOUT" {
			t.Error(got)
		}
		if got := r.log(); got != "warn disabling block zone slow.example does not answer" {
			t.Error(got)
		}
		began = time.Now()
		if v, _ = r.connect("8.8.8.8"); v.Code != hook.Deny || time.Since(began) != 0 {
			t.Errorf("the next client: %+v after %v", v, time.Since(began))
		}
	})
}

// The administrator's limit for the plugin is kept, and costs no client its message.
func TestPluginTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZones("slow.example")
		z.fail("8.8.8.8.slow.example", plugintest.ErrSlow)
		r := run(t, "zones=slow.example\n", z)
		c, _ := plugintest.Session(t, "a@b.c")
		c.Remote.Addr = netip.MustParseAddrPort("8.8.8.8:1")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		if v := r.Run(ctx, hook.OnConnect, &hook.Event{Conn: c.View()}); v.Code != hook.Cont || time.Since(began) != 9*time.Second {
			t.Errorf("%+v after %v", v, time.Since(began))
		}
	})
}

// Other failures than silence disable no list: they may be those of one name.
func TestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZones("bad.example")
		z.fail("8.8.8.8.bad.example", plugintest.ErrBroken)
		r := run(t, "zones=bad.example\n", z)
		v, c := r.connect("8.8.8.8")
		if got := c.Results.Of(Name).Line(result.Format{}); v.Code != hook.Cont || got != "err:bad.example: ESERVFAIL" || r.gauges["zones_active"]() != 1 {
			t.Errorf("%+v, %q", v, got)
		}
		if n := r.counts["lookups_total bad.example error"]; n != 1 {
			t.Errorf("%v", r.counts)
		}
	})
}

// A list that answers wrongly is disabled with one line, whoever asked it, and refuses
// nobody; it is tried again, and enabled with one line when it is well.
func TestWrongAnswers(t *testing.T) {
	for _, test := range []struct{ zone, answer, reason string }{
		{"bad.example", "127.255.255.254", "answers 127.255.255.254: it does not serve this resolver, which is a public one or asks too much"},
		{"zen.spamhaus.org", "127.255.255.252", "answers 127.255.255.252: it does not serve this resolver, which is a public one or asks too much"},
		{"list.dnswl.org", "127.0.0.255", "answers 127.0.0.255: it does not serve this resolver, which is a public one or asks too much"},
		{"bad.example", "64.70.19.203", "answers 64.70.19.203, which is outside 127.0.0.0/8: the zone may be abandoned, or the resolver makes answers up"},
	} {
		synctest.Test(t, func(t *testing.T) {
			z := newZones(test.zone)
			z.set("8.8.8.8."+test.zone, "127.0.0.2", test.answer)
			z.set("9.8.8.8."+test.zone, test.answer)
			r := run(t, "zones="+test.zone+"\n", z)
			kind := newList(test.zone).Type
			if got := r.log(); got != "info enabling "+kind+" zone "+test.zone {
				t.Errorf("at first: %q", got)
			}
			for range 3 {
				if v, _ := r.connect("8.8.8.8"); v.Code != hook.Cont {
					t.Errorf("%+v", v)
				}
				r.connect("8.8.8.9")
			}
			if got := r.log(); got != "warn disabling "+kind+" zone "+test.zone+" "+test.reason {
				t.Errorf("%q", got)
			}
			if active, disabled := r.gauges["zones_active"](), r.gauges["zones_disabled"](); active != 0 || disabled != 1 || r.counts["disabled_total "+test.zone] != 1 {
				t.Errorf("%v active, %v disabled, %v", active, disabled, r.counts)
			}
			time.Sleep(firstPause)
			synctest.Wait()
			if got := r.log(); got != "info enabling "+kind+" zone "+test.zone || r.gauges["zones_active"]() != 1 {
				t.Errorf("after a pause: %q", got)
			}
		})
	}
}

// The tests of RFC 5782 section 5: a list that fails is not asked, and is tried again
// after pauses that grow.
func TestTests(t *testing.T) {
	const v6 = ".0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0."
	for _, test := range []struct {
		name, section string
		change        func(z *zones)
		reason        string
	}{
		{"good", "", func(*zones) {}, ""},
		{"none", "", func(z *zones) { z.set("2.0.0.127.bad.example") }, "127.0.0.2 is not listed (RFC 5782 section 5): the zone is none of a list, or was given up"},
		{"all", "", func(z *zones) { z.set("1.0.0.127.bad.example", "127.0.0.2") }, "127.0.0.1 is listed (RFC 5782 section 5): the list may have every address"},
		{"all, on purpose", "[bad.example]\nloopback_is_rejected=true\n", func(z *zones) { z.set("1.0.0.127.bad.example", "127.0.0.2") }, ""},
		{"all IPv6", "[bad.example]\nipv6=true\n", func(z *zones) { z.set("1.0"+v6+"bad.example", "127.0.0.2") }, "::ffff:127.0.0.1 is listed (RFC 5782 section 5): the list may have every address"},
		{"all IPv6, unasked", "", func(z *zones) { z.set("1.0"+v6+"bad.example", "127.0.0.2") }, ""},
		{"blocked", "", func(z *zones) { z.set("2.0.0.127.bad.example", "127.255.255.255") }, "answers 127.255.255.255: it does not serve this resolver, which is a public one or asks too much"},
		{"blocked later", "", func(z *zones) { z.set("1.0.0.127.bad.example", "127.255.255.255") }, "answers 127.255.255.255: it does not serve this resolver, which is a public one or asks too much"},
		{"broken", "", func(z *zones) { z.fail("2.0.0.127.bad.example", plugintest.ErrBroken) }, "cannot be tested: A 2.0.0.127.bad.example: temporary failure: SERVFAIL"},
		{"broken later", "", func(z *zones) { z.fail("1.0.0.127.bad.example", plugintest.ErrBroken) }, "cannot be tested: A 1.0.0.127.bad.example: temporary failure: SERVFAIL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := newZones("bad.example")
				z.set("8.8.8.8.bad.example", "127.0.0.2")
				test.change(z)
				r := run(t, "zones=bad.example\n"+test.section, z)
				want, code := "info enabling block zone bad.example", hook.Deny
				if test.reason != "" {
					want, code = "warn disabling block zone bad.example "+test.reason, hook.Cont
				}
				if got := r.log(); got != want {
					t.Errorf("%q, want %q", got, want)
				}
				if v, _ := r.connect("8.8.8.8"); v.Code != code {
					t.Errorf("%+v, want %s", v, code)
				}
			})
		})
	}
}

// TestPauses: a list that goes on failing is tried after 1, 2, 4, 8, 16 and then every 30
// minutes, silently, and one that was well is tested every half hour.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZones("good.example")
		r := run(t, "zones=bad.example good.example\n", z)
		r.log()
		began := time.Now()
		var tried []int
		for range 95 {
			before := z.asked("2.0.0.127.bad.example")
			time.Sleep(time.Minute)
			synctest.Wait()
			if z.asked("2.0.0.127.bad.example") > before {
				tried = append(tried, int(time.Since(began)/time.Minute))
			}
		}
		want := []int{1, 3, 7, 15, 31, 61, 91}
		if len(tried) != len(want) || tried[3] != want[3] || tried[6] != want[6] {
			t.Errorf("tried after %v minutes, want %v", tried, want)
		}
		if n := z.asked("2.0.0.127.good.example"); n != 4 {
			t.Errorf("the good one was tested %d times", n)
		}
		if got := r.log(); got != "" {
			t.Errorf("logged %q", got)
		}
		z.set("2.0.0.127.bad.example", "127.0.0.2")
		z.set("1.0.0.127.good.example", "127.0.0.2")
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := r.log(); !strings.Contains(got, "info enabling block zone bad.example") || !strings.Contains(got, "warn disabling block zone good.example 127.0.0.1 is listed") || strings.Count(got, "\n") != 1 {
			t.Errorf("logged %q", got)
		}
	})
}

// TestIntervals: 0 makes no tests, 1 to 4 one, with the list asked from the start.
func TestIntervals(t *testing.T) {
	for _, test := range []struct {
		minutes string
		tests   int
	}{{"0", 0}, {"1", 1}, {"4", 1}, {"5", 25}} {
		synctest.Test(t, func(t *testing.T) {
			z := newZones("bad.example")
			z.set("8.8.8.8.bad.example", "127.0.0.2")
			r := run(t, "zones=bad.example\nperiodic_checks="+test.minutes+"\n", z)
			time.Sleep(2*time.Hour + time.Second)
			synctest.Wait()
			if n := z.asked("2.0.0.127.bad.example"); n != test.tests {
				t.Errorf("periodic_checks=%s: %d tests, want %d", test.minutes, n, test.tests)
			}
			if v, _ := r.connect("8.8.8.8"); v.Code != hook.Deny {
				t.Errorf("%+v", v)
			}

			// Without tests a list that answers wrongly has a pause.
			z.set("8.8.8.8.bad.example", "127.255.255.254")
			r.connect("8.8.8.8")
			z.set("8.8.8.8.bad.example", "127.0.0.2")
			if v, _ := r.connect("8.8.8.8"); v.Code != hook.Cont {
				t.Errorf("disabled: %+v", v)
			}
			time.Sleep(firstPause)
			synctest.Wait()
			if v, _ := r.connect("8.8.8.8"); v.Code != hook.Deny {
				t.Errorf("enabled: %+v", v)
			}
		})
	}
}

// A list that fails again and again soon after it has passed gets longer pauses.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZones("bad.example")
		z.set("8.8.8.8.bad.example", "127.255.255.254")
		r := run(t, "zones=bad.example\n", z)
		lines := 0
		for range 4 * 60 {
			r.connect("8.8.8.8")
			lines += strings.Count(r.log(), "disabling")
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		if lines > 14 {
			t.Errorf("%d lines in four hours", lines)
		}
	})
}

// A list that has every address of a sudden decides about no client.
func TestListOfAll(t *testing.T) {
	for _, test := range []struct{ kind, wantLog string }{
		{Block, "warn disabling block zone"}, {Allow, "warn disabling allow zone"},
	} {
		synctest.Test(t, func(t *testing.T) {
			z := newZones("x.example")
			r := run(t, "zones=x.example\nperiodic_checks=30\n[x.example]\ntype="+test.kind+"\n", z)
			r.log()

			// The zone is given up: from now on it has every address.
			time.Sleep(5 * time.Minute)
			z.set("9.9.9.9.x.example", "127.0.0.2")
			z.set("1.0.0.127.x.example", "127.0.0.2")
			v, c := r.connect("9.9.9.9")
			if got := c.Results.Of(Name).Line(result.Format{}); v.Code != hook.Cont || got != "err:x.example: fails its tests" {
				t.Errorf("%s: %+v, %q", test.kind, v, got)
			}
			if got := r.log(); !strings.Contains(got, test.wantLog) {
				t.Errorf("%s: %q", test.kind, got)
			}
		})
	}
}

// A list that has just been tested is not tested again for each client.
func TestTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZones("x.example")
		r := run(t, "zones=x.example\nperiodic_checks=30\n", z)
		z.set("9.9.9.9.x.example", "127.0.0.2")
		for range 3 {
			time.Sleep(40 * time.Second)
			if v, _ := r.connect("9.9.9.9"); v.Code != hook.Deny {
				t.Fatalf("%+v", v)
			}
		}
		if n := z.asked("1.0.0.127.x.example"); n != 2 {
			t.Errorf("%d tests, want that of the start and one", n)
		}
	})
}

// A reload keeps what is known of the lists: none of them waits for a test.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZones("bad.example", "good.example")
		z.set("8.8.8.8.bad.example", "127.0.0.2")
		before, _ := read("zones=bad.example gone.example\n")
		after, _ := read("zones=bad.example gone.example good.example\n[bad.example]\nreject=false\n")
		core, lines := observer.New(zapcore.InfoLevel)
		r := &rig{t: t, lines: lines, figures: newFigures()}
		loader := func(s *Settings) (*plugin.Loader, *plugin.Config) {
			var registry plugin.Registry
			registry.Register(Name, New)
			c := &plugin.Config{Own: map[string]ini.Declarer{Name: s}}
			c.Listed = []plugin.Listed{{Name: Name, As: Name}}
			return &plugin.Loader{Registry: &registry, Services: plugin.Services{
				Resolver: z, Log: zap.New(core), Metrics: func(string) plugin.Metrics { return r.figures },
			}}, c
		}
		l, c := loader(before)
		old, err := l.Load(c)
		if err == nil {
			err = old.Start(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.log()
		l, c = loader(after)
		next, err := l.Prepare(t.Context(), old, c)
		if err != nil {
			t.Fatal(err)
		}
		r.Chain = hook.NewChain(old.Registrations(), zap.NewNop())
		if v, _ := r.connect("8.8.8.8"); v.Code != hook.Deny {
			t.Errorf("before: %+v", v)
		}
		next.Commit()
		synctest.Wait() // the new list has been tested, and is in use
		r.Chain = hook.NewChain(next.Registrations(), zap.NewNop())
		v, client := r.connect("8.8.8.8")
		if got := client.Results.Of(Name).Line(result.Format{}); v.Code != hook.Cont || got != "pass:good.example, fail:bad.example" {
			t.Errorf("after: %+v, %q", v, got)
		}
		synctest.Wait()
		if got := r.log(); got != "info enabling block zone good.example" {
			t.Errorf("logged %q", got)
		}
		if n := z.asked("2.0.0.127.bad.example"); n != 1 {
			t.Errorf("tested %d times", n)
		}
		if err := old.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		if z.asked("2.0.0.127.good.example") < 2 {
			t.Error("the watch ended with the old generation")
		}
		if err := next.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A client on an allow list passes helo, ehlo and mail where that is configured.
func TestAllowedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZones("list.dnswl.org")
		z.set("8.8.8.8.list.dnswl.org", "127.0.5.2")
		r := run(t, "zones=list.dnswl.org\n[list.dnswl.org]\nok_helo=true\nok_mail=true\n", z)
		for addr, want := range map[string]hook.Code{"8.8.8.8": hook.OK, "8.8.8.9": hook.Cont} {
			_, c := r.connect(addr)
			for _, p := range []hook.Point{hook.OnHelo, hook.OnEhlo, hook.OnMail} {
				if v := r.Run(t.Context(), p, &hook.Event{Conn: c.View()}); v.Code != want {
					t.Errorf("%s %s: %+v", addr, p, v)
				}
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := run(t, "zones=list.dnswl.org\n", newZones())
		if r.Has(hook.OnHelo) || r.Has(hook.OnMail) {
			t.Error("registered without being configured")
		}
	})
}

// Reports and mail of a postmaster are looked up in ips.backscatterer.org, from private
// addresses too.
func TestBackscatterer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZones()
		z.set("1.0.168.192.ips.backscatterer.org", "127.0.0.2")
		z.set("2.0.168.192.ips.backscatterer.org", "127.255.255.254")
		z.fail("3.0.168.192.ips.backscatterer.org", plugintest.ErrSlow)
		r := run(t, "zones=,\n[ips.backscatterer.org]\nenable=true\nipv6=false\n", z)
		const text = "Host mx.example.org [192.168.0.1] is listed by ips.backscatterer.org"
		for _, test := range []struct {
			addr, from, text string
		}{
			{"192.168.0.1", "", text},
			{"192.168.0.1", "Postmaster@example.org", text},
			{"192.168.0.1", "a@example.org", ""},
			{"192.168.0.2", "", ""},
			{"192.168.0.3", "", ""},
			{"192.168.0.4", "", ""},
			{"fd00::1", "", ""},
		} {
			c, tx := plugintest.Session(t, test.from)
			c.Remote = hook.Remote{Addr: netip.AddrPortFrom(netip.MustParseAddr(test.addr), 1), Host: "mx.example.org", Private: true}
			v := r.Run(t.Context(), hook.OnMail, &hook.Event{Conn: c.View(), Tx: tx.View()})
			if v.Text != test.text || (v.Code == hook.Deny) != (test.text != "") {
				t.Errorf("%s from %q: %+v", test.addr, test.from, v)
			}
		}
	})
}

// Nor does it refuse reports when it has every address.
func TestBackscattererOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZones()
		z.set("8.8.8.8."+zoneBackscatter, "127.0.0.2")
		z.set("1.0.0.127."+zoneBackscatter, "127.0.0.2")
		r := run(t, "zones=x.example\n["+zoneBackscatter+"]\nenable=true\n", z)
		c, tx := plugintest.Session(t, "", "b@c.de")
		c.Remote.Addr = netip.MustParseAddrPort("8.8.8.8:1")
		if v := r.Run(t.Context(), hook.OnMail, &hook.Event{Conn: c.View(), Tx: tx.View()}); v.Code != hook.Cont {
			t.Errorf("%+v", v)
		}
	})
}

func TestSettings(t *testing.T) {
	s, problems := read("")
	if len(problems) > 0 || len(s.Lists) != 9 || s.First || s.Interval != 30*time.Minute || s.Timeout != 25*time.Second {
		t.Errorf("%+v, %v", s, problems)
	}
	// The sections of the known lists are changed key by key.
	s, problems = read("[zen.spamhaus.org]\nreject=false\n127.0.0.2=mine\n127.0.0.12=new\n[hostkarma.junkemailfilter.com]\nipv6=no\n")
	zen, karma := s.list("zen.spamhaus.org"), s.list("hostkarma.junkemailfilter.com")
	if len(problems) > 0 || zen.Reject || zen.IPv6 != "false" || zen.Texts["127.0.0.2"] != "mine" || zen.Texts["127.0.0.3"] != "CSS" || zen.Texts["127.0.0.12"] != "new" ||
		karma.Type != Karma || karma.IPv6 != "false" || !karma.LoopbackRejected {
		t.Errorf("%+v, %+v, %v", zen, karma, problems)
	}
	// The names in the older lists count, in contrast to Haraka.
	s, problems = read("zones=bad.example\n", "dnsbl.zones", "# ours\nOther.example\nbad.example\n", "dnswl.zones", "good.example\n")
	if len(problems) > 0 || len(s.Lists) != 3 || s.Lists[1].Zone != "other.example" || s.Lists[1].Type != Block || s.Lists[2].Type != Allow {
		t.Errorf("%v, %v", s.Lists, problems)
	}
	for text, want := range map[string]string{
		"zones=bad_zone@x\n":                   `config/dns-list.ini:1: key zones: "bad_zone@x" is no name of a zone in the DNS`,
		"zones=,\n":                            "config/dns-list.ini: warning: key zones: names no list: no client is looked up",
		"search=some\n":                        `config/dns-list.ini:1: key search: "some" is none of all, first, did you mean`,
		"periodic_checks=-1\n":                 "config/dns-list.ini:1: key periodic_checks: -1 is not between 0 and 525600",
		"[bl.example.com]\n":                   "config/dns-list.ini:1: warning: section [bl.example.com]: this list is not among zones: it is not asked",
		"[zen.spamhaus.org]\ntype=white\n":     `config/dns-list.ini:2: [zen.spamhaus.org] key type: "white" is none of block, allow, karma`,
		"[zen.spamhaus.org]\nrejct=true\n":     "config/dns-list.ini:2: [zen.spamhaus.org] key rejct: unknown, did you mean reject?",
		"[list.dnswl.org]\nipv6=perhaps\n":     `config/dns-list.ini:2: [list.dnswl.org] key ipv6: "perhaps" is neither true nor false`,
		"[zen.spamhaus.org]\nsearch=all\n":     "config/dns-list.ini:2: [zen.spamhaus.org] key search: belongs above the first section",
		"[zen.spamhaus.org]\nenable=true\n":    "config/dns-list.ini:2: [zen.spamhaus.org] key enable: unknown",
		"[stats]\nenable=true\n":               "config/dns-list.ini:2: warning: [stats] key enable: has no effect",
		"[stats]\nredis_host=127.0.0.1:6379\n": "config/dns-list.ini:2: warning: [stats] key redis_host: has no effect",
	} {
		if _, problems := read(text); len(problems) != 1 || !strings.HasPrefix(problems[0].String(), strings.TrimSuffix(want, ", did you mean")) {
			t.Errorf("%q: %v", text, problems)
		}
	}
}

// BenchmarkConnect measures two lists for a client that is on neither.
func BenchmarkConnect(b *testing.B) {
	s, _ := read("zones=one.example two.example\nperiodic_checks=0\n")
	chain := plugintest.Chain(b, New, plugintest.Own(s), plugin.Services{Resolver: &plugintest.DNS{}})
	b.ReportAllocs()
	for b.Loop() {
		c, _ := plugintest.Session(b, "a@b.c")
		c.Remote.Addr = netip.MustParseAddrPort("8.8.8.8:1")
		if v := chain.Run(b.Context(), hook.OnConnect, &hook.Event{Conn: c.View()}); v.Code != hook.Cont {
			b.Fatal(v)
		}
	}
}
