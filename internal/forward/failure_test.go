package forward

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/route"
	"tarishi/internal/sending"
	"tarishi/internal/smtpclient"
)

// on_failure=queue: what no backend took is queued, unless it may have been
// taken, or was refused for good.
func TestOnFailure(t *testing.T) {
	uncertain := &smtpclient.Failure{Stage: smtpclient.StageDot, Err: errors.New("lost"), Uncertain: true}
	except := map[string]string{"bad@b.c": "550 5.1.1 no such user", "busy@b.c": "450 4.2.0 mailbox busy"}
	const unreached = "DENYSOFT 451 4.4.1 No backend can be reached, please try again later"
	for _, tc := range []struct {
		name     string
		failure  error
		to       []string
		change   func(*route.Route, *settings, *office)
		want     string
		requeued []string
		reported int
	}{
		{name: "unreachable", failure: errRefused, to: []string{"a@b.c", "d@b.c"}, want: "OK 250 2.0.0 Message Queued", requeued: []string{"a@b.c", "d@b.c"}},
		{name: "deferred", to: []string{"busy@b.c"}, want: "OK 250 2.0.0 Message Queued", requeued: []string{"busy@b.c"}},
		{name: "refused", to: []string{"bad@b.c"}, want: "DENY 550 5.1.1 no such user"},
		{name: "refused and deferred", to: []string{"bad@b.c", "busy@b.c"}, want: "OK 250 2.0.0 Message Queued; refused: <bad@b.c> 550 5.1.1 no such user", requeued: []string{"busy@b.c"}, reported: 1},
		{name: "taken and deferred", to: []string{"ok@b.c", "busy@b.c"}, want: "OK 250 2.0.0 taken", requeued: []string{"busy@b.c"}},
		{name: "uncertain", failure: uncertain, to: []string{"a@b.c"}, want: "DENYSOFT 451 4.4.2 Connection to the backend lost, please try again later"},
		{name: "reply", failure: errRefused, to: []string{"a@b.c"}, change: func(r *route.Route, _ *settings, _ *office) { r.OnFailure = "reply" }, want: unreached},
		{name: "no queue", failure: errRefused, to: []string{"a@b.c"}, change: func(_ *route.Route, o *settings, _ *office) { o.Requeuer = nil }, want: unreached},
		{name: "full queue", failure: errRefused, to: []string{"a@b.c"}, change: func(_ *route.Route, _ *settings, d *office) { d.err = errors.New("full") }, want: unreached, requeued: []string{"a@b.c"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := &backend{answer: func(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
				if tc.failure != nil {
					return smtpclient.Result{}, tc.failure
				}
				return replies(env, "250 2.0.0 taken", except), nil
			}}
			var desk office
			o := options(b)
			o.Reporter, o.Requeuer = &desk, &desk
			r := routeTo("10.0.0.9")
			r.OnFailure = route.FailToQueue
			if tc.change != nil {
				tc.change(r, &o, &desk)
			}
			v := forwarder(o).Forward(t.Context(), hook.ConnectionView{}, message(tc.to...).View(), r)
			if got := v.Code.String() + " " + v.Reply.String(); got != tc.want {
				t.Errorf("%s, want\n%s", got, tc.want)
			}
			if !slices.Equal(desk.requeued, tc.requeued) || len(desk.reported) != tc.reported {
				t.Errorf("requeued %q, reported %q", desk.requeued, desk.reported)
			}
			if len(tc.requeued) > 0 && desk.notes.String("queue.wants") != "smtp_forward" {
				t.Errorf("notes %v", desk.notes)
			}
			if len(desk.why) != len(tc.requeued) || slices.ContainsFunc(desk.why, func(r *reply.Reply) bool { return r == nil || !r.Temporary() }) {
				t.Errorf("deferred because of %v", desk.why)
			}
		})
	}
}

// TestSurplus: recipients that are only too many for one transaction are due at
// once, also where the server says so with a 552 (RFC 5321 section 4.5.3.1.10).
// Without any that was taken it is a refusal like others.
func TestSurplus(t *testing.T) {
	for said, want := range map[string]string{
		"452 4.5.3 too many":      "OK 250 2.0.0 taken [more@b.c] []",
		"552 5.5.3 too many":      "OK 250 2.0.0 taken [more@b.c] []",
		"552 too many recipients": "OK 250 2.0.0 taken [more@b.c] []",
		"550 5.5.3 too many":      "OK 250 2.0.0 taken [more@b.c] []",
		"452 4.2.2 mailbox full":  "OK 250 2.0.0 taken [more@b.c] [452 4.2.2 mailbox full]",
		"552 5.2.2 mailbox full":  "OK 250 2.0.0 taken; refused: <more@b.c> 552 5.2.2 mailbox full [] []",
	} {
		var desk office
		o := options(&backend{answer: func(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
			return replies(env, "250 2.0.0 taken", map[string]string{"more@b.c": said}), nil
		}})
		o.Reporter, o.Requeuer = &desk, &desk
		f := forwarder(o)
		v := f.Forward(t.Context(), hook.ConnectionView{}, message("ok@b.c", "more@b.c").View(), routeTo("10.0.0.9"))
		why := slices.DeleteFunc(desk.why, func(r *reply.Reply) bool { return r == nil })
		if got := fmt.Sprint(v.Code, " ", v.Reply, " ", desk.requeued, " ", why); got != want {
			t.Errorf("%s: %s, want %s", said, got, want)
		}
		r := routeTo("10.0.0.9")
		r.OnFailure = route.FailToQueue
		desk = office{}
		v = f.Forward(t.Context(), hook.ConnectionView{}, message("more@b.c").View(), r)
		switch {
		case said[0] == '5' && v.Code == hook.Deny && len(desk.requeued) == 0:
		case said[0] == '4' && v.Code == hook.OK && len(desk.why) == 1 && desk.why[0] != nil:
		default:
			t.Errorf("%s, alone: %v, deferred because of %v", said, v, desk.why)
		}
	}
}

