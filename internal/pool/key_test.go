package pool

import (
	"context"
	"crypto/tls"
	"net/netip"
	"reflect"
	"testing"

	"tarishi/internal/smtpclient"
)

// TestKeyHasEveryOption: a field that is added to the Options makes a difference,
// or is put on the list of those that make none.
func TestKeyHasEveryOption(t *testing.T) {
	same := map[string]bool{
		"ConnectTimeout": true, "GreetingTimeout": true, "CommandTimeout": true, "DataTimeout": true, "BlockTimeout": true,
	}
	p := New(Options{})
	base := Target{}
	baseKey := p.key(&base)
	options := reflect.TypeFor[smtpclient.Options]()
	for i := range options.NumField() {
		changed := base
		f := reflect.ValueOf(&changed.Options).Elem().Field(i)
		switch f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Uint8:
			f.SetUint(1)
		case reflect.Int64:
			f.SetInt(1)
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
		case reflect.Func:
			f.Set(reflect.ValueOf(func(tls.ConnectionState) error { return nil }))
		case reflect.Interface:
			f.Set(reflect.ValueOf(tokens{}))
		case reflect.Struct:
			f.Set(reflect.ValueOf(netip.IPv4Unspecified()))
		default:
			t.Fatalf("no value for %s", options.Field(i).Name)
		}
		name := options.Field(i).Name
		if differs := p.key(&changed) != baseKey; differs == same[name] {
			t.Errorf("%s: differs %v", name, differs)
		}
	}
	if n := reflect.TypeFor[Target]().NumField(); n != 6 {
		t.Errorf("Target has %d fields: those that make a difference belong in the key", n)
	}
}

type tokens struct{}

func (tokens) Token(context.Context) (string, error)         { return "t", nil }
func (tokens) Renew(context.Context, string) (string, error) { return "u", nil }

func TestKeyOfAddresses(t *testing.T) {
	p := New(Options{})
	at := func(host string, addrs ...string) key {
		to := Target{Options: smtpclient.Options{Host: host}}
		for _, a := range addrs {
			to.Addrs = append(to.Addrs, netip.MustParseAddrPort(a))
		}
		return p.key(&to)
	}
	a := at("mx.test", "192.0.2.1:25", "192.0.2.2:25")
	if b := at("MX.test.", "192.0.2.2:25"); a != b {
		t.Error("the addresses make a difference")
	}
	for _, b := range []key{
		at("mx.test", "192.0.2.1:26"), at("mx2.test", "192.0.2.1:25"), at("", "192.0.2.1:25"), at("mx.test"),
	} {
		if a == b {
			t.Errorf("%+v", b)
		}
	}
	if at("", "192.0.2.1:25") == at("", "192.0.2.2:25") {
		t.Error("nameless hosts are the same")
	}
	// Two checks are the same when they say so, and never without a name.
	verify := func(tls.ConnectionState) error { return nil }
	with := func(key string) key {
		return p.key(&Target{Options: smtpclient.Options{Verify: verify, VerifyKey: key}})
	}
	for _, tt := range []struct {
		one, other string
		same       bool
	}{{"a", "a", true}, {"a", "b", false}, {"a", "", false}, {"", "", false}} {
		if same := with(tt.one) == with(tt.other); same != tt.same {
			t.Errorf("VerifyKey %q and %q: %v", tt.one, tt.other, same)
		}
	}
}
