package delivery

import (
	"context"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/route"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// TestRoutesChange: a message that is being relayed while its route changes ends where it
// began, over its connection. That is closed when it has been idle for long enough, and
// later messages go the new way.
func TestRoutesChange(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	before := smtptest.New(t, smtptest.On(smtptest.Dot, func(smtptest.Event) smtptest.Action {
		close(begun)
		<-end
		return smtptest.Action{}
	}))
	after := smtptest.New(t)
	p := pool.New(pool.Options{})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() { stop(); <-ended }()

	generation := func(me string, s *smtptest.Server, idle time.Duration) RelayGeneration {
		main := route.Route{
			Name: "main", Hosts: []mail.NextHop{{Host: "127.0.0.1", Port: s.Port()}}, MaxConnections: 10, MaxMessages: 100,
			ConnectTimeout: time.Minute, CommandTimeout: time.Minute, SubmissionTimeout: time.Minute, Timeout: idle,
		}
		return RelayGeneration{Me: me, Conf: &route.Settings{Main: main}, Resolver: world()}
	}
	old, next := generation("old.test", before, time.Millisecond), generation("new.test", after, time.Hour)
	r := NewRelay(RelayOptions{RelayGeneration: old, Sender: p})
	relay := func(g *RelayGeneration) Result {
		return r.Attempt(t.Context(), RelayJob{Envelope: envelope(1), Content: content, Route: &g.Conf.Main})
	}

	// The first message is whole at the old server, which has not answered yet.
	first := make(chan Result)
	go func() { first <- relay(&old) }()
	<-begun
	r.Use(next)
	if res := relay(&next); res.Replies == nil || !res.Replies[0].Positive() || res.Port != after.Port() {
		t.Fatalf("%+v", res)
	}
	close(end)
	if res := <-first; res.Replies == nil || !res.Replies[0].Positive() || res.Port != before.Port() {
		t.Fatalf("%+v", res)
	}
	before.WaitOpen(0)
	for p.Stats().Open != 1 { // until the pool has seen the server's goodbye
		time.Sleep(time.Millisecond)
	}
	if d := before.Dialog(1); d[0] != "EHLO old.test" || d[len(d)-1] != "QUIT" {
		t.Errorf("the old server heard %q", d)
	}
	if d := after.Dialog(1); d[0] != "EHLO new.test" || d[len(d)-1] == "QUIT" {
		t.Errorf("the new server heard %q", d)
	}
}

// TestAttemptKeepsItsRelayGeneration: all hosts of a route are tried as the attempt began.
func TestAttemptKeepsItsRelayGeneration(t *testing.T) {
	var r *Relay
	var helos []string
	settings := func() *route.Settings {
		return &route.Settings{Main: route.Route{Name: "main", Hosts: []mail.NextHop{{Host: "192.0.2.1"}, {Host: "192.0.2.2"}}, DeadRetry: time.Hour}}
	}
	conf := settings()
	s := senderFunc(func(to pool.Target) (smtpclient.Result, error) {
		helos = append(helos, to.Helo)
		if len(helos) == 1 { // meanwhile
			r.Use(RelayGeneration{Me: "new.test", Conf: settings(), Resolver: world()})
			return smtpclient.Result{}, unreachable()
		}
		return smtpclient.Result{TLS: "none", Replies: []*reply.Reply{reply.New(250, "2.0.0", "OK")}}, nil
	})
	r = NewRelay(RelayOptions{RelayGeneration: RelayGeneration{Me: "old.test", Conf: conf, Resolver: world()}, Sender: s})
	for range 2 {
		r.Attempt(t.Context(), RelayJob{Envelope: envelope(1), Content: content, Route: &conf.Main})
	}

	// The first host is known to be dead in both generations.
	if len(helos) != 3 || helos[0] != "old.test" || helos[1] != "old.test" || helos[2] != "new.test" {
		t.Errorf("%q", helos)
	}
}

// senderFunc is a Sender.
type senderFunc func(to pool.Target) (smtpclient.Result, error)

func (s senderFunc) Send(_ context.Context, to pool.Target, _ *mail.Envelope, _ mail.Content) (smtpclient.Result, error) {
	return s(to)
}
