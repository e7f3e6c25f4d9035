package srs

import (
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"tarishi/internal/mail"
)

// newYear is the time of postsrsd's own tests, from which the first address here is.
var newYear = time.Unix(1577836860, 0)

func options() Options {
	return Options{
		Secrets: []string{"tops3cr3t"}, Domain: "example.com", Separator: '=', Hash: sha1.New, Length: 4, Shortest: 4, MaxAge: 21,
		Now: func() time.Time { return newYear },
	}
}

func address(t testing.TB, text string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSign(t *testing.T) {
	s := New(options())
	for from, want := range map[string]string{
		"test@otherdomain.com":                                   "SRS0=vmyz=2W=otherdomain.com=test@example.com",
		"test@OtherDomain.com":                                   "SRS0=vmyz=2W=otherdomain.com=test@example.com",
		"a=b@otherdomain.com":                                    "=2W=otherdomain.com=a=b@example.com",
		`"a b"@otherdomain.com`:                                  `=2W=otherdomain.com=a b"@example.com`,
		"a@[192.0.2.1]":                                          `=2W=[192.0.2.1]=a"@example.com`,
		"SRS0@otherdomain.com":                                   "=2W=otherdomain.com=SRS0@example.com",
		"SRS0+xxxx=YY=first.org=a@forwarder.net":                 "=forwarder.net=+xxxx=YY=first.org=a@example.com",
		"srs1-zzzz=forwarder.net=+xxxx=YY=first.org=a@other.net": "=forwarder.net=+xxxx=YY=first.org=a@example.com",
	} {
		a := address(t, from)
		signed, err := s.Sign(a)
		if err != nil || !strings.HasSuffix(signed.String(), want) || !IsSRS(signed) {
			t.Errorf("%s: %s, %v", from, signed, err)
			continue
		}

		// It comes back, also from servers that change the case.
		back, err := s.Reverse(mail.Address{Local: strings.ToLower(signed.Local), Domain: "EXAMPLE.com"})
		origin := strings.ToLower(from)
		if strings.HasPrefix(origin, "srs1") {
			origin = "srs0+xxxx=yy=first.org=a@forwarder.net"
		}
		if strings.Contains(origin, "=yy=") { // a day long ago
			if !errors.Is(err, ErrExpired) {
				t.Errorf("%s: %s, %v", signed, back, err)
			}
		} else if err != nil || strings.ToLower(back.String()) != origin {
			t.Errorf("%s: %s, %v, want %s", signed, back, err, origin)
		}
	}
	for from, want := range map[string]error{"SRS1=x@a.com": ErrMalformed, "SRS1=x=y@a.com": ErrMalformed, strings.Repeat("a", 230) + "@a.com": ErrLength} {
		if signed, err := s.Sign(address(t, from)); !errors.Is(err, want) {
			t.Errorf("%s: %s, %v", from, signed, err)
		}
	}
}

func TestReverse(t *testing.T) {
	for _, test := range []struct {
		address, want string
		err           error
	}{
		{"SRS0=vmyz=2W=otherdomain.com=test", "test@otherdomain.com", nil},
		{"SRS0+vmyz=2W=otherdomain.com=test", "test@otherdomain.com", nil},
		{"srs0-VMYZ=2w=OTHERDOMAIN.com=test", "test@OTHERDOMAIN.com", nil},
		{"SRS0=vmyzXX=2W=otherdomain.com=test", "test@otherdomain.com", nil}, // a longer hash is cut
		{"SRS0=vmyy=2W=otherdomain.com=test", "", ErrHash},
		{"SRS0=vmy=2W=otherdomain.com=test", "", ErrHash},
		{"SRS0==2W=otherdomain.com=test", "", ErrHash},
		{"SRS0=vmyz=2X=otherdomain.com=test", "", ErrHash},
		{"SRS0=vmyz=2W=otherdomain.com=other", "", ErrHash},
		{"SRS0=vmyz=2W=otherdomain.org=test", "", ErrHash},
		{"SRS0=vmyz=2=otherdomain.com=test", "", ErrMalformed},
		{"SRS0=vmyz=21=otherdomain.com=test", "", ErrMalformed},
		{"SRS0=vmyz=2W=otherdomain.com=", "", ErrMalformed},
		{"SRS0=vmyz=2W==test", "", ErrMalformed},
		{"SRS0=vmyz=2W", "", ErrMalformed},
		{"SRS0=", "", ErrMalformed},
		{"SRS1=vmyz=2W=otherdomain.com=test", "", ErrHash},
		{"SRS1=vmyz", "", ErrMalformed},
		{"SRS0", "", ErrMalformed},
		{"SRS2=vmyz=2W=otherdomain.com=test", "", ErrMalformed},
		{"test", "", ErrMalformed},
	} {
		back, err := New(options()).Reverse(mail.Address{Local: test.address, Domain: "example.com"})
		if back.String() != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: %s, %v", test.address, back, err)
		}
	}
}

