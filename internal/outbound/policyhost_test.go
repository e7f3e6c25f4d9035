package outbound

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mtasts"
	"tarishi/internal/smtpclient"
)

// policyHosts is the web of MTA-STS policies: hosts whose domain begins with
// "hangs" accept and say nothing, all others have a policy.
type policyHosts struct {
	mu             sync.Mutex
	all, now, most int
	beyond         time.Duration // the longest fetch
}

func (p *policyHosts) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	p.all++
	p.now++
	p.most = max(p.most, p.now)
	p.mu.Unlock()
	began := time.Now()
	defer func() {
		p.mu.Lock()
		p.now--
		p.beyond = max(p.beyond, time.Since(began))
		p.mu.Unlock()
	}()
	if strings.HasPrefix(r.URL.Host, "mta-sts.hangs") {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	text := "version: STSv1\nmode: enforce\nmax_age: 86400\nmx: " + strings.TrimPrefix(r.URL.Host, "mta-sts.") + "\n"
	return &http.Response{StatusCode: 200, Status: "200 OK", Header: http.Header{"Content-Type": {"text/plain"}}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

// TestPolicyHostsThatHang hold nobody up but mail to their own domains, and that
// for seconds.
func TestPolicyHostsThatHang(t *testing.T) {
	inBubble(t, func(r *rig) {
		hosts := &policyHosts{}
		sts := mtasts.New(mtasts.Options{Resolver: r.dns, Client: &http.Client{Transport: hosts}})
		defer sts.Close()
		r.o.STS, r.o.EnableTLS = sts, true
		r.start()
		w := newTarpits(r)
		for i := range 200 {
			r.dns.AddTXT(fmt.Sprintf("_mta-sts.hangs%d.test", i), "v=STSv1; id=1")
		}
		r.dns.AddTXT("_mta-sts.strict0.test", "v=STSv1; id=1")
		w.send("hangs", 200, 3)
		w.send("plain", 20, 1)
		w.arrive("plain", 20, time.Second)
		synctest.Wait()
		if s := r.out.Stat(); s.Running > 0 || s.Waiting != 600 {
			t.Errorf("waiting for policies: %+v", s)
		}
		w.send("strict", 1, 1)
		w.arrive("strict", 1, 101*time.Second)
		for _, s := range r.wire.take() {
			if s.env.Recipients[0].Address.Domain == "strict0.test" && s.target.TLS != smtpclient.TLSVerify {
				t.Errorf("sent to a domain with a policy, with TLS %d", s.target.TLS)
			}
		}
		w.arrive("hangs", 200, 101*time.Second)
		if hosts.all != 201 || hosts.most > 20 || hosts.beyond > 10*time.Second {
			t.Errorf("%d fetches, %d at a time, for up to %v", hosts.all, hosts.most, hosts.beyond)
		}
		// That they hang is remembered.
		w.mu.Lock()
		clear(w.delivered)
		w.mu.Unlock()
		w.send("hangs", 100, 1)
		w.arrive("hangs", 100, time.Second)
		if hosts.all != 201 {
			t.Errorf("%d fetches", hosts.all)
		}
		r.wantIdle()
	})
}

// TestPolicyIsWaitedFor: that is no attempt, hooks are asked once, and a message
// that is taken away meanwhile stays away.
func TestPolicyIsWaitedFor(t *testing.T) {
	inBubble(t, func(r *rig) {
		sts := mtasts.New(mtasts.Options{Resolver: r.dns, Client: &http.Client{Transport: &policyHosts{}}})
		defer sts.Close()
		r.o.STS, r.o.EnableTLS = sts, true
		r.dns.AddTXT("_mta-sts.hangs0.test", "v=STSv1; id=1")
		r.dns.AddAddr("hangs0.test", "192.0.2.9")
		asked := r.on(hook.OnSendEmail, hook.Proceed())
		r.start()
		gone := r.send("a@hangs0.test")
		r.send("b@hangs0.test")
		r.pass(9 * time.Second)
		r.wantSent()
		r.wantOps()
		r.out.Forget(gone.ID)
		r.pass(time.Second)
		r.wantSent("10s sender@from.test>b 192.0.2.9:25")
		r.wantOps("settle [0]")
		if len(*asked) != 2 {
			t.Errorf("%d times asked", len(*asked))
		}
	})
}
