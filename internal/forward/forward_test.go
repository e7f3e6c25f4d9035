package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/delivery"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/plugin"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/route"
	"tarishi/internal/smtpclient"
)

var _ plugin.Forwarder = (*Forwarder)(nil)

// backend is a Sender: what each address answers, and what it was sent.
type backend struct {
	answer  func(ctx context.Context, addr string, env *mail.Envelope) (smtpclient.Result, error)
	mu      sync.Mutex
	targets []pool.Target
	sent    []string // "addr rcpt rcpt"
	text    string   // of the last message
}

func (b *backend) Send(ctx context.Context, t pool.Target, env *mail.Envelope, c mail.Content) (smtpclient.Result, error) {
	addr := t.Addr
	if len(t.Addrs) > 0 {
		addr = t.Addrs[0].String()
	}
	b.mu.Lock()
	b.targets, b.text = append(b.targets, t), textOf(c)
	b.sent = append(b.sent, addr+" "+strings.Join(addresses(env.Recipients, nil), " "))
	b.mu.Unlock()
	return b.answer(ctx, addr, env)
}

// hosts returns where transactions went so far, and forgets it.
func (b *backend) hosts() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for _, s := range b.sent {
		addr, _, _ := strings.Cut(s, ":")
		list = append(list, strings.TrimPrefix(addr, "10.0.0."))
	}
	b.sent = nil
	return strings.Join(list, " ")
}

// replies is a Result with the same reply for all but some recipients.
func replies(env *mail.Envelope, all string, except map[string]string) smtpclient.Result {
	res := smtpclient.Result{TLS: "none", Addr: "10.0.0.2:25"}
	for _, r := range env.Recipients {
		text, ok := except[r.Address.String()]
		if !ok {
			text = all
		}
		res.Replies = append(res.Replies, parse(text))
	}
	return res
}

// parse makes a reply of "550 5.1.1 text".
func parse(s string) *reply.Reply {
	var code int
	var rest string
	fmt.Sscanf(s, "%d", &code)
	_, rest, _ = strings.Cut(s, " ")
	if e, text, ok := strings.Cut(rest, " "); ok {
		if _, isCode := reply.ParseEnhanced(e); isCode {
			return reply.New(code, e, text)
		}
	}
	return reply.New(code, "", rest)
}

// hostTable is a Resolver.
type hostTable map[string][]string

