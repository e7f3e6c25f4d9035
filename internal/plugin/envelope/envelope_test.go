package envelope

import (
	"io"
	"testing"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
)

func TestRecord(t *testing.T) {
	for _, tc := range []struct{ from, head, want string }{
		{"s@x.org", "A: b\r\n\r\n", "A: b\r\nX-Envelope-From: s@x.org\r\nX-Envelope-To: one@x.com\r\nX-Envelope-To: two@x.com\r\n\r\nbody"},
		{"", "A: b\r\nx-envelope-to: forged@x.com\r\nX-ENVELOPE-FROM: forged@x.com\r\nC: d\r\n\r\n", "A: b\r\nC: d\r\nX-Envelope-From: <>\r\nX-Envelope-To: one@x.com\r\nX-Envelope-To: two@x.com\r\n\r\nbody"},
	} {
		c, tx := plugintest.Session(t, tc.from, "one@x.com", "two@x.com")
		raw := []byte(tc.head + "body")
		header, size, _ := mail.ParseHeader(raw)
		tx.Header, tx.HeaderSize, tx.Content = header, int64(size), mail.Memory{raw}
		if v := plugintest.Chain(t, New, nil, plugin.Services{}).Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()}); v.Code != hook.Cont {
			t.Errorf("verdict %+v", v)
		}
		r, err := tx.Final().Open()
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(r); string(got) != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}