// TestAge: an address is good for some days, also where the days come round, and a day
// before its time.
func TestAge(t *testing.T) {
	for _, start := range []time.Time{newYear, time.Unix(0, 0).Add(time.Duration(days*20-1) * 24 * time.Hour)} {
		for age, good := range map[int]bool{-2: false, -1: true, 0: true, 1: true, 21: true, 22: false, 500: false, 1000: false, days: true} {
			now := start
			o := options()
			o.Now = func() time.Time { return now }
			s := New(o)
			inner, err := s.Sign(address(t, "a@b.com"))
			if err != nil {
				t.Fatal(err)
			}
			outer, err := s.Sign(mail.Address{Local: inner.Local, Domain: "first.org"})
			if err != nil {
				t.Fatal(err)
			}
			now = now.Add(time.Duration(age) * 24 * time.Hour)
			for _, a := range []mail.Address{inner, outer} {
				if back, err := s.Reverse(a); good != (err == nil) || !good && !errors.Is(err, ErrExpired) {
					t.Errorf("%s after %d days: %s, %v", a, age, back, err)
				}
			}
		}
	}
}

// TestSecrets: the first secret signs, all of them verify, and a hash may become longer.
func TestSecrets(t *testing.T) {
	old, err := New(options()).Sign(address(t, "a@b.com"))
	if err != nil {
		t.Fatal(err)
	}
	o := options()
	o.Secrets, o.Length = []string{"new", "tops3cr3t"}, 8
	if back, err := New(o).Reverse(old); err != nil || back.String() != "a@b.com" {
		t.Errorf("%s, %v", back, err)
	}
	fresh, err := New(o).Sign(address(t, "a@b.com"))
	if err != nil || len(fresh.Local) != len(old.Local)+4 {
		t.Errorf("%s, %v", fresh, err)
	}
	if _, err := New(options()).Reverse(fresh); !errors.Is(err, ErrHash) {
		t.Errorf("%v", err)
	}
	o.Shortest = 5
	if _, err := New(o).Reverse(old); !errors.Is(err, ErrHash) {
		t.Errorf("%v", err)
	}
	o.Hash, o.Length = sha256.New, MostHash
	s := New(o)
	long, err := s.Sign(address(t, "a@b.com"))
	if back, again := s.Reverse(long); err != nil || again != nil || back.String() != "a@b.com" {
		t.Errorf("%s, %s, %v, %v", long, back, err, again)
	}
}

// FuzzReverse: what comes back from an address was signed, and what is signed comes back.
func FuzzReverse(f *testing.F) {
	for _, local := range []string{"SRS0=vmyz=2W=otherdomain.com=test", "SRS1=aaaa=b.com==vmyz=2W=c.com=d", "SRS0=", "srs1-", "a", "SRS0+a=b", `a"b`, "SRS1=x=y=z"} {
		f.Add(local, "b.com")
	}
	f.Fuzz(func(t *testing.T, local, domain string) {
		s := New(options())
		a := mail.Address{Local: local, Domain: domain}
		if a.ReadsBack() != nil || a.IsNull() || domain == "" {
			return
		}
		if back, err := s.Reverse(a); err == nil {
			if again, err := s.Sign(back); err != nil || !IsSRS(again) {
				t.Errorf("%s comes from %s: %s, %v", back, a, again, err)
			}
		}
		signed, err := s.Sign(a)
		if err != nil {
			return
		}
		back, err := s.Reverse(signed)
		if err != nil && !errors.Is(err, ErrExpired) || err == nil && !IsSRS(a) && (back.Local != a.Local || back.Host() != a.Host()) {
			t.Errorf("%s: %s: %s, %v", a, signed, back, err)
		}
	})
}
