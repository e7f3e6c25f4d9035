package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"tarishi/internal/dns/memory"
	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// TestNextAfterDeferral: whom each host is asked about, and what came of it.
func TestNextAfterDeferral(t *testing.T) {
	ok, no, later, grey := reply.New(250, "", "ok"), reply.New(550, "5.1.1", "unknown"), reply.New(451, "4.3.0", "later"), reply.New(450, "4.2.0", "Greylisted")
	full, bye := reply.New(452, "4.5.3", "too many"), reply.New(421, "4.3.2", "bye")
	lostDot := &smtpclient.Failure{Stage: smtpclient.StageDot, Err: errors.New("lost"), Uncertain: true}
	lostLMTP := later.Because(lostDot)
	type asked map[int]any // what host n answers: a reply for all, one for each of to0, to1, to2 by name, or an error
	for _, tt := range []struct {
		name  string
		asked asked
		off   bool
		hops  []mail.NextHop
		want  string // host>recipients of each Send
		codes string // of the replies, with the host that gave each
	}{
		{name: "taken by the second", asked: asked{1: later}, want: "1>012 2>012", codes: "250/2 250/2 250/2"},
		{name: "by the third", asked: asked{1: later, 2: later}, want: "1>012 2>012 3>012", codes: "250/3 250/3 250/3"},
		{name: "by none", asked: asked{1: later, 2: later, 3: full}, want: "1>012 2>012 3>012", codes: "452/3 452/3 452/3"},
		{name: "switched off", asked: asked{1: later}, off: true, want: "1>012", codes: "451/1 451/1 451/1"},
		{name: "each his own way", asked: asked{1: []*reply.Reply{ok, later, no}}, want: "1>012 2>1", codes: "250/1 250/2 550/1"},
		{name: "and further", asked: asked{1: []*reply.Reply{ok, later, later}, 2: []*reply.Reply{nil, later, ok}}, want: "1>012 2>12 3>1", codes: "250/1 250/3 250/2"},
		{name: "greylisted once", asked: asked{1: grey}, want: "1>012 2>012", codes: "250/2 250/2 250/2"},
		{name: "greylisted twice", asked: asked{1: grey, 2: grey}, want: "1>012 2>012", codes: "450/2 450/2 450/2"},
		{name: "one of them greylisted twice", asked: asked{1: grey, 2: []*reply.Reply{grey, later, ok}}, want: "1>012 2>012 3>1", codes: "450/2 250/3 250/2"},
		{name: "refused by a lesser one", asked: asked{1: later, 2: no}, want: "1>012 2>012 3>012", codes: "250/3 250/3 250/3"},
		{name: "refused by all lesser ones", asked: asked{1: later, 2: no, 3: no}, want: "1>012 2>012 3>012", codes: "451/1 451/1 451/1"},
		{name: "the second is away", asked: asked{1: later, 2: unreachable(), 3: unreachable()}, want: "1>012 2>012 3>012", codes: "451/1 451/1 451/1"},
		{name: "the second closes", asked: asked{1: later, 2: bye}, want: "1>012 2>012 3>012", codes: "250/3 250/3 250/3"},
		{name: "the first closes", asked: asked{1: bye, 2: later}, want: "1>012 2>012 3>012", codes: "250/3 250/3 250/3"},
		{name: "no reply to the dot", asked: asked{1: lostDot}, want: "1>012", codes: "451/ 451/ 451/"},
		{name: "no reply to the second's dot", asked: asked{1: []*reply.Reply{ok, later, later}, 2: lostDot}, want: "1>012 2>12", codes: "250/1 451/2 451/2"},
		{name: "no reply to the dot for one", asked: asked{1: []*reply.Reply{ok, lostLMTP, later}}, want: "1>012 2>2", codes: "250/1 451/1 250/2"},
		{name: "too many at once", asked: asked{1: []*reply.Reply{ok, full, full}}, want: "1>012", codes: "250/1 452/1 452/1"},
		{name: "too many, and none taken", asked: asked{1: full}, want: "1>012 2>012", codes: "250/2 250/2 250/2"},
		{name: "an error of our own at the second", asked: asked{1: later, 2: errors.New("odd")}, want: "1>012 2>012", codes: "451/1 451/1 451/1"},
		{
			name: "hops of a hook", asked: asked{1: later}, want: "1>012 2>012", codes: "250/2 250/2 250/2",
			hops: []mail.NextHop{{Host: "192.0.2.1"}, {Host: "192.0.2.2"}},
		},
		{
			name: "hosts of smtp_forward.ini", asked: asked{1: later}, want: "1>012", codes: "451/1 451/1 451/1",
			hops: []mail.NextHop{{Host: "192.0.2.1", Backend: true}, {Host: "192.0.2.2", Backend: true}},
		},
		{
			name: "one host twice", asked: asked{1: later}, want: "1>012", codes: "451/1 451/1 451/1",
			hops: []mail.NextHop{{Host: "192.0.2.1"}, {Host: "192.0.2.1"}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var sent []string
			o := options(nil)
			world := &memory.Resolver{}
			for n := 1; n <= 3; n++ {
				world.AddMX("three.test", 10*n, fmt.Sprintf("mx%d.three.test", n))
				world.AddAddr(fmt.Sprintf("mx%d.three.test", n), fmt.Sprintf("192.0.2.%d", n))
			}
			o.Resolver, o.NextMXOnDeferral = world, !tt.off
			o.Sender = sendFunc(func(to pool.Target, env *mail.Envelope) (smtpclient.Result, error) {
				host := int(to.Addrs[0].Addr().AsSlice()[3])
				res := smtpclient.Result{TLS: "none", Addr: to.Addrs[0].String()}
				names := ""
				for _, r := range env.Recipients {
					names += r.Address.Local[2:]
				}
				sent = append(sent, fmt.Sprintf("%d>%s", host, names))
				for _, n := range names {
					switch a := tt.asked[host].(type) {
					case *reply.Reply:
						res.Replies = append(res.Replies, a)
					case []*reply.Reply:
						res.Replies = append(res.Replies, a[n-'0'])
					case error:
						return smtpclient.Result{}, a
					default:
						res.Replies = append(res.Replies, ok)
					}
				}
				return res, nil
			})
			res := New(o).Attempt(t.Context(), Job{Envelope: envelope(3), Content: content, Domain: "three.test", Hops: tt.hops}, nil)
			if got := strings.Join(sent, " "); got != tt.want {
				t.Errorf("sent %s, want %s", got, tt.want)
			}
			var codes []string
			for i, r := range res.Replies {
				host := ""
				if via := res.From(i); via != nil {
					host = via.IP[len("192.0.2."):]
				}
				codes = append(codes, fmt.Sprintf("%d/%s", r.Code, host))
			}
			if got := strings.Join(codes, " "); got != tt.codes || res.Interrupted {
				t.Errorf("replies %s, want %s", got, tt.codes)
			}
		})
	}
}