func (h hostTable) Host(_ context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	list, ok := h[host]
	if !ok {
		return nil, errors.New("no such host")
	}
	var addrs []netip.Addr
	for _, s := range list {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	return addrs, nil
}

// office is Reporter and Requeuer.
type office struct {
	reported, requeued []string
	hosts              []string // that reported recipients were refused by
	why                []*reply.Reply
	confirmed          []string
	notes              mail.Notes
	text               string // of what was queued last
	err                error
}

func (o *office) Report(ctx context.Context, _ *mail.Envelope, _ mail.Content, failed []hook.RecipientResult) error {
	for _, f := range failed {
		o.reported = append(o.reported, f.Recipient.Address.String()+" "+f.Reply.String())
		o.hosts = append(o.hosts, f.Host)
	}
	return errors.Join(o.err, ctx.Err())
}

func (o *office) Confirm(ctx context.Context, _ *mail.Envelope, _ mail.Content, action string, taken []hook.RecipientResult) error {
	for _, x := range taken {
		o.confirmed = append(o.confirmed, action+" "+x.Recipient.Address.String()+" "+x.Host)
	}
	return errors.Join(o.err, ctx.Err())
}

func (o *office) Requeue(ctx context.Context, env *mail.Envelope, c mail.Content, why []*reply.Reply) error {
	o.why, o.text = why, textOf(c)
	o.requeued = append(o.requeued, addresses(env.Recipients, nil)...)
	o.notes = env.Notes
	return errors.Join(o.err, ctx.Err())
}

func address(s string) mail.Address {
	a, err := mail.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

func message(to ...string) *hook.Transaction {
	t := &hook.Transaction{Content: mail.Memory{[]byte("A: b\r\n\r\nc\r\n")}}
	t.ID, t.From, t.Notes = "C.1", address("s@x.org"), mail.Notes{}
	for _, a := range to {
		t.Recipients = append(t.Recipients, mail.Recipient{Address: address(a)})
	}
	return t
}

func routeTo(hosts ...string) *route.Route {
	r := &route.Route{Name: "main"}
	for _, h := range hosts {
		r.Hosts = append(r.Hosts, mail.NextHop{Host: h})
	}
	return r
}

// settings are Options with those of the engine below.
type settings struct {
	Options
	engine delivery.RelayOptions
}

func options(b *backend) settings {
	return settings{
		Options: Options{Mail: maillog.Nop(), Log: zap.NewNop()},
		engine: delivery.RelayOptions{
			RelayGeneration: delivery.RelayGeneration{Me: "me.test", Conf: &route.Settings{}, Resolver: hostTable{"two": {"10.0.0.1", "10.0.0.2"}}}, Sender: b,
		},
	}
}

// build makes a Forwarder on an engine of its own, which it returns too.
func build(s settings) (*Forwarder, *delivery.Relay) {
	relay := delivery.NewRelay(s.engine)
	s.Relay = relay
	return New(s.Options), relay
}

func forwarder(s settings) *Forwarder {
	f, _ := build(s)
	return f
}

var errRefused = &smtpclient.Failure{Stage: smtpclient.StageConnect, Err: errors.New("secret connection refused")}

func TestHostsAreTriedInOrder(t *testing.T) {
	for _, tc := range []struct {
		name  string
		hosts []string
		up    string // the address that answers
		sent  []string
		want  string
	}{
		{"first", []string{"10.0.0.9", "two"}, "10.0.0.9:25", []string{"10.0.0.9:25"}, "OK 250 2.0.0 taken"},
		{"second host", []string{"unknown", "two", "10.0.0.9"}, "10.0.0.9:25", []string{"10.0.0.1:25", "10.0.0.9:25"}, "OK 250 2.0.0 taken"},
		{"none", []string{"two"}, "", []string{"10.0.0.1:25"}, "DENYSOFT 451 4.4.1 No backend can be reached, please try again later"},
		{"no address", []string{"unknown"}, "", nil, "DENYSOFT 451 4.4.1 No backend can be reached, please try again later"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := &backend{answer: func(_ context.Context, addr string, env *mail.Envelope) (smtpclient.Result, error) {
				if addr == tc.up {
					return replies(env, "250 taken", nil), nil
				}
				return smtpclient.Result{}, errRefused
			}}
			v := forwarder(options(b)).Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), routeTo(tc.hosts...))
			var sent []string
			for _, s := range b.sent {
				sent = append(sent, strings.Fields(s)[0])
			}
			if got := v.Code.String() + " " + v.Reply.String(); got != tc.want || !slices.Equal(sent, tc.sent) {
				t.Errorf("%s after %q", got, sent)
			}
		})
	}
}

func TestUncertainIsNotRepeated(t *testing.T) {
	b := &backend{answer: func(context.Context, string, *mail.Envelope) (smtpclient.Result, error) {
		return smtpclient.Result{}, &smtpclient.Failure{Stage: smtpclient.StageDot, Err: errors.New("lost"), Uncertain: true}
	}}
	v := forwarder(options(b)).Forward(t.Context(), hook.ConnectionView{}, message("a@b.c", "d@b.c").View(), routeTo("two", "10.0.0.9"))
	if len(b.sent) != 1 || v.Code != hook.DenySoft || v.Reply.Code != 451 || v.Reply.Enhanced.String() != "4.4.2" {
		t.Errorf("%q %v", b.sent, v.Reply)
	}
}

func TestBackendReplies(t *testing.T) {
	for _, tc := range []struct{ backend, want string }{
		{"250 2.0.0 queued as 1A2B", "OK 250 2.0.0 queued as 1A2B"},
		{"250 2.6.0 one\ntwo", "OK 250 2.6.0 one, two"},
		{"251 4.0.0 odd", "OK 250 2.0.0 odd"},
		{"250", "OK 250 2.0.0 Message forwarded"},
		{"554 5.7.1 spam\nreally", "DENY 550 5.7.1 spam really"},
		{"552 too big", "DENY 550 5.0.0 too big"},
		{"550 4.2.1 confused", "DENY 550 5.0.0 confused"},
		{"550", "DENY 550 5.0.0 Message denied"},
		{"451 4.7.1 greylisted", "DENYSOFT 450 4.7.1 greylisted"},
		{"421 4.3.2 closing", "DENYSOFT 450 4.3.2 closing"},
		{"452", "DENYSOFT 450 4.0.0 Message denied temporarily"},
		{"550 5.1.1 \x1b[2Jcaf\xe9\x00\r\x7f", "DENY 550 5.1.1 ?[2Jcaf????"},
		{"550 5.1.1 " + strings.Repeat("x", 100_000), "DENY 550 5.1.1 " + strings.Repeat("x", maxText-3) + "..."},
	} {
		b := &backend{answer: func(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
			return replies(env, tc.backend, nil), nil
		}}
		v := forwarder(options(b)).Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), routeTo("10.0.0.9"))
		if got := v.Code.String() + " " + v.Reply.String(); got != tc.want {
			t.Errorf("%.40q:\n%s, want\n%s", tc.backend, got, tc.want)
		}
	}
}

