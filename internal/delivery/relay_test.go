package delivery

import (
	"context"
	"errors"
	"testing"
	"time"

	"tarishi/internal/delivery/meaning"
	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/route"
	"tarishi/internal/smtpclient"
)

// relayed makes a Relay's attempt at two hosts, which answer as told, and returns it
// with the hosts that were asked.
func relayed(t *testing.T, env *mail.Envelope, answers ...any) (Result, string) {
	t.Helper()
	s := &scripted{answers: answers}
	r := NewRelay(RelayOptions{RelayGeneration: RelayGeneration{Me: "me.test", Resolver: world()}, Sender: s})
	route := &route.Route{Name: "r", Hosts: []mail.NextHop{{Host: "192.0.2.1"}, {Host: "192.0.2.2"}}, DeadRetry: time.Hour}
	return r.Attempt(t.Context(), RelayJob{Envelope: env, Content: content, Route: route}), s.asked
}

// TestObstacles: what a Result says of a message that no host answered.
func TestObstacles(t *testing.T) {
	closing := reply.New(421, "4.3.2", "closing")
	for name, tt := range map[string]struct {
		last *smtpclient.Failure
		want Obstacle
		said *reply.Reply
	}{
		"unreachable":    {unreachable(), Unreached, nil},
		"no slot":        {&smtpclient.Failure{Stage: smtpclient.StageConnect, Reply: reply.New(451, "4.4.5", "busy")}, Busy, nil},
		"TLS":            {&smtpclient.Failure{Stage: smtpclient.StageTLS, Err: errors.New("bad certificate")}, Insecure, nil},
		"credentials":    {refused(smtpclient.StageAuth, 535, "no"), NoLogin, nil},
		"421 at MAIL":    {&smtpclient.Failure{Stage: smtpclient.StageMail, Reply: closing}, Closing, closing},
		"421 at connect": {&smtpclient.Failure{Stage: smtpclient.StageGreeting, Reply: closing}, Unreached, nil},
		"garbage":        {&smtpclient.Failure{Stage: smtpclient.StageData, Reply: reply.New(451, "4.5.0", "garbage")}, Unreached, nil},
	} {
		res, asked := relayed(t, envelope(1), unreachable(), tt.last)
		if res.Replies != nil || res.Interrupted || res.Obstacle != tt.want || res.Said != tt.said || asked != "12" || res.Host != "192.0.2.2" || res.IP != "192.0.2.2" {
			t.Errorf("%s: %+v after %s", name, res, asked)
		}
		var f *smtpclient.Failure
		if !errors.As(res.Cause, &f) {
			t.Errorf("%s: cause %v", name, res.Cause)
		}
	}
	lost := &smtpclient.Failure{Stage: smtpclient.StageDot, Err: errors.New("lost"), Uncertain: true}
	res, asked := relayed(t, envelope(1), lost)
	if !res.Uncertain || res.Obstacle != Lost || asked != "1" || !meaning.MayHaveArrived(reply.New(451, "", "x").Because(res.Cause)) {
		t.Errorf("%+v after %s", res, asked)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	route := &route.Route{Name: "r", Hosts: []mail.NextHop{{Host: "192.0.2.1"}}}
	if res := NewRelay(RelayOptions{}).Attempt(gone, RelayJob{Envelope: envelope(1), Route: route}); !res.Interrupted || res.Replies != nil || !errors.Is(res.Cause, context.Canceled) {
		t.Errorf("%+v", res)
	}
}

// TestJudgeRequireTLS: relay and queue decide alike about a message that no server
// could take as REQUIRETLS asks (RFC 8689 sections 4.2.1 and 5).
func TestJudgeRequireTLS(t *testing.T) {
	lacks := &smtpclient.Failure{Stage: smtpclient.StageMail, Reply: reply.New(451, "4.7.30", "not offered")}
	badTLS := &smtpclient.Failure{Stage: smtpclient.StageTLS, Err: errors.New("bad certificate")}
	for name, tt := range map[string]struct {
		null, plain bool
		answers     []any
		asked, want string
	}{
		"both lack it":                     {answers: []any{lacks, lacks}, asked: "1r2r", want: "5.7.30"},
		"one may have it":                  {answers: []any{lacks, badTLS}, asked: "1r2r", want: "4.7.5"},
		"null sender, both lack it":        {null: true, answers: []any{lacks, lacks}, asked: "1r2r1", want: "2.0.0"},
		"null sender, certificate":         {null: true, answers: []any{lacks, badTLS}, asked: "1r2r1", want: "2.0.0"},
		"null sender, then not there":      {null: true, answers: []any{lacks, unreachable()}, asked: "1r2r", want: "4.4.1"},
		"null sender, the server says so":  {null: true, answers: []any{reply.New(450, "4.7.30", "not here")}, asked: "1r1", want: "2.0.0"},
		"the server says so":               {answers: []any{reply.New(450, "4.7.30", "not here")}, asked: "1r", want: "4.7.30"},
		"null sender, refused":             {null: true, answers: []any{reply.New(550, "5.1.1", "unknown")}, asked: "1r", want: "5.1.1"},
		"null sender, without REQUIRETLS":  {null: true, plain: true, answers: []any{badTLS, badTLS}, asked: "12", want: "4.7.5"},
		"null sender, and in clear as bad": {null: true, answers: []any{lacks, lacks, badTLS, badTLS}, asked: "1r2r12", want: "4.7.5"},
	} {
		env := envelope(1)
		env.RequireTLS = !tt.plain
		if tt.null {
			env.From = mail.Address{}
		}
		status := map[Obstacle]string{Unreached: "4.4.1", Insecure: "4.7.5", LacksTLS: "5.7.30"}
		res, asked := relayed(t, env, tt.answers...)
		got := status[res.Obstacle]
		if res.Replies != nil {
			got = res.Replies[0].Status().String()
		}
		if asked != tt.asked || got != tt.want || env.RequireTLS == tt.plain {
			t.Errorf("relay, %s: asked %s, %s", name, asked, got)
		}

		s := &scripted{answers: tt.answers}
		o := options(nil)
		o.Sender, o.EnableTLS = s, false
		hops := []mail.NextHop{{Host: "192.0.2.1"}, {Host: "192.0.2.2"}}
		queued := New(o).Attempt(t.Context(), Job{Envelope: env, Content: content, Domain: "x.test", Hops: hops}, nil)
		if got := queued.Replies[0].Status().String(); s.asked != tt.asked || got != tt.want {
			t.Errorf("queue, %s: asked %s, %s", name, s.asked, got)
		}
	}
}

// scripted is a Sender that gives one answer after another, and then takes all.
type scripted struct {
	answers []any
	asked   string
}

func (s *scripted) Send(_ context.Context, to pool.Target, env *mail.Envelope, _ mail.Content) (smtpclient.Result, error) {
	s.asked += to.Host[len("192.0.2."):]
	if env.RequireTLS {
		s.asked += "r"
	}
	res := smtpclient.Result{TLS: "none", Addr: to.Addrs[0].String()}
	var answer any
	if len(s.answers) > 0 {
		answer, s.answers = s.answers[0], s.answers[1:]
	}
	switch a := answer.(type) {
	case *smtpclient.Failure:
		f := *a
		f.Addr = res.Addr
		return smtpclient.Result{}, &f
	case *reply.Reply:
		res.Replies = []*reply.Reply{a}
	default:
		res.Replies = []*reply.Reply{reply.New(250, "2.0.0", "OK")}
	}
	return res, nil
}
