package plugin_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
)

func proceed(context.Context, *hook.Event) hook.Verdict { return hook.Proceed() }

func registry() *plugin.Registry {
	var r plugin.Registry
	r.Register("first", hooks(func(h plugin.Host) {
		h.On(hook.OnMail, "a", 5, proceed)
		h.On(hook.OnRcpt, "b", -200, proceed)
	}))
	r.Register("queue/second", hooks(func(h plugin.Host) {
		h.On(hook.OnQueue, "c", 0, proceed)
		h.Timeout(0)
	}))
	r.Register("bad", func(plugin.Env) (plugin.Plugin, error) { return nil, errors.New("no key") })
	r.Register("odd", hooks(func(h plugin.Host) { h.On("teatime", "d", 0, proceed) }))
	return &r
}

// hooks is the factory of a plugin that is nothing but its handlers.
func hooks(register plugin.Hooks) plugin.Factory {
	return func(plugin.Env) (plugin.Plugin, error) { return register, nil }
}

// load makes the plugins of c.
func load(r *plugin.Registry, c *plugin.Config, log *zap.Logger) ([]hook.Registration, error) {
	set, err := (&plugin.Loader{Registry: r, Services: plugin.Services{Log: log}}).Load(c)
	return set.Registrations(), err
}

func config(names ...string) *plugin.Config {
	c := &plugin.Config{Settings: plugin.Settings{Timeout: 30 * time.Second, Timeouts: map[string]time.Duration{}}}
	for i, n := range names {
		c.Listed = append(c.Listed, plugin.Listed{Name: n, As: n, File: "config/plugins", Line: i + 1})
	}
	return c
}

func TestLoad(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	regs, err := load(registry(), config("queue/second", "first", "first"), zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range regs {
		got = append(got, string(r.Point)+" "+r.Plugin+" "+r.Function+" "+r.Timeout.String())
	}
	want := []string{
		"queue queue/second c 0s", "mail first a 30s", "rcpt first b 30s", "mail first a 30s", "rcpt first b 30s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if logs.FilterField(zap.String("plugin", "first")).FilterLevelExact(zapcore.WarnLevel).Len() != 1 {
		t.Errorf("no warning: %v", logs.All())
	}
}

func TestTimeouts(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  map[string]time.Duration
		want time.Duration
	}{
		{"first", nil, 30 * time.Second},
		{"first", map[string]time.Duration{"first": time.Minute}, time.Minute},
		{"first", map[string]time.Duration{"first": 0}, 0},
		{"queue/second", nil, 0},
		{"queue/second", map[string]time.Duration{"queue/second": time.Minute, "first": 1}, time.Minute},
	} {
		c := config(tc.name)
		c.Timeouts = tc.set
		regs, err := load(registry(), c, zap.NewNop())
		if err != nil || regs[0].Timeout != tc.want {
			t.Errorf("%+v: %v, %v", tc, regs[0].Timeout, err)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	_, err := load(registry(), config("first", "frist", "bad", "nothing.like.it", "odd"), zap.NewNop())
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"config/plugins:2: there is no plugin frist, did you mean first?",
		"config/plugins:3: plugin bad: no key",
		"config/plugins:4: there is no plugin nothing.like.it",
		"config/plugins:5: plugin odd: there is no hook teatime",
	} {
		if !strings.Contains(err.Error()+"\n", want+"\n") {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

// TestNearest: a plugin is suggested when its name is nearly the one that is
// written, or when only the folder is missing or wrong.
func TestNearest(t *testing.T) {
	var r plugin.Registry
	for _, name := range []string{"queue/test", "queue/smtp_forward", "rcpt_to.in_host_list", "auth/flat_file", "relay"} {
		r.Register(name, hooks(func(plugin.Host) {}))
	}
	for name, want := range map[string]string{
		"queue/tets": "queue/test", "queue/smpt_forward": "queue/smtp_forward", "smtp_forward": "queue/smtp_forward", "flat_file": "auth/flat_file",
		"in_host_list": "rcpt_to.in_host_list", "rcpt_to.in_hostlist": "rcpt_to.in_host_list", "rely": "relay",
		"queue/http": "", "queue/mine": "", "auth/mine": "", "queue/kafak": "", "rcpt_to.mine": "",
	} {
		_, err := load(&r, config(name), zap.NewNop())
		if err == nil || want == "" && strings.Contains(err.Error(), "did you mean") || want != "" && !strings.HasSuffix(err.Error(), "did you mean "+want+"?") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRegister(t *testing.T) {
	r := registry()
	if got := r.Names(); !slices.Equal(got, []string{"bad", "first", "odd", "queue/second"}) {
		t.Errorf("%q", got)
	}
	for name, f := range map[string]plugin.Factory{
		"first": hooks(func(plugin.Host) {}), "nil": nil,
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			r.Register(name, f)
		}()
	}
}