func TestPartialRefusal(t *testing.T) {
	except := map[string]string{"bad@b.c": "550 5.1.1 no such user", "busy@b.c": "450 4.2.0 mailbox busy"}
	const took = "OK 250 2.0.0 taken"
	refusedText := took + "; refused: <bad@b.c> 550 5.1.1 no such user"
	both := refusedText + ", <busy@b.c> 450 4.2.0 mailbox busy"
	const bad, busy = "bad@b.c 550 5.1.1 no such user", "busy@b.c 450 4.2.0 mailbox busy"
	for _, tc := range []struct {
		name               string
		to                 []string
		change             func(*hook.Transaction, *settings, *office)
		want               string
		reported, requeued []string
	}{
		{"one refused", []string{"ok@b.c", "bad@b.c"}, nil, refusedText, []string{bad}, nil},
		{"one deferred", []string{"busy@b.c", "ok@b.c"}, nil, took, nil, []string{"busy@b.c"}},
		{"one of each", []string{"ok@b.c", "bad@b.c", "busy@b.c"}, nil, refusedText, []string{bad}, []string{"busy@b.c"}},
		{"nobody taken, one deferred", []string{"bad@b.c", "busy@b.c"}, nil, "DENYSOFT 450 4.2.0 mailbox busy", nil, nil},
		{"nobody taken", []string{"bad@b.c"}, nil, "DENY 550 5.1.1 no such user", nil, nil},
		{"no requeuer", []string{"ok@b.c", "bad@b.c", "busy@b.c"}, func(_ *hook.Transaction, o *settings, _ *office) { o.Requeuer = nil }, both, []string{bad, busy}, nil},
		{"nobody to help", []string{"ok@b.c", "bad@b.c", "busy@b.c"}, func(_ *hook.Transaction, o *settings, _ *office) { o.Requeuer, o.Reporter = nil, nil }, both, nil, nil},
		{
			"queue and report fail",
			[]string{"ok@b.c", "busy@b.c"},
			func(_ *hook.Transaction, _ *settings, o *office) { o.err = errors.New("disk full") },
			"DENYSOFT 451 4.3.0 Temporary local problem, please try again later",
			[]string{busy},
			[]string{"busy@b.c"},
		},
		{"null reverse-path", []string{"ok@b.c", "bad@b.c"}, func(t *hook.Transaction, _ *settings, _ *office) { t.From = mail.Address{} }, refusedText, nil, nil},
		{"no DSN wanted", []string{"ok@b.c", "bad@b.c"}, func(t *hook.Transaction, _ *settings, _ *office) { t.Recipients[1].Notify = mail.NotifyNever }, refusedText, nil, nil},
	} {
		for _, perRecipient := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", tc.name, perRecipient), func(t *testing.T) {
				var desk office
				b := &backend{answer: func(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
					return replies(env, "250 2.0.0 taken", except), nil
				}}
				o := options(b)
				o.Reporter, o.Requeuer = &desk, &desk
				tx := message(tc.to...)
				if tc.change != nil {
					tc.change(tx, &o, &desk)
				}
				r := routeTo("10.0.0.9")
				r.OneMessagePerRcpt = perRecipient
				v := forwarder(o).Forward(t.Context(), hook.ConnectionView{}, tx.View(), r)
				if got := v.Code.String() + " " + v.Reply.String(); got != tc.want {
					t.Errorf("%s, want\n%s", got, tc.want)
				}
				if !slices.Equal(desk.reported, tc.reported) || !slices.Equal(desk.requeued, tc.requeued) {
					t.Errorf("reported %q, requeued %q", desk.reported, desk.requeued)
				}
				if want := map[bool]int{false: 1, true: len(tc.to)}[perRecipient]; len(b.sent) != want {
					t.Errorf("%d transactions: %q", len(b.sent), b.sent)
				}
				if len(desk.requeued) > 0 && desk.notes.String("queue.wants") != "smtp_forward" {
					t.Errorf("notes %v", desk.notes)
				}
				if len(tx.Recipients) != len(tc.to) || len(tx.Notes) != 0 {
					t.Error("the transaction is changed")
				}
			})
		}
	}
}

