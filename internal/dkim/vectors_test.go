package dkim

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"tarishi/internal/dns"
	"tarishi/internal/mail"
)

// records is a Resolver with the TXT records of a test.
type records map[string][]string

func (r records) TXT(ctx context.Context, name string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, &dns.Error{Name: name, Type: "TXT", Kind: dns.Temporary, Cause: err}
	}
	if texts := r[name]; texts != nil {
		return texts, nil
	}
	return nil, &dns.Error{Name: name, Type: "TXT", Kind: dns.NXDomain}
}

// wire returns text as it stands on the wire, in pieces of some bytes (0: one piece).
func wire(text string, piece int) mail.Memory {
	b := []byte(strings.ReplaceAll(text, "\n", "\r\n"))
	if piece == 0 {
		return mail.Memory{b}
	}
	var m mail.Memory
	for len(b) > 0 {
		n := min(piece, len(b))
		m, b = append(m, b[:n]), b[n:]
	}
	return m
}

// The message of RFC 8463 appendix A, with its keys.
const sample8463 = `DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
`

var keys8463 = records{
	"brisbane._domainkey.football.example.com": {"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="},
	"test._domainkey.football.example.com": {"v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR" +
		"iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"},
}

func TestRFC8463(t *testing.T) {
	for _, piece := range []int{0, 1, 7, 100} {
		v := &Verifier{Resolver: keys8463, Now: func() time.Time { return time.Unix(1528637909, 0) }}
		got, err := v.Verify(t.Context(), wire(sample8463, piece))
		if err != nil || len(got) != 2 {
			t.Fatalf("pieces of %d: %+v, %v", piece, got, err)
		}
		for i, want := range []string{"brisbane", "test"} {
			if got[i].Status != Pass || got[i].Selector != want || got[i].Domain != "football.example.com" || got[i].Identity != "@football.example.com" {
				t.Errorf("pieces of %d: %+v, want a pass of %s", piece, got[i], want)
			}
		}
	}
}

// The signed message of RFC 6376 appendix A.2, with its key of appendix C.
const sample6376 = `DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
`

var keys6376 = records{"brisbane._domainkey.example.com": {"v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQ" +
	"KBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYt" +
	"IxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v" +
	"/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhi" +
	"tdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"}}

func TestRFC6376(t *testing.T) {
	for _, piece := range []int{0, 1, 3, 64} {
		got, err := (&Verifier{Resolver: keys6376}).Verify(t.Context(), wire(sample6376, piece))
		if err != nil || len(got) != 1 || got[0].Status != Pass || got[0].Identity != "joe@football.example.com" {
			t.Errorf("pieces of %d: %+v, %v", piece, got, err)
		}
	}
}

// Messages that mailauth 4 (Node.js) has signed, with both kinds of keys and all four
// combinations of canonicalizations.
func TestMailauth(t *testing.T) {
	text, err := os.ReadFile("testdata/mailauth.json")
	if err != nil {
		t.Fatal(err)
	}
	var sample struct {
		Records  records
		Messages map[string][]byte
	}
	if err := json.Unmarshal(text, &sample); err != nil {
		t.Fatal(err)
	}
	for name, message := range sample.Messages {
		got, err := (&Verifier{Resolver: sample.Records}).Verify(t.Context(), mail.Memory{message})
		if err != nil || len(got) != 2 || got[0].Status != Pass || got[1].Status != Pass {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if len(sample.Messages) != 24 {
		t.Errorf("%d messages", len(sample.Messages))
	}
}
