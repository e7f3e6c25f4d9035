package server

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/smtptest"
)

// TestSteering: a daemon with disabled=true delivers nothing until the file says
// otherwise, and then as the sections of outbound.ini say.
func TestSteering(t *testing.T) {
	t.Parallel() // it waits
	mx, smart := smtptest.New(t), smtptest.New(t)
	names := dnstest.New(t)
	names.SetDefault("mx.test", "127.0.0.1")
	root := t.TempDir()
	ini := fmt.Sprintf("port=%d\nlocal_mx_ok=true\n[smart.test]\nhost=127.0.0.1:%d\nbind=127.0.0.3\nhelo=out.test\n[mx:mx.test]\nhelo=mx-out.test\n", mx.Port(), smart.Port())
	file := filepath.Join(root, "config", "outbound.ini")
	cfg := instanceIn(t, root, map[string]string{
		"me": "me.test\n", "plugins": "", "smtp.ini": "listen=127.0.0.1:0\n", "dns.ini": "servers[]=" + names.Addr() + "\n",
		"outbound.ini": "disabled=true\n" + ini,
	})
	stop, s := launch(t, cfg)
	defer stop()
	for _, to := range []string{"one@smart.test", "two@else.test"} {
		a, err := mail.ParseAddress(to)
		if err != nil {
			t.Fatal(err)
		}
		env := &mail.Envelope{
			ID: mail.NewID(mail.NewConnectionID(), 1), From: mail.Address{Local: "s", Domain: "from.test"},
			Recipients: []mail.Recipient{{Address: a}}, Received: time.Now(),
		}
		content := mail.Memory{[]byte("Subject: hello\r\n\r\nbody\r\n")}
		if err := s.queue.Put(env, content); err != nil {
			t.Fatal(err)
		}
		s.outbound.Enqueue(mail.NewPending(env, content.Size()))
	}
	time.Sleep(1500 * time.Millisecond) // longer than between two looks at what is ready
	if len(mx.Messages())+len(smart.Messages()) > 0 {
		t.Fatal("delivered although disabled")
	}
	if err := os.WriteFile(file, []byte("disabled=false\n"+ini), 0o600); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Minute)
	for len(mx.Messages()) == 0 || len(smart.Messages()) == 0 {
		if time.Now().After(end) {
			t.Fatalf("%d and %d messages", len(mx.Messages()), len(smart.Messages()))
		}
		time.Sleep(20 * time.Millisecond)
	}
	if x := smart.Messages()[0]; x.Helo != "out.test" || x.Remote[:9] != "127.0.0.3" || x.Accepted()[0] != "one@smart.test" {
		t.Errorf("smart host: %+v", x)
	}
	if x := mx.Messages()[0]; x.Helo != "mx-out.test" || x.Accepted()[0] != "two@else.test" {
		t.Errorf("MX: %+v", x)
	}
}