func TestManyRefused(t *testing.T) {
	b := &backend{answer: func(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
		res := replies(env, "550 5.1.1 "+strings.Repeat("no ", 50), nil)
		res.Replies[0] = reply.New(250, "", "ok")
		return res, nil
	}}
	to := []string{"ok@b.c"}
	for i := range 100 {
		to = append(to, fmt.Sprintf("r%d@b.c", i))
	}
	v := forwarder(options(b)).Forward(t.Context(), hook.ConnectionView{}, message(to...).View(), routeTo("10.0.0.9"))
	if v.Code != hook.OK || len(v.Reply.Text) > maxText || !strings.Contains(v.Reply.Text, "<r0@b.c> 550") {
		t.Errorf("%v", v.Reply)
	}
}

// A backend that dies between the single messages: who was served stays served.
func TestOneMessagePerRcptLosesTheBackend(t *testing.T) {
	calls := 0
	b := &backend{answer: func(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
		if calls++; calls > 1 {
			return smtpclient.Result{}, errRefused
		}
		return replies(env, "250 2.0.0 taken", nil), nil
	}}
	var desk office
	o := options(b)
	o.Requeuer, o.Reporter = &desk, &desk
	r := routeTo("10.0.0.9")
	r.OneMessagePerRcpt = true
	v := forwarder(o).Forward(t.Context(), hook.ConnectionView{}, message("a@b.c", "d@b.c", "e@b.c").View(), r)
	if v.Code != hook.OK || !slices.Equal(desk.requeued, []string{"d@b.c", "e@b.c"}) || len(desk.reported) != 0 {
		t.Errorf("%v, requeued %q, reported %q", v.Reply, desk.requeued, desk.reported)
	}
	if want := []string{"10.0.0.9:25 a@b.c", "10.0.0.9:25 d@b.c"}; !slices.Equal(b.sent, want) {
		t.Errorf("sent %q", b.sent)
	}
}

// The client leaves after the backend has answered: the others' fate is still
// settled.
func TestClientGone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := &backend{answer: func(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
		cancel()
		return replies(env, "250 2.0.0 taken", map[string]string{"bad@b.c": "550 no", "busy@b.c": "450 later"}), nil
	}}
	var desk office
	o := options(b)
	o.Requeuer, o.Reporter = &desk, &desk
	v := forwarder(o).Forward(ctx, hook.ConnectionView{}, message("ok@b.c", "bad@b.c", "busy@b.c").View(), routeTo("10.0.0.9"))
	if v.Code != hook.OK || len(desk.reported) != 1 || len(desk.requeued) != 1 {
		t.Errorf("%v, requeued %q, reported %q", v.Reply, desk.requeued, desk.reported)
	}
	// And before: no further host is tried.
	b.sent = nil
	v = forwarder(o).Forward(ctx, hook.ConnectionView{}, message("ok@b.c").View(), routeTo("10.0.0.9", "10.0.0.8"))
	if v.Code != hook.DenySoft || len(b.sent) != 0 {
		t.Errorf("%v, sent %q", v.Reply, b.sent)
	}
}

