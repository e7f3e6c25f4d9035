package mtasts

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/dns"
	"tarishi/internal/dns/memory"
)

// site is an HTTPS server for mta-sts.d.example, the DNS that announces its
// policies, and a clock.
type site struct {
	t       *testing.T
	dns     memory.Resolver
	client  *http.Client
	fetches atomic.Int32
	dir     string

	mu      sync.Mutex
	handler http.HandlerFunc
	now     time.Time
}

const text = "version: STSv1\nmode: enforce\nmx: mx.d.example\nmax_age: 864000\n"

func newSite(t *testing.T) *site {
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "sts"), now: time.Now()}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fetches.Add(1)
		s.mu.Lock()
		h := s.handler
		s.mu.Unlock()
		h(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	// httptest's certificate is for example.com and 127.0.0.1.
	roots := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	s.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "example.com"},
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if !strings.HasPrefix(addr, "mta-sts.") || !strings.HasSuffix(addr, ":443") {
				t.Errorf("connects to %s", addr)
			}
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		},
	}}
	s.serve(text)
	return s
}

// cache returns a Cache as after a start.
func (s *site) cache() *Cache {
	c := New(Options{Resolver: &s.dns, Dir: s.dir, Client: s.client, Now: s.clock})
	s.t.Cleanup(func() { c.Close() })
	return c
}

func (s *site) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *site) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func (s *site) handle(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = h
}

// serve publishes a policy without telling.
func (s *site) serve(policy string) {
	s.handle(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "mta-sts.d.example" || r.URL.Path != "/.well-known/mta-sts.txt" {
			s.t.Errorf("asks for %s%s", r.Host, r.URL)
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(policy))
	})
}

func (s *site) fail() {
	s.handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
}

// announce sets the id of d.example's record; "" removes it.
func (s *site) announce(id string) {
	s.dns.Remove("_mta-sts.d.example")
	if id != "" {
		s.dns.AddTXT("_mta-sts.d.example", "v=STSv1; id="+id)
	}
}

// policy asks as deliveries do: again, when a fetch has ended.
func policy(ctx context.Context, c *Cache, domain string) *Policy {
	for {
		p, f := c.Policy(ctx, domain)
		if f == nil {
			return p
		}
		ended := make(chan struct{})
		f.Then(func() { close(ended) })
		select {
		case <-ended:
		case <-ctx.Done():
			return nil
		}
	}
}

// want checks what is known of d.example, "" for no policy, and how often it was
// fetched so far.
func (s *site) want(c *Cache, step, mx string, fetches int32) {
	s.t.Helper()
	p := policy(s.t.Context(), c, "D.example")
	got := ""
	if p != nil {
		got = strings.Join(p.MX, ",")
	}
	if n := s.fetches.Load(); got != mx || n != fetches {
		s.t.Errorf("%s: policy %q after %d fetches, want %q after %d", step, got, n, mx, fetches)
	}
}

func TestPolicy(t *testing.T) {
	s := newSite(t)
	c := s.cache()
	s.want(c, "no record", "", 0)
	s.dns.Fail("_mta-sts.d.example", "TXT", dns.Temporary)
	s.want(c, "the DNS fails and nothing is known", "", 0)
	s.want(c, "the DNS is left alone", "", 0)
	if n := s.dns.Count("_mta-sts.d.example", "TXT"); n != 2 {
		t.Errorf("%d lookups", n)
	}
	s.pass(silentFor)
	s.announce("1")
	s.want(c, "announced", "mx.d.example", 1)
	s.want(c, "known", "mx.d.example", 1)
	s.serve(strings.Replace(text, "mx.d", "two.d", 1))
	s.want(c, "changed, the id is not", "mx.d.example", 1)
	s.announce("2")
	s.want(c, "changed", "two.d.example", 2)
	s.fail()
	s.announce("3")
	s.want(c, "the new one cannot be had", "two.d.example", 3)
	s.want(c, "not tried again at once", "two.d.example", 3)
	s.pass(retryAfter)
	s.want(c, "tried again later", "two.d.example", 4)
	s.announce("")
	s.want(c, "the record is gone, or suppressed", "two.d.example", 4)
	s.dns.Fail("_mta-sts.d.example", "TXT", dns.Temporary)
	s.want(c, "the DNS fails", "two.d.example", 4)
	s.want(c, "the DNS is left alone, the policy counts", "two.d.example", 4)

	c.Close()
	c = s.cache()
	s.want(c, "after a restart", "two.d.example", 4)
	s.pass(10*24*time.Hour + time.Second)
	s.want(c, "expired", "", 4)
	s.pass(silentFor)
	s.announce("3")
	s.want(c, "expired, a new one cannot be had", "", 5)
	s.serve(strings.Replace(text, "enforce", "none", 1))
	s.announce("4")
	s.want(c, "mode none", "", 6)
	s.want(c, "mode none is known", "", 6)
	if p := policy(t.Context(), c, "[192.0.2.1]"); p != nil {
		t.Error("a literal has a policy")
	}
}