// A client that has gone keeps its message: it has no 250.
func TestOnFailureClientGone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := &backend{answer: func(context.Context, string, *mail.Envelope) (smtpclient.Result, error) {
		cancel()
		return smtpclient.Result{}, errRefused
	}}
	var desk office
	o := options(b)
	o.Requeuer = &desk
	r := routeTo("10.0.0.9")
	r.OnFailure = route.FailToQueue
	if v := forwarder(o).Forward(ctx, hook.ConnectionView{}, message("a@b.c").View(), r); v.Code != hook.DenySoft || len(desk.requeued) > 0 {
		t.Errorf("%v, requeued %q", v.Reply, desk.requeued)
	}
}

func TestReplyCodes(t *testing.T) {
	for _, tc := range []struct{ backend, flat, pass string }{
		{"554 5.7.1 spam", "DENY 550 5.7.1 spam", "DENY 554 5.7.1 spam"},
		{"552 5.3.4 too big", "DENY 550 5.3.4 too big", "DENY 552 5.3.4 too big"},
		{"553 no", "DENY 550 5.0.0 no", "DENY 553 5.0.0 no"},
		{"452 4.3.1 full", "DENYSOFT 450 4.3.1 full", "DENYSOFT 452 4.3.1 full"},
		{"451 4.7.1 greylisted", "DENYSOFT 450 4.7.1 greylisted", "DENYSOFT 451 4.7.1 greylisted"},
		{"421 4.3.2 closing", "DENYSOFT 450 4.3.2 closing", "DENYSOFT 450 4.3.2 closing"},
		{"250 2.6.0 <x@y> taken", "OK 250 2.6.0 <x@y> taken", "OK 250 2.6.0 <x@y> taken"},
	} {
		b := &backend{answer: func(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
			return replies(env, tc.backend, nil), nil
		}}
		for codes, want := range map[string]string{"flatten": tc.flat, "pass": tc.pass} {
			r := routeTo("10.0.0.9")
			r.PassCodes = codes == route.PassCodes
			v := forwarder(options(b)).Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)
			if got := v.Code.String() + " " + v.Reply.String(); got != want {
				t.Errorf("%s %s: %s", tc.backend, codes, got)
			}
		}
	}
}

// auth_type=forward: each client's own credentials, and never without.
func TestForwardedCredentials(t *testing.T) {
	b := &backend{answer: func(_ context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
		return replies(env, "450 4.2.0 busy", map[string]string{"ok@b.c": "250 taken"}), nil
	}}
	var desk office
	o := options(b)
	o.Requeuer, o.Reporter = &desk, &desk
	f := forwarder(o)
	r := routeTo("10.0.0.9")
	r.AuthType, r.OnFailure = route.AuthForward, route.FailToQueue
	for _, c := range []*hook.Connection{nil, {}} {
		v := f.Forward(t.Context(), c.View(), message("a@b.c").View(), r)
		if len(b.targets) > 0 || v.Code != hook.DenySoft || v.Reply.String() != "451 4.7.0 Authentication required to relay this message" {
			t.Errorf("%v", v.Reply)
		}
	}
	for i, user := range []string{"joe", "ann"} {
		f.Forward(t.Context(), (&hook.Connection{AuthUser: user, AuthPass: "secret of " + user, AuthMech: "LOGIN"}).View(), message("ok@b.c").View(), r)
		got := b.targets[i].Options
		if got.AuthType != "" || got.AuthUser != user || got.AuthPass != "secret of "+user || !got.AuthRequired {
			t.Errorf("%q %q %q", got.AuthType, got.AuthUser, got.AuthPass)
		}
	}
	// The queue could not log in as the client: nothing is put there.
	joe := &hook.Connection{AuthUser: "joe", AuthPass: "secret"}
	if v := f.Forward(t.Context(), joe.View(), message("a@b.c").View(), r); v.Code != hook.DenySoft || len(desk.requeued) > 0 {
		t.Errorf("%v, requeued %q", v.Reply, desk.requeued)
	}
	v := f.Forward(t.Context(), joe.View(), message("ok@b.c", "a@b.c").View(), r)
	if v.Code != hook.OK || len(desk.requeued) > 0 || len(desk.reported) != 1 || !strings.Contains(v.Reply.Text, "refused: <a@b.c>") {
		t.Errorf("%v, requeued %q, reported %q", v.Reply, desk.requeued, desk.reported)
	}
}

