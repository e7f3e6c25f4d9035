package limit

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/plugin"
	"tarishi/internal/redis"
	"tarishi/internal/test/redistest"
)

// daemon is one that can be reloaded.
type daemon struct {
	*host
	loader *plugin.Loader
	set    *plugin.Set
	redis  *redis.Settings
}

// newDaemon starts one. Its log goes to core.
func newDaemon(t *testing.T, core zapcore.Core, shared *redis.Settings, text string) *daemon {
	t.Helper()
	var r plugin.Registry
	r.Register(Name, New)
	log := zap.New(core)
	d := &daemon{host: &host{t: t}, loader: &plugin.Loader{Registry: &r, Services: plugin.Services{Log: log}}, redis: shared}
	set, err := d.loader.Load(d.config(text))
	if err == nil {
		err = set.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	d.use(set)
	t.Cleanup(func() {
		if err := d.set.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *daemon) config(text string) *plugin.Config {
	d.t.Helper()
	c := &plugin.Config{Own: map[string]ini.Declarer{Name: readINI(d.t, "tarpit_delay=0\n"+text)}}
	c.Listed = []plugin.Listed{{Name: Name, As: Name}}
	c.Redis = d.redis
	return c
}

func (d *daemon) use(set *plugin.Set) {
	d.set, d.chain = set, hook.NewChain(set.Registrations(), zap.NewNop())
}

func (d *daemon) reload(text string) {
	d.t.Helper()
	next, err := d.loader.Prepare(d.t.Context(), d.set, d.config(text))
	if err != nil {
		d.t.Fatal(err)
	}
	next.Commit()
	before := d.set
	d.use(next)
	if err := before.Close(); err != nil {
		d.t.Error(err)
	}
}

// New settings hold at once, and what was counted still counts.
func TestReload(t *testing.T) {
	const conn, rcpt = "[concurrency]\nenabled=true\nmax=%d\n", "[rate_rcpt]\nenabled=true\ndefault=%d/1h\n"
	d := newDaemon(t, zapcore.NewNopCore(), nil, fmt.Sprintf(conn+rcpt, 3, 5))
	first, _ := d.arrive("192.0.2.1", "")
	old := d.chain
	for range 3 {
		expect(t, "recipient", first.rcpt("u@x.example"), 0, "")
	}
	d.reload(fmt.Sprintf(conn+rcpt, 2, 3))
	expect(t, "the fourth", first.rcpt("u@x.example"), hook.DenySoft, tooManyTo)
	second, v := d.arrive("192.0.2.1", "")
	expect(t, "the second", v, 0, "")
	_, v = d.arrive("192.0.2.1", "")
	expect(t, "the third", v, hook.DenySoftDisconnect, tooConcurrent)

	// A connection that began before ends as one that counts, whatever holds by then.
	d.reload("[errors]\nenabled=true\nmax=1\n")
	first.conn.Errors = 2
	expect(t, "what is on now", first.run(hook.OnMail, hook.Event{}), hook.DenySoftDisconnect, tooErroneous)
	first.chain.Run(t.Context(), hook.OnDisconnect, &hook.Event{Conn: first.conn.View()}) // of the new chain: it has none
	old.Run(t.Context(), hook.OnDisconnect, &hook.Event{Conn: first.conn.View()})
	old.Run(t.Context(), hook.OnDisconnect, &hook.Event{Conn: second.conn.View()})
	d.reload(fmt.Sprintf(conn, 2))
	_, v = d.arrive("192.0.2.1", "")
	expect(t, "with one that is left", v, 0, "")
	_, v = d.arrive("192.0.2.1", "")
	expect(t, "too many again", v, hook.DenySoftDisconnect, tooConcurrent)
}

// at are the settings of a server that a test runs.
func at(s *redistest.Server) *redis.Settings {
	return &redis.Settings{Common: redis.Section{Host: "127.0.0.1", Port: fmt.Sprint(s.Port), Password: "open sesame", Timeout: "1m"}}
}

const everything = "[concurrency]\nenabled=true\nmax=2\n[rate_conn]\nenabled=true\ndefault=4\n[rate_rcpt_host]\nenabled=true\ndefault=3\n" +
	"[rate_rcpt]\nenabled=true\ndefault=2\n[outbound]\nenabled=true\nexample.com=1\n"

// Two daemons with one Redis count together.
func TestShared(t *testing.T) {
	server := redistest.Start(t, "requirepass open sesame")
	one, two := newDaemon(t, zapcore.NewNopCore(), at(server), everything), newDaemon(t, zapcore.NewNopCore(), at(server), everything)
	first, _ := one.arrive("192.0.2.1", "")
	second, v := two.arrive("192.0.2.1", "")
	expect(t, "the second", v, 0, "")
	third, v := one.arrive("192.0.2.1", "")
	expect(t, "the third", v, hook.DenySoftDisconnect, tooConcurrent)
	third.leave()

	expect(t, "recipient", first.rcpt("u@x.example"), 0, "")
	expect(t, "recipient", second.rcpt("u@x.example"), 0, "")
	expect(t, "recipient", first.rcpt("u@x.example"), hook.DenySoft, tooManyTo)
	expect(t, "recipient", second.rcpt("v@x.example"), 0, "")
	first.leave()
	second.leave()
	_, v = two.arrive("192.0.2.1", "")
	expect(t, "after four recipients", v, hook.DenySoft, tooManyByHost)
	_, v = one.arrive("192.0.2.1", "")
	expect(t, "the fifth connection", v, hook.DenySoftDisconnect, tooOften)

	running := one.deliver("example.com")
	running.delayed(t, 0)
	two.deliver("example.com").delayed(t, 30e9)
	running.run(hook.OnDelivered)
	two.deliver("example.com").delayed(t, 0)
}

// A Redis that goes away costs nobody the mail: each daemon counts for itself, says so once,
// and no password is in what it says.
func TestRedisAway(t *testing.T) {
	server := redistest.Start(t, "requirepass open sesame")
	core, logs := observer.New(zapcore.DebugLevel)
	d := newDaemon(t, core, at(server), everything)
	first, _ := d.arrive("192.0.2.1", "")
	expect(t, "recipient", first.rcpt("u@x.example"), 0, "")
	server.Stop()
	for range 2 {
		expect(t, "counted here", first.rcpt("u@x.example"), 0, "")
	}
	expect(t, "counted here", first.rcpt("u@x.example"), hook.DenySoft, tooManyTo)
	for range 2 {
		_, v := d.arrive("192.0.2.1", "")
		expect(t, "counted here", v, 0, "")
	}
	_, v := d.arrive("192.0.2.1", "")
	expect(t, "counted here", v, hook.DenySoftDisconnect, tooConcurrent)
	first.leave()
	if warnings := logs.FilterLevelExact(zapcore.WarnLevel).FilterMessageSnippet("Redis"); warnings.Len() != 1 {
		t.Errorf("logged %v", warnings.All())
	}
	for _, line := range logs.All() {
		if text := fmt.Sprint(line.Message, line.ContextMap()); strings.Contains(text, "sesame") {
			t.Errorf("the log says %s", text)
		}
	}
}

// A wrong password is as if there were no Redis, and is not shown.
func TestWrongPassword(t *testing.T) {
	server := redistest.Start(t, "requirepass shut")
	core, logs := observer.New(zapcore.DebugLevel)
	d := newDaemon(t, core, at(server), everything)
	for _, want := range []string{"", "", tooConcurrent} {
		_, v := d.arrive("192.0.2.1", "")
		expect(t, "counted here", v, hook.DenySoftDisconnect, want)
	}
	text := fmt.Sprint(logs.All())
	if !strings.Contains(text, "WRONGPASS") || strings.Contains(text, "sesame") {
		t.Errorf("the log says %s", text)
	}
}

// A reload can name a server, and take it away; the connections of before end well.
func TestReloadRedis(t *testing.T) {
	server := redistest.Start(t, "requirepass open sesame")
	core, logs := observer.New(zapcore.WarnLevel)
	d := newDaemon(t, core, nil, everything)
	local, _ := d.arrive("192.0.2.1", "")
	d.redis = at(server)
	d.reload(everything)
	shared, v := d.arrive("192.0.2.1", "")
	expect(t, "the first there", v, 0, "")
	other := newDaemon(t, core, at(server), everything)
	_, v = other.arrive("192.0.2.1", "")
	expect(t, "the second there", v, 0, "")
	_, v = other.arrive("192.0.2.1", "")
	expect(t, "the third there", v, hook.DenySoftDisconnect, tooConcurrent)
	local.leave()
	d.reload(everything + "[errors]\nenabled=true\n") // the same server
	shared.leave()
	d.redis = nil
	d.reload(everything)
	_, v = d.arrive("192.0.2.1", "")
	expect(t, "the first here", v, 0, "")
	if logs.Len() > 0 {
		t.Errorf("logged %v", logs.All())
	}
}