// TestSlowDNS holds that a server that does not answer for the record holds a
// delivery up for seconds only, and not every one.
func TestSlowDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowDNS{}
		c := New(Options{Resolver: slow})
		begin := time.Now()
		for range 3 {
			if policy(t.Context(), c, "d.example") != nil {
				t.Error("a policy")
			}
		}
		if d := time.Since(begin); d != recordWait || slow.asked != 1 {
			t.Errorf("%d lookups in %v", slow.asked, d)
		}
		// One whose caller left says nothing about the domain.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		policy(ctx, c, "e.example")
		policy(t.Context(), c, "e.example")
		if slow.asked != 3 {
			t.Errorf("%d lookups", slow.asked)
		}
		c.Close()
	})
}

// TestDeadServer holds that a policy is found though the first of the resolver's
// servers never answers.
func TestDeadServer(t *testing.T) {
	s := newSite(t)
	s.announce("1")
	c := s.cache()
	synctest.Test(t, func(t *testing.T) {
		late := lateDNS{c.options.Resolver, 5100 * time.Millisecond} // after the default of dns.Settings.Timeout
		texts, err := (&Cache{options: Options{Resolver: late}}).lookUpRecord(t.Context(), "d.example")
		if id, ok := recordID(texts); !ok || id != "1" {
			t.Errorf("%q, %v", texts, err)
		}
	})
}

// TestFetchedMeanwhile holds that who was still looking up the record while
// another's fetch began and ended does not fetch again, whatever came of it.
func TestFetchedMeanwhile(t *testing.T) {
	for _, broken := range []bool{false, true} {
		s := newSite(t)
		s.announce("1")
		if broken {
			s.fail()
		}
		held := &heldDNS{Resolver: &s.dns, asked: make(chan struct{}), answer: make(chan struct{})}
		c := New(Options{Resolver: held, Client: s.client, Now: s.clock})
		t.Cleanup(func() { c.Close() })
		first := make(chan *Policy)
		go func() { first <- policy(context.Background(), c, "d.example") }()
		<-held.asked
		second := policy(t.Context(), c, "d.example")
		close(held.answer)
		if p := <-first; (p == nil) != broken || (second == nil) != broken || s.fetches.Load() != 1 {
			t.Errorf("broken %v: %v and %v with %d fetches", broken, p, second, s.fetches.Load())
		}
	}
}

// heldDNS keeps who asks for the first record waiting.
type heldDNS struct {
	Resolver
	calls         atomic.Int32
	asked, answer chan struct{}
}

func (h *heldDNS) TXT(ctx context.Context, name string) ([]string, error) {
	if h.calls.Add(1) == 1 {
		close(h.asked)
		<-h.answer
	}
	return h.Resolver.TXT(ctx, name)
}

// lateDNS answers after a time.
type lateDNS struct {
	Resolver
	after time.Duration
}

func (l lateDNS) TXT(ctx context.Context, name string) ([]string, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(l.after):
	}
	return l.Resolver.TXT(ctx, name)
}

type slowDNS struct{ asked int }

func (s *slowDNS) KnownTXT(string) (texts []string, known bool, err error) { return nil, false, nil }

func (s *slowDNS) TXT(ctx context.Context, name string) ([]string, error) {
	s.asked++
	<-ctx.Done()
	return nil, &dns.Error{Name: name, Type: "TXT", Cause: ctx.Err()}
}

func (*slowDNS) Addrs(context.Context, string) ([]netip.Addr, error) { return nil, &dns.Error{} }