func TestQueueing(t *testing.T) {
	var desk office
	o := options(nil)
	if v := forwarder(o).Queue(t.Context(), hook.ConnectionView{}, message("a@b.c").View()); v.Code != hook.DenySoft {
		t.Errorf("without a queue: %v", v)
	}
	o.Requeuer = &desk
	gone, cancel := context.WithCancel(t.Context())
	cancel() // a client that leaves now has lost only the reply
	if v := forwarder(o).Queue(gone, hook.ConnectionView{}, message("a@b.c", "d@e.f").View()); v.Code != hook.OK || !slices.Equal(desk.requeued, []string{"a@b.c", "d@e.f"}) {
		t.Errorf("%v %q", v, desk.requeued)
	}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{errors.New("disk"), "451 4.3.0"},
		{reply.New(452, "4.3.1", "Full"), "452 4.3.1 Full"},
		{reply.New(552, "5.3.4", "Never"), "451 4.3.0"},
	} {
		desk.err = tc.err
		if v := forwarder(o).Queue(t.Context(), hook.ConnectionView{}, message("a@b.c").View()); v.Code != hook.DenySoft || !strings.HasPrefix(v.Reply.String(), tc.want) {
			t.Errorf("%v: %v", tc.err, v.Reply)
		}
	}
}

// A message waits for a slot as long as its client has patience, and then is
// deferred, or queued; waiting does not make the host dead.
func TestBusy(t *testing.T) {
	for onFailure, want := range map[string]string{
		"reply":           "451 4.4.5 All connections to the backend are busy, please try again later",
		route.FailToQueue: "250 2.0.0 Message Queued",
	} {
		synctest.Test(t, func(t *testing.T) {
			b := &backend{answer: func(ctx context.Context, _ string, _ *mail.Envelope) (smtpclient.Result, error) {
				<-ctx.Done()
				return smtpclient.Result{}, &smtpclient.Failure{Stage: smtpclient.StageConnect, Reply: reply.New(451, "4.4.5", "No connection slot"), Err: ctx.Err()}
			}}
			var desk office
			o := options(b)
			o.Requeuer = &desk
			f := forwarder(o)
			r := routeTo("10.0.0.1", "10.0.0.2")
			r.OnFailure = onFailure
			began := time.Now()
			v := f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)
			if v.Reply.String() != want || time.Since(began) < 9*time.Minute || time.Since(began) >= 10*time.Minute {
				t.Errorf("%v after %v", v.Reply, time.Since(began))
			}
			asked := b.hosts()
			b.answer = takeAll
			f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)
			if next := b.hosts(); asked != "1" || next != "1" {
				t.Errorf("asked %s, next %s", asked, next)
			}
		})
	}
}

// TestSlowAnswer: what a backend has whole it may answer as late as the route's
// submission_timeout allows, however long that is and however long it took to get
// there; all that comes before has the patience of a client.
func TestSlowAnswer(t *testing.T) {
	for name, tc := range map[string]struct {
		before, after time.Duration
		want          string
	}{
		"late":             {time.Minute, 12 * time.Minute, "250 2.0.0 ok"},
		"later":            {9 * time.Minute, 2 * time.Hour, "250 2.0.0 ok"},
		"never ended":      {time.Hour, 0, "451 4.4.1"},
		"ended in the end": {10*time.Minute - 15*time.Second - 1, time.Minute, "250 2.0.0 ok"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := &backend{answer: func(ctx context.Context, _ string, env *mail.Envelope) (smtpclient.Result, error) {
				f := &smtpclient.Failure{Stage: smtpclient.StageMail}
				for _, wait := range []time.Duration{tc.before, tc.after} {
					select {
					case <-time.After(wait):
					case <-ctx.Done():
						f.Err = ctx.Err()
						return smtpclient.Result{}, f
					}
					if f.Stage == smtpclient.StageMail && !sending.MayEnd(ctx) {
						t.Errorf("%s: not to be ended after %v", name, tc.before)
					}
					f.Stage = smtpclient.StageDot
				}
				return replies(env, "250 ok", nil), nil
			}}
			began := time.Now()
			v := forwarder(options(b)).Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), routeTo("10.0.0.1"))
			if !strings.HasPrefix(v.Reply.String(), tc.want) {
				t.Errorf("%s: %v", name, v.Reply)
			}
			if took := time.Since(began); tc.want[0] != '2' && took != patience || tc.want[0] == '2' && took != tc.before+tc.after {
				t.Errorf("%s: after %v", name, took)
			}
			// The client that goes away ends it all.
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(min(tc.before, patience)+tc.after/2, cancel)
			if v := forwarder(options(b)).Forward(ctx, hook.ConnectionView{}, message("a@b.c").View(), routeTo("10.0.0.1")); v.Reply.Code != 451 {
				t.Errorf("%s: %v without a client", name, v.Reply)
			}
		})
	}
}
