// Package folder reads the pairs of keys and certificates in a folder of PEM files. A key
// belongs to the certificate with its public key, whatever their files are called.
package folder

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxFiles = 4096    // in the folder and those below it
	maxDepth = 8       // of folders in it
	maxSize  = 1 << 20 // bytes of a file
)

// Pair is a certificate with its key, and the file of the certificate.
type Pair struct {
	File string
	tls.Certificate
}

// Problem is a file that is of no use, and why.
type Problem struct{ File, Text string }

// Contents is what a folder holds.
type Contents struct {
	Pairs    []Pair // in the order of their files
	Problems []Problem
	Keys     []string // files with a private key
}

// Files returns the files in a folder and in those below it, in order. Links are followed,
// hidden files are not seen.
func Files(dir string) []string {
	var all []string
	var visit func(dir string, depth int)
	visit = func(dir string, depth int) {
		entries, _ := os.ReadDir(dir) // what cannot be read holds nothing
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			info, err := os.Stat(path)
			switch {
			case strings.HasPrefix(e.Name(), ".") || len(all) >= maxFiles:
			case err == nil && info.IsDir():
				if depth < maxDepth {
					visit(path, depth+1)
				}
			default:
				all = append(all, path)
			}
		}
	}
	visit(dir, 1)
	return all
}

// Read reads a folder. Of a file that cannot be used any more, but is still there, the pairs
// in before stay.
func Read(dir string, before []Pair) Contents {
	r := reader{}
	files := Files(dir)
	for _, file := range files {
		r.readFile(file)
	}
	r.match()

	// A renewal that has gone wrong does not cost what was there.
	for _, old := range before {
		isNew := func(p Pair) bool {
			return p.File == old.File || bytes.Equal(p.Certificate.Certificate[0], old.Certificate.Certificate[0])
		}
		if slices.Contains(files, old.File) && !slices.ContainsFunc(r.Pairs, isNew) {
			r.Pairs = append(r.Pairs, old)
		}
	}
	slices.SortStableFunc(r.Pairs, func(a, b Pair) int { return strings.Compare(a.File, b.File) })
	slices.SortStableFunc(r.Problems, func(a, b Problem) int { return strings.Compare(a.File, b.File) })
	return r.Contents
}

// reader collects what files hold.
type reader struct {
	Contents
	keys   []privateKey
	chains [][]certificate // as they stand in files
}

type privateKey struct {
	file   string
	signer crypto.Signer
	used   bool
}

type certificate struct {
	file string
	*x509.Certificate
}

func (r *reader) complain(file, text string) {
	r.Problems = append(r.Problems, Problem{file, text})
}

// readFile reads the keys and certificates of one file.
func (r *reader) readFile(file string) {
	data, err := read(file)
	if err != nil {
		r.complain(file, "cannot be read: "+err.Error())
		return
	}
	var chain []certificate
	found, seen := 0, len(r.Problems)
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "CERTIFICATE":
			found++
			one, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				r.complain(file, "holds a certificate that cannot be read: "+err.Error())
				return
			}
			chain = append(chain, certificate{file, one})
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			found++
			r.addKey(file, block)
		}
	}
	r.chains = append(r.chains, chain)

	// Other files, such as notes, may lie beside those that count.
	isMeant := slices.Contains([]string{".pem", ".crt", ".cer", ".cert", ".key"}, strings.ToLower(filepath.Ext(file)))
	if found == 0 && len(r.Problems) == seen && isMeant {
		r.complain(file, "holds neither a certificate nor a private key in PEM form")
	}
}

// read returns the bytes of a regular file.
func read(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err == nil && info.Size() > maxSize {
		err = fmt.Errorf("it is larger than %d bytes", maxSize)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(file)
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // the file is named beside it
	}
	return data, err
}

// addKey adds a private key.
func (r *reader) addKey(file string, block *pem.Block) {
	if !slices.Contains(r.Keys, file) {
		r.Keys = append(r.Keys, file)
	}
	if strings.HasPrefix(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "" {
		r.complain(file, "holds a private key that is encrypted ('openssl pkey' decrypts one)")
		return
	}
	signer, err := parseKey(block.Bytes)
	if err != nil {
		r.complain(file, "holds a private key that cannot be read: "+err.Error())
		return
	}
	r.keys = append(r.keys, privateKey{file: file, signer: signer})
}

// parseKey reads a key in any of its forms.
func parseKey(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		if rsa, err := x509.ParsePKCS1PrivateKey(der); err == nil {
			return rsa, nil
		}
		if ec, err := x509.ParseECPrivateKey(der); err == nil {
			return ec, nil
		}
		return nil, err
	}
	if signer, ok := key.(crypto.Signer); ok {
		return signer, nil
	}
	return nil, fmt.Errorf("a key of type %T cannot sign", key)
}

// match makes pairs of certificates and keys.
func (r *reader) match() {
	for _, chain := range r.chains {
		for i, leaf := range chain {
			key := r.keyOf(leaf.Certificate)
			switch {
			case key != nil:
				r.addPair(chain[i:], key)
			case i == 0 && !leaf.IsCA: // an authority alone is there for other programs
				r.complain(leaf.file, "holds a certificate without a private key for it in this folder")
			}
		}
	}
	for _, key := range r.keys {
		if !key.used {
			r.complain(key.file, "holds a private key without a certificate for it in this folder")
		}
	}
}

// keyOf returns the key of a certificate; nil: there is none.
func (r *reader) keyOf(leaf *x509.Certificate) crypto.Signer {
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return nil
	}
	var found crypto.Signer
	for i := range r.keys {
		// The same key may lie in several files.
		if public.Equal(r.keys[i].signer.Public()) {
			found, r.keys[i].used = r.keys[i].signer, true
		}
	}
	return found
}

// addPair adds a certificate with its chain, which ends where the next one with a key begins.
// Of the same certificate in several files the one with the longest chain counts.
func (r *reader) addPair(chain []certificate, key crypto.Signer) {
	pair := Pair{File: chain[0].file, Certificate: tls.Certificate{PrivateKey: key, Leaf: chain[0].Certificate}}
	for i, one := range chain {
		if i > 0 && r.keyOf(one.Certificate) != nil {
			break
		}
		pair.Certificate.Certificate = append(pair.Certificate.Certificate, one.Raw)
	}
	same := slices.IndexFunc(r.Pairs, func(p Pair) bool { return bytes.Equal(p.Certificate.Certificate[0], chain[0].Raw) })
	switch {
	case same < 0:
		r.Pairs = append(r.Pairs, pair)
	case len(r.Pairs[same].Certificate.Certificate) < len(pair.Certificate.Certificate):
		r.Pairs[same] = pair
	}
}