func TestRefresh(t *testing.T) {
	s := newSite(t)
	c := s.cache()
	s.announce("1")
	s.want(c, "first", "mx.d.example", 1)
	s.pass(refreshAfter - time.Second)
	s.want(c, "not yet", "mx.d.example", 1)
	s.pass(time.Second)
	s.serve(strings.Replace(text, "mx.d", "two.d", 1))
	if p := policy(t.Context(), c, "d.example"); p == nil {
		t.Fatal("no policy while it is refreshed")
	}
	c.running.Wait()
	s.want(c, "refreshed", "two.d.example", 2)
	s.pass(9 * 24 * time.Hour) // after the first would have expired
	s.fail()
	s.want(c, "kept alive", "two.d.example", 2)
	c.running.Wait()
	s.want(c, "a refresh fails", "two.d.example", 3)
}

// TestRefreshHalfway: a policy of a short time is fetched again before it is over.
func TestRefreshHalfway(t *testing.T) {
	s := newSite(t)
	c := s.cache()
	s.serve(strings.Replace(text, "864000", "7200", 1))
	s.announce("1")
	s.want(c, "first", "mx.d.example", 1)
	s.pass(time.Hour - time.Second)
	s.want(c, "not yet", "mx.d.example", 1)
	s.pass(time.Second)
	policy(t.Context(), c, "d.example")
	c.running.Wait()
	s.want(c, "half its time", "mx.d.example", 2)
}

func TestFetch(t *testing.T) {
	plain := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write([]byte(body))
		}
	}
	padding := func(n int) string { return text + "x: " + strings.Repeat("y", n-len(text)-3) }
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		change  func(*http.Client)
		want    bool
	}{
		{"text/plain", plain(text), nil, true},
		{"64 KiB", plain(padding(maxBody)), nil, true},
		{"more than 64 KiB", plain(padding(maxBody + 1)), nil, false},
		{"not a policy", plain("hello"), nil, false},
		{"404", func(w http.ResponseWriter, r *http.Request) { http.Error(w, text, http.StatusNotFound) }, nil, false},
		{"203", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusNonAuthoritativeInfo)
			_, _ = w.Write([]byte(text))
		}, nil, false},
		{"html", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(text))
		}, nil, false},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://mta-sts.other.example/", http.StatusFound)
		}, nil, false},
		{"certificate of another name", plain(text), func(c *http.Client) {
			c.Transport.(*http.Transport).TLSClientConfig.ServerName = ""
		}, false},
		{"certificate of another authority", plain(text), func(c *http.Client) {
			c.Transport.(*http.Transport).TLSClientConfig.RootCAs = nil
		}, false},
	} {
		s := newSite(t)
		s.announce("1")
		s.handle(tt.handler)
		if tt.change != nil {
			tt.change(s.client)
		}
		if p := policy(t.Context(), s.cache(), "d.example"); (p != nil) != tt.want {
			t.Errorf("%s: %+v", tt.name, p)
		}
		if n := s.fetches.Load(); n > 1 {
			t.Errorf("%s: %d fetches", tt.name, n)
		}
	}
}

// TestShared holds that who waits for the same policy shares one fetch, that one
// who leaves does not end it, and that Close does.
func TestShared(t *testing.T) {
	s := newSite(t)
	s.announce("1")
	c := s.cache()
	asked, answer := make(chan struct{}, 9), make(chan struct{})
	s.handle(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-answer:
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write([]byte(text))
	})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if policy(t.Context(), c, "d.example") == nil {
				t.Error("no policy")
			}
		})
	}
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if policy(ctx, c, "d.example") != nil {
		t.Error("a policy out of nothing")
	}
	close(answer)
	all.Wait()
	if n := s.fetches.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}

	s.announce("2")
	answer = make(chan struct{})
	done := make(chan *Policy)
	go func() { done <- policy(context.Background(), c, "d.example") }()
	<-asked
	c.Close()
	if p := <-done; p == nil {
		t.Error("the known policy is lost by Close")
	}
	if policy(t.Context(), c, "d.example") == nil || s.fetches.Load() != 2 {
		t.Error("fetches after Close")
	}
}

