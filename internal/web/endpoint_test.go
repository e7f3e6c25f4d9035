package web

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// ask sends a request and returns the status and the body.
func ask(t *testing.T, method, url string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// answer is a handler that says text.
func answer(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
}

// some returns a Server with a handler of each kind.
func some(authorize Authorize) *Server {
	s := New(Options{Authorize: authorize})
	s.Handle(Anyone, "GET /health", answer("ok"))
	s.Handle(Operator, "/v1/", answer("secret"))
	return s
}

// run runs an endpoint until the returned function is called, or the test ends.
func run(t *testing.T, e *Endpoint) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stopped := false
	stop = func() {
		t.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// loopback binds one address.
func loopback(t *testing.T, s *Server) *Endpoint {
	t.Helper()
	e, err := s.Bind(Settings{Listen: []string{"127.0.0.1:0"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// onSocket is a client of the socket in dir.
func onSocket(t *testing.T, dir string) *http.Client {
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return Dial(ctx, dir) }}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// get asks for a path with GET.
func get(t *testing.T, c *http.Client, url string) (status int, body string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// TestAccess: what operators may do is there on the socket, and elsewhere only for
// requests that are authorized.
func TestAccess(t *testing.T) {
	plain, guarded := loopback(t, some(nil)), loopback(t, some(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "right" {
			return true
		}
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return false
	}))
	dir := t.TempDir()
	local, err := some(nil).Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []*Endpoint{plain, guarded, local} {
		defer run(t, e)()
	}
	http1 := &http.Client{Transport: &http.Transport{}}
	defer http1.CloseIdleConnections()
	at := func(e *Endpoint) string { return "http://" + e.Addrs()[0].String() }
	for _, c := range []struct {
		client *http.Client
		url    string
		status int
	}{
		{http1, at(plain) + "/health", 200},
		{http1, at(plain) + "/v1/queue", 404},
		{http1, at(plain) + "//v1/queue", 404},
		{http1, at(plain) + "/debug/pprof/", 404},
		{http1, at(guarded) + "/health", 200},
		{http1, at(guarded) + "/v1/queue", 401},
		{http1, at(guarded) + "/health/../v1/queue", 401},
		{http1, at(guarded) + "/other", 401},
		{onSocket(t, dir), "http://x/health", 200},
		{onSocket(t, dir), "http://x/v1/queue", 200},
		{onSocket(t, dir), "http://x/other", 404},
	} {
		if status, body := get(t, c.client, c.url); status != c.status {
			t.Errorf("%s: %d %s, want %d", c.url, status, body, c.status)
		}
	}
	if status, _ := ask(t, "POST", at(plain)+"/health"); status != 405 {
		t.Errorf("another method: %d", status)
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", at(guarded)+"/v1/queue", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "right")
	res, err := http1.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("an operator: %d", res.StatusCode)
	}
}

// TestTLS: an endpoint answers on its plain and its TLS addresses.
func TestTLS(t *testing.T) {
	pair, roots := certificate(t)
	mail := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"smtp"}}
	config := mail.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return mail, nil }
	one := []string{"127.0.0.1:0"}
	e, err := some(nil).Bind(Settings{Listen: one, TLSListen: one}, func() *tls.Config { return config })
	if err != nil {
		t.Fatal(err)
	}
	run(t, e)
	if conn, err := tls.Dial("tcp", e.Addrs()[1].String(), &tls.Config{RootCAs: roots, ServerName: "web.test", NextProtos: []string{"smtp"}}); err == nil {
		conn.Close()
		t.Error("a mail client is served")
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "web.test", NextProtos: []string{"h2", "http/1.1"}}}}
	defer c.CloseIdleConnections()
	for i, url := range e.URLs() {
		if status, body := get(t, c, url+"/health"); status != 200 || body != "ok" || strings.HasPrefix(url, "https") != (i == 1) {
			t.Errorf("%s: %d %s", url, status, body)
		}
	}
}