func TestTarget(t *testing.T) {
	b := &backend{answer: func(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
		return replies(env, "250 ok", nil), nil
	}}
	r := &route.Route{
		Name: "r", Hosts: []mail.NextHop{{Host: "two", Port: 2525, ImplicitTLS: true, Protocol: mail.LMTP, Forwards: mail.XForward}},
		AuthType: "login", AuthUser: "u", AuthPass: "p", AuthInsecure: true, RequireTLS: true,
		ConnectTimeout: 1 * time.Second, Timeout: 2 * time.Second, CommandTimeout: 3 * time.Second, SubmissionTimeout: 4 * time.Second,
		MaxConnections: 5, MaxMessages: 6, MaxAge: 7 * time.Second,
	}
	f := forwarder(options(b))
	f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)
	want := pool.Target{
		Options: smtpclient.Options{
			Network: "tcp", Host: "two", Protocol: mail.LMTP, ImplicitTLS: true, TLS: smtpclient.TLSEncrypt, Helo: "me.test",
			AuthType: "login", AuthUser: "u", AuthPass: "p", AuthRequired: true,
			ConnectTimeout: 1 * time.Second, CommandTimeout: 3 * time.Second, SubmissionTimeout: 4 * time.Second,
			DataTimeout: 3 * time.Second, BlockTimeout: 3 * time.Second, AuthInsecure: true, Forwards: mail.XForward,
		},
		Addrs:          []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:2525"), netip.MustParseAddrPort("10.0.0.2:2525")},
		MaxConnections: 5, MaxMessages: 6, MaxAge: 7 * time.Second, IdleTimeout: 2 * time.Second,
	}
	if !reflect.DeepEqual(b.targets[0], want) {
		t.Errorf("%+v", b.targets[0])
	}
	f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), &route.Route{Hosts: []mail.NextHop{{Path: "/run/lmtp", Protocol: mail.LMTP, Helo: "other", Bind: netip.MustParseAddr("127.0.0.2")}}})
	if got := b.targets[1].Options; got.Network != "unix" || got.Addr != "/run/lmtp" || got.Helo != "other" || got.Bind.IsValid() || len(b.targets[1].Addrs) > 0 || got.AuthRequired {
		t.Errorf("%+v", got)
	}
}

func TestTLSPolicy(t *testing.T) {
	const none, may, encrypt, verify = smtpclient.TLSNone, smtpclient.TLSMay, smtpclient.TLSEncrypt, smtpclient.TLSVerify
	for _, tc := range []struct {
		enable, require, verify, message bool
		auth, insecure, public           bool
		no, force                        string
		want                             smtpclient.TLSPolicy
	}{
		{want: none},
		{enable: true, want: may},
		{require: true, want: encrypt},
		{enable: true, require: true, want: encrypt},
		{enable: true, verify: true, want: verify},
		{message: true, want: verify},
		{enable: true, no: "TWO", want: none},
		{enable: true, no: "10.0.0.1", want: none},
		{enable: true, no: "10.0.0.0/24", want: none},
		{enable: true, no: "10.0.1.0/24", want: may},
		{enable: true, no: "other", want: may},
		{require: true, no: "two", want: encrypt},
		{force: "two", want: verify},
		{enable: true, no: "two", force: "10.0.0.0/8", want: verify},
		{enable: true, auth: true, want: may}, // a private address
		{enable: true, auth: true, public: true, want: encrypt},
		{enable: true, public: true, want: may},
		{enable: true, auth: true, insecure: true, public: true, want: may},
	} {
		b := &backend{answer: func(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
			return replies(env, "250 ok", nil), nil
		}}
		o := options(b)
		for _, x := range []struct {
			s string
			l *[]string
		}{{tc.no, &o.engine.Conf.TLS.NoTLSHosts}, {tc.force, &o.engine.Conf.TLS.ForceTLSHosts}} {
			if x.s != "" {
				*x.l = []string{x.s}
			}
		}
		r := routeTo("two")
		if tc.public {
			r = routeTo("198.51.100.1")
		}
		if tc.auth {
			r.AuthType, r.AuthUser, r.AuthPass, r.AuthInsecure = "plain", "u", "p", tc.insecure
		}
		r.EnableTLS, r.RequireTLS, r.TLSVerify = tc.enable, tc.require, tc.verify
		tx := message("a@b.c")
		tx.RequireTLS = tc.message
		forwarder(o).Forward(t.Context(), hook.ConnectionView{}, tx.View(), r)
		if got := b.targets[0].Options.TLS; got != tc.want {
			t.Errorf("%+v: %v", tc, got)
		}
	}
}

