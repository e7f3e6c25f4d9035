package tlsconf

import (
	"bytes"
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// rig is a Files that follows the files in a folder, in a bubble.
type rig struct {
	*Files
	t    *testing.T
	dir  string
	logs *observer.ObservedLogs
	tick int64
}

func bubble(t *testing.T, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		test(&rig{Files: New(zap.New(core)), t: t, dir: t.TempDir(), logs: logs})
	})
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		<-done
	})
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// write writes a file in place. Its time is another one each time, as it would be
// if the clock of the bubble were that of the file system.
func (r *rig) write(name string, b []byte) {
	r.t.Helper()
	write(r.t, r.path(name), b)
	r.tick++
	if err := os.Chtimes(r.path(name), time.Time{}, time.Unix(r.tick, 0)); err != nil {
		r.t.Fatal(err)
	}
}

// renew writes a new pair, key first.
func (r *rig) renew(name, host string) {
	r.t.Helper()
	key, cert := made(r.t, host, 0, 90*day)
	r.write(name+".key", key)
	r.write(name+".crt", cert)
}

func (r *rig) server(pairs ...string) *tls.Config {
	r.t.Helper()
	var keys, certs []string
	for _, p := range pairs {
		keys, certs = append(keys, r.path(p+".key")), append(certs, r.path(p+".crt"))
	}
	c, err := serverOf(r.Files, keys, certs, 0, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// pass waits for d and then until the looks of that time are over: what a test
// does next comes between two looks, never beside one.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// looks waits for two looks at the files.
func looks() { pass(2*lookEvery + time.Second) }

// told returns the lines that were logged since the last call, with their fields.
func (r *rig) told() []string {
	var lines []string
	for _, e := range r.logs.TakeAll() {
		line := e.Level.String() + " " + e.Message
		for _, f := range e.Context {
			enc := zapcore.NewMapObjectEncoder()
			f.AddTo(enc)
			for _, v := range enc.Fields {
				switch v := v.(type) {
				case []any:
					line += " " + v[0].(string)
				case time.Time:
					line += " " + v.Format(time.DateOnly)
				default:
					line += " " + v.(string)
				}
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// wants checks what was logged: a part of each line.
func (r *rig) wants(parts ...string) {
	r.t.Helper()
	lines := r.told()
	if len(lines) != len(parts) {
		r.t.Errorf("logged %q, want %q", lines, parts)
		return
	}
	for i := range lines {
		if !strings.Contains(lines[i], parts[i]) {
			r.t.Errorf("logged %q, want %q", lines[i], parts[i])
		}
	}
}

func (r *rig) shows(c *tls.Config, sni, want string) {
	r.t.Helper()
	if got, err := shown(r.t, c, &tls.Config{ServerName: sni}); got != want {
		r.t.Errorf("%q is shown %q, want %q, %v", sni, got, want, err)
	}
}

const (
	day = 24 * time.Hour

	used    = "info new certificate files are used"
	notUsed = "error new certificate files are not used, the old ones stay"
)

// However the files of a pair are replaced, the next handshake has the new ones.
func TestRenewal(t *testing.T) {
	for name, replace := range map[string]func(r *rig){
		"written in place": func(r *rig) { r.renew("a", "new.test") },
		"renamed over": func(r *rig) {
			r.renew("b", "new.test")
			for _, ext := range []string{".key", ".crt"} {
				if err := os.Rename(r.path("b"+ext), r.path("a"+ext)); err != nil {
					r.t.Fatal(err)
				}
			}
		},
		"removed and made": func(r *rig) {
			os.Remove(r.path("a.key"))
			os.Remove(r.path("a.crt"))
			pass(lookEvery)
			r.renew("a", "new.test")
		},
		"key long before the certificate's chain": func(r *rig) {
			key, cert := made(r.t, "new.test", 0, 90*day)
			r.write("a.key", key)
			pass(lookEvery)
			r.write("a.crt", nil)
			pass(lookEvery)
			r.write("a.crt", cert)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.renew("a", "old.test")
				c := r.server("a")
				r.run()
				looks()
				r.shows(c, "", "old.test")
				r.wants()
				replace(r)
				looks()
				r.shows(c, "", "new.test")
				r.wants(used + " " + r.path("a.crt") + " new.test 2000-03-31")
				pass(time.Hour)
				r.wants()
			})
		})
	}
}

// certbot links live/NAME/privkey.pem to an archive, Kubernetes a folder.
func TestLinks(t *testing.T) {
	for name, links := range map[string][][2]string{
		"each file": {{"a1.key", "a.key"}, {"a1.crt", "a.crt"}, {"a2.key", "a.key"}, {"a2.crt", "a.crt"}},
		"a folder":  {{"data/a.key", "a.key"}, {"data/a.crt", "a.crt"}, {"1", "data"}, {"2", "data"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				for _, d := range []string{"1", "2"} {
					if err := os.Mkdir(r.path(d), 0o700); err != nil {
						r.t.Fatal(err)
					}
					key, cert := made(r.t, d+".test", 0, 90*day)
					for _, at := range []string{"a" + d, d + "/a"} {
						r.tick = 0 // archives can be all of one date
						r.write(at+".key", key)
						r.write(at+".crt", cert)
					}
				}
				link := func(l [2]string) {
					if err := os.Symlink(l[0], r.path("link")); err != nil {
						r.t.Fatal(err)
					}
					if err := os.Rename(r.path("link"), r.path(l[1])); err != nil {
						r.t.Fatal(err)
					}
				}
				again := 2
				if name == "a folder" {
					again = 3
				}
				for _, l := range links[:again] {
					link(l)
				}
				c := r.server("a")
				r.run()
				r.shows(c, "", "1.test")
				for _, l := range links[again:] {
					link(l)
				}
				looks()
				r.shows(c, "", "2.test")
			})
		})
	}
}

// What is wrong leaves the old pair in use and is told once; when it is mended,
// that is told too.
func TestWrongFiles(t *testing.T) {
	for name, spoil := range map[string]func(r *rig){
		"another key": func(r *rig) {
			key, _ := made(r.t, "x.test", 0, time.Hour)
			r.write("a.key", key)
		},
		"no certificate": func(r *rig) { r.write("a.crt", []byte("-----BEGIN")) },
		"gone":           func(r *rig) { os.Remove(r.path("a.crt")) },
		"all gone":       func(r *rig) { os.Remove(r.path("a.crt")); os.Remove(r.path("a.key")) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.renew("a", "old.test")
				c := r.server("a")
				r.run()
				spoil(r)
				pass(time.Hour)
				r.shows(c, "", "old.test")
				r.wants(notUsed)
				r.renew("a", "new.test")
				looks()
				r.shows(c, "", "new.test")
				r.wants(used)
			})
		})
	}
	t.Run("mended without a trace", func(t *testing.T) {
		bubble(t, func(r *rig) {
			r.renew("a", "old.test")
			c := r.server("a")
			r.run()
			key, cert := made(r.t, "new.test", 0, 90*day)
			r.write("a.key", key)
			r.write("a.crt", bytes.Repeat([]byte("x"), len(cert)))
			looks()
			r.wants(notUsed)
			r.tick--
			r.write("a.crt", cert)
			looks()
			r.shows(c, "", "new.test")
			r.wants(used)
		})
	})
	t.Run("put back", func(t *testing.T) {
		bubble(t, func(r *rig) {
			r.renew("a", "old.test")
			r.server("a")
			r.run()
			for range 2 {
				for _, name := range [][2]string{{"a.crt", "away"}, {"away", "a.crt"}} {
					if err := os.Rename(r.path(name[0]), r.path(name[1])); err != nil {
						r.t.Fatal(err)
					}
					looks()
				}
				r.wants(notUsed, used)
			}
		})
	})
	t.Run("taken back", func(t *testing.T) {
		bubble(t, func(r *rig) {
			key, cert := made(r.t, "old.test", 0, 90*day)
			r.write("a.key", key)
			r.write("a.crt", cert)
			c := r.server("a")
			r.run()
			for range 2 {
				r.write("a.crt", nil)
				looks()
				r.wants(notUsed)
				r.write("a.crt", cert)
				looks()
				r.wants(used)
			}
			r.shows(c, "", "old.test")
		})
	})
}

