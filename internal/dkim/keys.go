package dkim

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"tarishi/internal/mail"
)

// The names of the files in a domain's folder, which are Haraka's.
const (
	privateFile  = "private"
	selectorFile = "selector"
)

// Keys are the signing keys of an instance, by domain in its canonical form.
type Keys map[string][]Key

// LoadKeys reads the keys of a folder of domains, DOMAIN/private and DOMAIN/selector. A
// domain with several keys has each further one in a folder below, such as
// DOMAIN/ed25519/private. A folder that is not there holds no key. All that is wrong is
// reported, with the file; the keys that are good are returned too.
func LoadKeys(files fs.FS, folder string) (Keys, []error) {
	var faults []error
	keys := Keys{}
	// One bad folder must not hide the keys of the others, nor their problems.
	for _, domain := range folders(files, folder) {
		at := path.Join(folder, domain)
		name := mail.CanonicalDomain(domain)
		places := []string{at}
		for _, sub := range folders(files, at) {
			places = append(places, path.Join(at, sub))
		}

		// The folder of the domain itself may have nothing but folders.
		for i, place := range places {
			key, err := loadKey(files, place)
			switch {
			case err == nil && slices.ContainsFunc(keys[name], func(k Key) bool { return k.Selector == key.Selector }):
				faults = append(faults, fmt.Errorf("%s: %q is the selector of another key of the domain", path.Join(place, selectorFile), key.Selector))
			case err == nil:
				keys[name] = append(keys[name], key)
			case i == 0 && len(places) > 1 && isEmptyPlace(files, place):
			default:
				faults = append(faults, err)
			}
		}
	}
	return keys, faults
}

// folders returns the names of the folders in a folder.
func folders(files fs.FS, name string) []string {
	// Links count by what they lead to: keys are often kept elsewhere.
	entries, _ := fs.ReadDir(files, name)
	var found []string
	for _, e := range entries {
		info, err := fs.Stat(files, path.Join(name, e.Name())) // follows links
		if err == nil && info.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			found = append(found, e.Name())
		}
	}
	return found
}

// isEmptyPlace reports whether a folder has neither file of a key.
func isEmptyPlace(files fs.FS, place string) bool {
	_, private := fs.Stat(files, path.Join(place, privateFile))
	_, selector := fs.Stat(files, path.Join(place, selectorFile))
	return errors.Is(private, fs.ErrNotExist) && errors.Is(selector, fs.ErrNotExist)
}

// loadKey reads the two files of a key.
func loadKey(files fs.FS, place string) (Key, error) {
	// A key without a name in the DNS would sign what nobody can verify.
	text, err := readFile(files, path.Join(place, selectorFile))
	if err != nil {
		return Key{}, err
	}
	k := Key{Selector: strings.ToLower(strings.TrimSpace(string(text)))}
	if err := CheckSelector(k.Selector); err != nil {
		return Key{}, fmt.Errorf("%s: %w", path.Join(place, selectorFile), err)
	}
	secret, err := readFile(files, path.Join(place, privateFile))
	if err != nil {
		return Key{}, err
	}
	if k.Private, err = ParseKey(secret); err != nil {
		return Key{}, fmt.Errorf("%s: %w", path.Join(place, privateFile), err)
	}
	return k, nil
}

// readFile reads a regular file: a pipe would be waited for, and a device may never end.
func readFile(files fs.FS, name string) ([]byte, error) {
	if info, err := fs.Stat(files, name); err == nil && !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errIrregular}
	}
	return fs.ReadFile(files, name)
}

var errIrregular = errors.New("it is no regular file")

var errSelector = errors.New("no selector: letters, digits and hyphens, and dots between them")

// CheckSelector reports whether s can be a selector: labels of a domain name.
func CheckSelector(s string) error {
	for label := range strings.SplitSeq(s, ".") {
		odd := func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' }
		if label == "" || len(label) > 63 || strings.ContainsFunc(strings.ToLower(label), odd) {
			return fmt.Errorf("%q: %w", s, errSelector)
		}
	}
	return nil
}