func TestDisk(t *testing.T) {
	s := newSite(t)
	s.announce("1")
	s.want(s.cache(), "fetched", "mx.d.example", 1)
	path := filepath.Join(s.dir, "d.example.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(s.dir); len(entries) != 1 {
		t.Errorf("%d files", len(entries))
	}
	fetches := int32(1)
	for name, change := range map[string]func() []byte{
		"cut":           func() []byte { return good[:len(good)/2] },
		"empty":         func() []byte { return nil },
		"other version": func() []byte { return []byte(strings.Replace(string(good), `"version": 1`, `"version": 2`, 1)) },
		"other domain":  func() []byte { return []byte(strings.Replace(string(good), `"d.example"`, `"e.example"`, 1)) },
		"other mode":    func() []byte { return []byte(strings.Replace(string(good), `"enforce"`, `"x"`, 1)) },
		"future":        func() []byte { return []byte(strings.Replace(string(good), `"fetched": "20`, `"fetched": "21`, 1)) },
		"no mx":         func() []byte { return []byte(strings.Replace(string(good), `"mx.d.example"`, ``, 1)) },
	} {
		b := change()
		if string(b) == string(good) {
			t.Fatalf("%s: nothing is changed", name)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s.announce("")
		s.want(s.cache(), name, "", fetches)
		s.announce("1")
		fetches++
		s.want(s.cache(), name+", announced", "mx.d.example", fetches)
	}
	if b, _ := os.ReadFile(path); len(b) != len(good) {
		t.Errorf("the file was not made anew: %s", b)
	}

	// What has expired goes when something new comes, and so do half-written
	// files; damaged ones stay for whoever wants to see them.
	old := filepath.Join(s.dir, "old.example.json")
	short := strings.NewReplacer("d.example", "old.example", "864000", "10").Replace(string(good))
	for p, b := range map[string]string{old: short, filepath.Join(s.dir, temporary+"1"): "", filepath.Join(s.dir, "bad.example.json"): "{"} {
		if err := os.WriteFile(p, []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.pass(2 * time.Hour)
	s.announce("2")
	c := s.cache()
	s.want(c, "again", "mx.d.example", fetches+1)
	c.running.Wait()
	var left []string
	entries, _ := os.ReadDir(s.dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got := strings.Join(left, " "); got != "bad.example.json d.example.json" {
		t.Errorf("left: %s", got)
	}
}

func TestBounds(t *testing.T) {
	s := newSite(t)
	c := s.cache()
	for i := range maxEntries + 100 {
		c.mu.Lock()
		c.keepEntry(strconv.Itoa(i), &entry{})
		c.mu.Unlock()
	}
	if n := len(c.entries); n > maxEntries {
		t.Errorf("%d entries in memory", n)
	}
}

// TestDial holds that without a client of its own a Cache connects to what the
// Resolver says.
func TestDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var m memory.Resolver
	m.AddAddr("mta-sts.d.example", "127.0.0.1")
	c := New(Options{Resolver: &m})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	conn, err := c.dialHost(t.Context(), "tcp", "mta-sts.d.example:"+port)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if _, err := c.dialHost(t.Context(), "tcp", "other.example:443"); !dns.IsNXDomain(err) {
		t.Error(err)
	}
}

// TestShortLived holds that a policy that says it is gone at once is neither
// fetched for every delivery nor without effect.
func TestShortLived(t *testing.T) {
	s := newSite(t)
	c := s.cache()
	s.serve(strings.Replace(text, "864000", "0", 1))
	s.announce("1")
	for range 5 {
		s.want(c, "max_age 0", "mx.d.example", 1)
	}
	s.pass(minAge/2 - time.Second)
	s.want(c, "not old enough to be fetched again", "mx.d.example", 1)
	s.fail()
	s.pass(minAge)
	s.want(c, "gone, and cannot be had", "", 2)
	s.want(c, "not asked for again at once", "", 2)
}

// TestManyPatterns holds that a long policy works and does not fill the log.
func TestManyPatterns(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	s := newSite(t)
	s.serve(text + strings.Repeat("mx: x.d.example\n", 3500) + "mx: last.d.example\n")
	s.announce("1")
	c := New(Options{Resolver: &s.dns, Client: s.client, Now: s.clock, Log: zap.New(core)})
	defer c.Close()
	p := policy(t.Context(), c, "d.example")
	if p == nil || !p.Allows("last.d.example") {
		t.Fatalf("%v, %v", p, logs.All())
	}
	if got := logs.FilterMessage("MTA-STS policy").All(); len(got) != 1 || len(got[0].ContextMap()["mx"].([]any)) > maxLogged {
		t.Errorf("%d lines", len(got))
	}
}