// One pair of several can be renewed while another is broken, and files that only
// look new change nothing.
func TestPairsAlone(t *testing.T) {
	bubble(t, func(r *rig) {
		r.renew("a", "a.test")
		r.renew("b", "b.test")
		c := r.server("a", "b")
		r.run()
		r.write("a.crt", nil)
		r.renew("b", "b2.test")
		looks()
		r.shows(c, "", "a.test")
		r.shows(c, "b2.test", "b2.test")
		lines := r.told()
		slices.Sort(lines)
		if len(lines) != 2 || !strings.HasPrefix(lines[0], notUsed) || !strings.HasPrefix(lines[1], used) {
			t.Errorf("%q", lines)
		}
		before, _ := c.GetConfigForClient(nil)
		b, err := os.ReadFile(r.path("b.crt"))
		if err != nil {
			t.Fatal(err)
		}
		r.write("b.crt", b)
		looks()
		if after, _ := c.GetConfigForClient(nil); after != before {
			t.Error("the same bytes count as a renewal")
		}
		r.wants()
	})
}

// A client's configuration changes with its own files, and with no others.
func TestClientFollows(t *testing.T) {
	bubble(t, func(r *rig) {
		for _, name := range []string{"server", "client", "ca"} {
			r.renew(name, name+".test")
		}
		r.server("server")
		with := Outbound{Key: r.path("client.key"), Cert: r.path("client.crt"), CA: r.path("ca.crt")}
		one, err := r.Client(with)
		if err != nil {
			t.Fatal(err)
		}
		two, err := r.Client(Outbound{})
		if err != nil {
			t.Fatal(err)
		}
		if two.Config(true) != two.Config(false) || len(one.Config(false).Certificates) != 0 {
			t.Error("a certificate from nowhere")
		}
		r.run()
		other := two.Config(true)
		for _, tc := range []struct {
			renew        string
			shown, roots bool // change
		}{{"server", false, false}, {"client", true, false}, {"ca", true, true}} {
			shown, bare := one.Config(true), one.Config(false)
			r.renew(tc.renew, tc.renew+"2.test")
			looks()
			r.wants(used)
			now := one.Config(true)
			if (now != shown) != tc.shown || one.Config(false).RootCAs.Equal(bare.RootCAs) == tc.roots || two.Config(true) != other {
				t.Errorf("%s: %+v", tc.renew, now)
			}
			if name := now.Certificates[0].Leaf.DNSNames[0]; (name == "client2.test") != (tc.renew != "server") {
				t.Errorf("%s: %s is shown", tc.renew, name)
			}
		}
		r.write("ca.crt", nil)
		pass(time.Hour)
		r.wants(notUsed)
		if one.Config(true).RootCAs == nil {
			t.Error("without authorities")
		}
	})
}