// For returns the keys for mail of a domain, and the domain that they sign for: that one,
// or the next one above it that has keys and at least two labels. No keys: nothing can
// sign for it.
func (k Keys) For(domain string) (signs string, keys []Key) {
	// A top-level domain signs for nobody.
	name := mail.CanonicalDomain(domain)
	for strings.Contains(name, ".") {
		if keys := k[name]; len(keys) > 0 {
			return name, keys
		}
		_, name, _ = strings.Cut(name, ".")
	}
	return "", nil
}

var errPEM = errors.New("no private key in PEM")

// ParseKey reads a private key in PEM, in the form of PKCS #8 or PKCS #1. RSA keys have
// 1024 to 8192 bits: signatures of others are not accepted anywhere.
func ParseKey(text []byte) (crypto.Signer, error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, errPEM
		}
		// Tools write parameters and public keys into the same file.
		text = rest
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue // a public key, or parameters
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			if key, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
				return nil, errKeyKind
			}
		}
		switch key := key.(type) {
		case ed25519.PrivateKey:
			return key, nil
		case *rsa.PrivateKey:
			if n := key.N.BitLen(); n < minKeyBits || n > maxKeyBits {
				return nil, fmt.Errorf("an RSA key of %d bits: %d to %d are accepted", n, minKeyBits, maxKeyBits)
			}
			return key, nil
		}
		return nil, errKeyKind
	}
}

// newKeyBits is the size of new RSA keys: their records still fit into one datagram of
// the DNS, and larger ones are several times slower.
const newKeyBits = 2048

// NewKey makes a private key: "rsa" or "ed25519".
func NewKey(kind string) (crypto.Signer, error) {
	// Ed25519 is quicker and shorter, and not understood everywhere: RSA comes first.
	switch kind {
	case "rsa":
		return rsa.GenerateKey(rand.Reader, newKeyBits)
	case "ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("%q: %w", kind, errKeyKind)
}

// FormatKey returns a private key in PEM (PKCS #8).
func FormatKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Name returns where the record of a key is in the DNS.
func (k Key) Name(domain string) string { return k.Selector + "._domainkey." + domain }

// Record returns the text of a key's record.
func (k Key) Record() (string, error) {
	switch public := k.Private.Public().(type) {
	case ed25519.PublicKey:
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public), nil
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(public)
		return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der), err
	}
	return "", errKeyKind
}

// maxString is how long a string of a TXT record can be, in octets.
const maxString = 255

// ZoneLine returns a key's record as a line of a zone file.
func (k Key) ZoneLine(domain string) (string, error) {
	text, err := k.Record()
	if err != nil {
		return "", err
	}
	// A string of a TXT record has a limit; receivers join them without blanks.
	var parts []string
	for piece := range slices.Chunk([]byte(text), maxString) {
		parts = append(parts, `"`+string(piece)+`"`)
	}
	return k.Name(domain) + ". IN TXT ( " + strings.Join(parts, " ") + " )", nil
}

var errOtherKey = errors.New("the record has another key")

// CheckRecord looks up the records that the DNS has for the key of a domain, and Compares
// them.
func (k Key) CheckRecord(ctx context.Context, resolver Resolver, domain string) error {
	records, err := resolver.TXT(ctx, k.Name(domain))
	if err != nil {
		return err
	}
	return k.Compare(records)
}

// Compare reports whether the records that the DNS has for a key are those that verify
// its signatures. The errors say why not.
func (k Key) Compare(records []string) error {
	// The records are read as a receiver reads them, so that records it would refuse are found here.
	algorithm, err := k.algorithm()
	if err != nil {
		return err
	}
	published, err := parseKeys(records, algorithm)
	if err != nil {
		return err
	}
	own, ok := k.Private.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !own.Equal(published.key) {
		return errOtherKey
	}
	return nil
}