func TestLog(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	b := &backend{answer: func(_ context.Context, addr string, env *mail.Envelope) (smtpclient.Result, error) {
		if addr == "10.0.0.1:25" {
			return smtpclient.Result{}, errRefused
		}
		res := replies(env, "250 2.0.0 taken", map[string]string{"bad@b.c": "550 5.1.1 no", "slow@b.c": "451 4.2.1 later"})
		res.TLS, res.Verified, res.Authenticated, res.Reused = "TLSv1.3", true, true, true
		return res, nil
	}}
	o := options(b)
	o.Mail = maillog.New(zap.New(core))
	r := routeTo("10.0.0.1", "10.0.0.2")
	r.AuthPass, r.TLSVerify = "hidden", true
	forwarder(o).Forward(t.Context(), hook.ConnectionView{}, message("ok@b.c", "slow@b.c", "bad@b.c").View(), r)
	if n := logs.FilterMessage("forwarded").FilterField(zap.Strings("to", []string{"ok@b.c"})).FilterField(zap.String("ip", "10.0.0.2")).FilterField(zap.Bool("reused", true)).FilterField(zap.String("policy", "verify")).FilterField(zap.String("verified", "pkix")).Len(); n != 1 {
		t.Errorf("forwarded: %v", logs.All())
	}
	for to, response := range map[string]string{"bad@b.c": "550 5.1.1 no", "slow@b.c": "451 4.2.1 later"} { // each with its own reply
		if n := logs.FilterMessage("forward failed").FilterField(zap.Strings("to", []string{to})).FilterField(zap.String("response", response)).Len(); n != 1 {
			t.Errorf("failed: %v", logs.All())
		}
	}
	if n := logs.FilterMessage("no dsn").Len(); n != 1 {
		t.Errorf("no dsn: %v", logs.All())
	}
	logs.TakeAll()
	b.answer = func(context.Context, string, *mail.Envelope) (smtpclient.Result, error) {
		return smtpclient.Result{}, errRefused
	}
	v := forwarder(o).Forward(t.Context(), hook.ConnectionView{}, message("ok@b.c").View(), r)
	if n := logs.FilterMessage("forward failed").FilterField(zap.String("policy", "verify")).FilterField(zap.String("verified", "")).Len(); n != 1 {
		t.Errorf("failed: %v", logs.All())
	}
	if strings.Contains(v.Reply.String(), "secret") || v.Reply.Cause == nil {
		t.Errorf("the client is told %s", v.Reply)
	}
}

// TestHostThatRefused: the Reporter learns which server a refusal is from, and
// that of our own refusals it is none.
func TestHostThatRefused(t *testing.T) {
	local := reply.New(553, "5.6.7", "needs SMTPUTF8").Because(errors.New("secret"))
	for _, perRecipient := range []bool{false, true} {
		calls := 0
		b := &backend{answer: func(_ context.Context, addr string, env *mail.Envelope) (smtpclient.Result, error) {
			calls++
			if addr == "10.0.0.1:25" || perRecipient && calls == 3 && addr == "10.0.0.2:25" {
				return smtpclient.Result{}, errRefused
			}
			res := replies(env, "250 2.0.0 taken", map[string]string{"bad@b.c": "550 5.1.1 no"})
			for i, r := range env.Recipients {
				if r.Address.Local == "utf8" {
					res.Replies[i] = local
				}
			}
			return res, nil
		}}
		var desk office
		o := options(b)
		o.Reporter, o.Requeuer = &desk, &desk
		r := routeTo("10.0.0.1", "10.0.0.2", "10.0.0.3")
		r.OneMessagePerRcpt = perRecipient
		v := forwarder(o).Forward(t.Context(), hook.ConnectionView{}, message("ok@b.c", "bad@b.c", "utf8@b.c").View(), r)
		want := []string{"10.0.0.2", ""}
		if perRecipient { // ok by the second, bad by the third
			want[0] = "10.0.0.3"
		}
		if v.Code != hook.OK || !slices.Equal(desk.hosts, want) || strings.Contains(v.Reply.Text, "secret") {
			t.Errorf("one each %v: %v, hosts %q (%q)", perRecipient, v.Reply, desk.hosts, b.sent)
		}
	}
}

