package message

import "testing"

func TestDecodeWords(t *testing.T) {
	for value, want := range map[string]string{
		"plain": "plain", "=?utf-8?q?J=C3=B6?= <a@b.c>": "Jö <a@b.c>", "=?utf-8?b?UGF5?= =?utf-8?b?UGFs?=": "PayPal", "=?x-none?q?abc?=": "abc", "=?utf-8?q": "=?utf-8?q",
	} {
		if got := DecodeWords(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}
