package verdict

import (
	"testing"

	"tarishi/internal/hook"
	"tarishi/internal/reply"
)

// TestRefusal: the handler's words count as far as they refuse; the point's stand for the
// rest.
func TestRefusal(t *testing.T) {
	hard, soft := NewDefault(550, "5.7.1", "no"), NewDefault(450, "4.7.1", "not now")
	for _, tc := range []struct {
		verdict hook.Verdict
		want    string
	}{
		{hook.Answer(hook.Deny, ""), "550 5.7.1 no"},
		{hook.Answer(hook.DenySoftDisconnect, ""), "450 4.7.1 not now"},
		{hook.Answer(hook.DenySoft, "busy"), "450 4.7.1 busy"},
		{hook.Answer(hook.Deny, "5.1.1 no such user"), "550 5.1.1 no such user"},
		{hook.Answer(hook.Deny, "4.1.1 of another class"), "550 5.7.1 of another class"},
		{hook.Verdict{Code: hook.Deny, Reply: reply.New(554, "5.7.0", "")}, "554 5.7.0 no"},
		{hook.Verdict{Code: hook.Deny, Reply: reply.New(250, "2.0.0", "welcome")}, "550 5.7.1 welcome"},
	} {
		if got := Refusal(tc.verdict, hard, soft).String(); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.verdict, got, tc.want)
		}
	}
}

// TestAssent: only a positive reply takes the place of the point's.
func TestAssent(t *testing.T) {
	for _, tc := range []struct {
		verdict hook.Verdict
		want    string
	}{
		{hook.Proceed(), "250 2.1.5 OK"},
		{hook.Answer(hook.OK, "fine"), "250 2.1.5 fine"},
		{hook.Verdict{Code: hook.OK, Reply: reply.New(251, "2.1.0", "")}, "251 2.1.0 OK"},
		{hook.Verdict{Code: hook.OK, Reply: reply.New(550, "5.0.0", "no")}, "250 2.1.5 OK"},
	} {
		if got := Assent(tc.verdict, 250, "2.1.5", "OK").String(); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.verdict, got, tc.want)
		}
	}
}