type sendFunc func(t pool.Target, env *mail.Envelope) (smtpclient.Result, error)

func (f sendFunc) Send(_ context.Context, t pool.Target, env *mail.Envelope, _ mail.Content) (smtpclient.Result, error) {
	return f(t, env)
}

// TestCutShortAfterDeferral: what an attempt has learned when its context ends is
// not lost, since recipients have their message.
func TestCutShortAfterDeferral(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &sender{answers: map[string]any{"[2001:db8::1]:25": []*reply.Reply{reply.New(250, "", "ok"), reply.New(451, "", "later")}}, onSend: cancel}
	o := options(s)
	o.NextMXOnDeferral = true
	res := New(o).Attempt(ctx, Job{Envelope: envelope(2), Content: content, Domain: "two.test"}, nil)
	if res.Interrupted || len(res.Replies) != 2 || !res.Replies[0].Positive() || !res.Replies[1].Temporary() || !slices.Equal(s.addrs(), []string{"[2001:db8::1]:25"}) {
		t.Errorf("%+v", res)
	}
}

// TestUncertainInPart: a message that an LMTP server may have taken for those
// recipients that it gave no reply for.
func TestUncertainInPart(t *testing.T) {
	ok, later := reply.New(250, "", "ok"), reply.New(451, "4.3.0", "later")
	lost := later.Because(&smtpclient.Failure{Stage: smtpclient.StageDot, Err: errors.New("lost"), Uncertain: true})
	for _, tt := range []struct {
		replies []*reply.Reply
		want    bool
	}{
		{[]*reply.Reply{ok, lost}, true},
		{[]*reply.Reply{ok, ok}, false},
		{[]*reply.Reply{ok, later.Because(errors.New("other"))}, false},
	} {
		o := options(nil)
		o.Sender = sendFunc(func(pool.Target, *mail.Envelope) (smtpclient.Result, error) {
			return smtpclient.Result{TLS: "none", Replies: tt.replies}, nil
		})
		job := Job{Envelope: envelope(2), Content: content, Domain: "two.test", Hops: []mail.NextHop{{Host: "192.0.2.1", Protocol: mail.LMTP}}}
		if res := New(o).Attempt(t.Context(), job, nil); res.Uncertain != tt.want || len(res.Replies) != 2 {
			t.Errorf("%v: %+v", tt.replies, res)
		}
	}
}