// A certificate that expires is warned of daily, from 14 days before on or the last
// third of a short life, and when it has expired.
func TestExpiry(t *testing.T) {
	const soonLine, expiredLine = "warn certificate expires soon", "error certificate has expired"
	for name, tc := range map[string]struct{ life, soon time.Duration }{
		"long":  {90 * day, 14 * day},
		"short": {6 * day, 2 * day},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.renew("ca", "ca.test")
				key, cert := made(t, "a.test", tc.life-tc.soon-time.Hour, tc.soon+time.Hour)
				r.write("a.key", key)
				r.write("a.crt", cert)
				r.server("a")
				if _, err := r.Client(Outbound{CA: r.path("ca.crt"), Key: r.path("a.key"), Cert: r.path("a.crt")}); err != nil {
					t.Fatal(err)
				}
				r.run()
				pass(time.Minute)
				r.wants()
				if p := r.Expiring(time.Now()); len(p) != 0 {
					t.Error(p)
				}
				pass(time.Hour)
				r.wants(soonLine + " " + r.path("a.crt") + " a.test")
				if p := r.Expiring(time.Now()); len(p) != 1 || !p[0].Warning || !strings.Contains(p[0].String(), "a.crt: warning: the certificate expires at 2000-") {
					t.Error(p)
				}
				pass(day)
				r.wants(soonLine)

				key, cert = made(t, "a.test", tc.life-time.Hour, time.Hour)
				r.write("a.key", key)
				r.write("a.crt", cert)
				looks()
				r.wants(used, soonLine)
				pass(time.Hour)
				r.wants(expiredLine)
				if p := r.Expiring(time.Now()); len(p) != 1 || !strings.Contains(p[0].Text, "the certificate has expired at 2000-") {
					t.Error(p)
				}
				pass(day)
				r.wants(expiredLine)
				r.renew("a", "a.test")
				looks()
				r.wants(used)
				pass(2 * day)
				r.wants()
			})
		})
	}
}