// certificate makes a key pair for web.test, and the roots that know it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"web.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// TestServerEnds: a client that never ends its request, and one that reads
// nothing, do not keep Run.
func TestServerEnds(t *testing.T) {
	s := loopback(t, some(nil))
	stop := run(t, s)
	for _, text := range []string{"GET /heal", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"} {
		c, err := net.Dial("tcp", s.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if c, err := net.Dial("tcp", s.Addrs()[0].String()); err == nil {
		c.Close()
		t.Error("still bound after Run")
	}
}

// TestNotBound: an address that is taken is named, and no other stays bound.
func TestNotBound(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	first := net.JoinHostPort("127.0.0.7", port) // free: who takes a port asks for 127.0.0.1 or for all addresses
	_, err = New(Options{}).Bind(Settings{Listen: []string{first, taken.Addr().String()}}, nil)
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) || !strings.Contains(err.Error(), "http.ini") || !strings.Contains(err.Error(), "in use") {
		t.Error(err)
	}
	again, err := net.Listen("tcp", first)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// TestManyConnections: clients that say nothing take only so many descriptors.
func TestManyConnections(t *testing.T) {
	s := loopback(t, some(nil))
	var accepted atomic.Int64
	s.http.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			accepted.Add(1)
		}
	}
	run(t, s)
	var all []net.Conn
	for range maxConnections + 10 {
		c, err := net.Dial("tcp", s.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	answer := func(c net.Conn) {
		t.Helper()
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	for _, c := range all[:maxConnections] { // first come, first served
		answer(c)
	}
	if n := accepted.Load(); n != maxConnections {
		t.Errorf("%d connections at a time", n)
	}
	for _, c := range all[:10] {
		c.Close()
	}
	answer(all[len(all)-1])
}

// TestChange: an address that stays keeps its socket, one that is gone answers what it has
// accepted, and a change that fails, or comes to nothing, changes nothing.
func TestChange(t *testing.T) {
	began, proceed := make(chan struct{}), make(chan struct{})
	s := some(nil)
	s.Handle(Anyone, "GET /slow", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-proceed
		fmt.Fprint(w, "slow")
	}))
	e, err := s.Bind(Settings{Listen: []string{"127.0.0.1:0", "127.0.0.2:0"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	run(t, e)
	first, second := e.Addrs()[0].String(), e.Addrs()[1].String()
	answered := make(chan string, 1)
	go func() {
		res, err := http.Get("http://" + second + "/slow")
		if err != nil {
			answered <- err.Error()
			return
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		answered <- string(text)
	}()
	<-began

	// What fails or is discarded leaves no address bound.
	third := "127.0.0.3:" + second[strings.LastIndexByte(second, ':')+1:]
	if _, err := e.Change(Settings{Listen: []string{"127.0.0.1:0", third, second}}); err == nil || !strings.Contains(err.Error(), "config/http.ini: cannot listen on "+second) {
		t.Errorf("%v", err)
	}
	change := func(addrs ...string) *Change {
		t.Helper()
		c, err := e.Change(Settings{Listen: addrs})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	change("127.0.0.1:0", third).Discard()
	if addrs := e.Addrs(); len(addrs) != 2 || addrs[0].String() != first || addrs[1].String() != second {
		t.Errorf("%v", addrs)
	}
	change(third, "127.0.0.1:0").Apply()
	if addrs := e.Addrs(); len(addrs) != 2 || addrs[0].String() != third || addrs[1].String() != first {
		t.Errorf("%v", addrs)
	}
	for _, addr := range []string{first, third} {
		if status, body := ask(t, "GET", "http://"+addr+"/health"); status != 200 || body != "ok" {
			t.Errorf("%s: %d %s", addr, status, body)
		}
	}
	if c, err := net.Dial("tcp", second); err == nil {
		c.Close()
		t.Error("an address that is gone is still served")
	}
	close(proceed)
	if text := <-answered; text != "slow" {
		t.Errorf("%s", text)
	}
	change().Apply()
	if len(e.Addrs()) > 0 {
		t.Error("there are addresses left")
	}
}

// TestCovered: an address that another one covers needs no socket, at a change too.
func TestCovered(t *testing.T) {
	port := loopback(t, some(nil))
	_, number, _ := net.SplitHostPort(port.Addrs()[0].String())
	port.Close()
	e, err := some(nil).Bind(Settings{Listen: []string{"127.0.0.1:" + number, "0.0.0.0:" + number}}, nil)
	if err != nil {
		t.Skip("somebody else has taken the port:", err)
	}
	defer e.Close()
	if c, err := e.Change(Settings{Listen: []string{"0.0.0.0:" + number, "127.0.0.2:" + number}}); err != nil || len(c.fresh) > 0 || len(c.next) != 1 {
		t.Errorf("%v", err)
	}
}