// TestConfirm: who asked for it is told of success, unless the backend does it.
func TestConfirm(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*hook.Transaction, *route.Route, *smtpclient.Result)
		err    error
		want   []string
	}{
		{"relayed", nil, nil, []string{"relayed ok@b.c 10.0.0.9"}},
		{"delivered", func(_ *hook.Transaction, r *route.Route, _ *smtpclient.Result) { r.Hosts[0].Protocol = mail.LMTP }, nil, []string{"delivered ok@b.c 10.0.0.9"}},
		{"by the backend", func(_ *hook.Transaction, _ *route.Route, res *smtpclient.Result) { res.DSN = true }, nil, nil},
		{"null reverse-path", func(t *hook.Transaction, _ *route.Route, _ *smtpclient.Result) { t.From = mail.Address{} }, nil, nil},
		{"not asked for", func(t *hook.Transaction, _ *route.Route, _ *smtpclient.Result) {
			t.Recipients[0].Notify = mail.NotifyFailure
		}, nil, nil},
		{"not possible", nil, errors.New("disk full"), []string{"relayed ok@b.c 10.0.0.9"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tx, r := message("ok@b.c", "quiet@b.c", "busy@b.c"), routeTo("10.0.0.9")
			tx.Recipients[0].Notify = mail.NotifySuccess | mail.NotifyFailure
			tx.Recipients[2].Notify = mail.NotifySuccess // taken by the queue, which tells by itself
			b := &backend{answer: func(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
				res := replies(env, "250 2.0.0 taken", map[string]string{"busy@b.c": "450 4.2.1 later"})
				if tc.change != nil {
					tc.change(tx, r, &res)
				}
				return res, nil
			}}
			if tc.change != nil {
				tc.change(tx, r, &smtpclient.Result{})
			}
			desk, queue := office{err: tc.err}, office{}
			o := options(b)
			o.Reporter, o.Requeuer = &desk, &queue
			v := forwarder(o).Forward(t.Context(), hook.ConnectionView{}, tx.View(), r)
			if v.Code != hook.OK || !slices.Equal(desk.confirmed, tc.want) {
				t.Errorf("%v %v, confirmed %q, want %q", v.Code, v.Reply, desk.confirmed, tc.want)
			}
		})
	}
}

// signature is a Seal; it counts what it is asked to sign.
type signature struct {
	n   int
	err error
}

func (s *signature) Seal(context.Context, hook.Outgoing) ([]byte, error) {
	s.n++
	return []byte("Signature: x\r\n"), s.err
}

// What a client sends that may relay or has authenticated is signed, relayed or queued,
// once; what strangers send never is.
func TestSeal(t *testing.T) {
	const plain, signed = "A: b\r\n\r\nc\r\n", "Signature: x\r\nA: b\r\n\r\nc\r\n"
	for _, tc := range []struct {
		relaying bool
		user     string
		want     string
	}{{false, "", plain}, {true, "", signed}, {false, "ann", signed}} {
		seal, desk := &signature{}, &office{}
		b := &backend{answer: func(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
			return replies(env, "250 2.0.0 ok", nil), nil
		}}
		o := options(b)
		o.Seal, o.Requeuer = seal, desk
		f := forwarder(o)
		c, tx := &hook.Connection{AuthUser: tc.user}, message("a@b.c")
		tx.Relaying = tc.relaying
		if v := f.Forward(t.Context(), c.View(), tx.View(), routeTo("two")); v.Code != hook.OK || b.text != tc.want {
			t.Errorf("%+v: %v, %q", tc, v, b.text)
		}
		if v := f.Queue(t.Context(), c.View(), tx.View()); v.Code != hook.OK || desk.text != tc.want {
			t.Errorf("%+v: %v, %q", tc, v, desk.text)
		}

		// One that no backend takes is queued as it was signed for them.
		r := routeTo("two")
		r.OnFailure = route.FailToQueue
		b.answer = func(context.Context, string, *mail.Envelope) (smtpclient.Result, error) {
			return smtpclient.Result{}, errRefused
		}
		desk.text = ""
		if v := f.Forward(t.Context(), c.View(), tx.View(), r); v.Code != hook.OK || desk.text != tc.want {
			t.Errorf("%+v: %v, %q", tc, v, desk.text)
		}
		if want := 3; tc.want == signed && seal.n != want || tc.want == plain && seal.n != 0 {
			t.Errorf("%+v: %d signatures", tc, seal.n)
		}

		// Without a signature that is due nothing leaves.
		if tc.want == plain {
			continue
		}
		seal.err = reply.New(451, "4.7.0", "no key")
		b.sent, desk.requeued = nil, nil
		for _, v := range []hook.Verdict{f.Forward(t.Context(), c.View(), tx.View(), r), f.Queue(t.Context(), c.View(), tx.View())} {
			if v.Code != hook.DenySoft || v.Reply.String() != "451 4.7.0 no key" || len(b.sent)+len(desk.requeued) > 0 {
				t.Errorf("%v, sent %q, queued %q", v, b.sent, desk.requeued)
			}
		}
	}
}

// textOf is a content as text.
func textOf(c mail.Content) string {
	r, err := c.Open()
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	b, _ := io.ReadAll(r)
	return string(b)
}
