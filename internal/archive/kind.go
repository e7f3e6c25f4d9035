package archive

import (
	"bytes"
	"strconv"
	"strings"
)

// kind is a format.
type kind uint8

// The formats.
const (
	isUnknown kind = iota
	isZip
	isTar
	isRar
	isSevenZip
	isGzip
	isBzip2
	isXZ
	isZstd
)

// signatures are what files of a format begin with.
var signatures = []struct {
	text string
	kind kind
}{
	{"PK\x03\x04", isZip},
	{"PK\x05\x06", isZip}, // empty
	{"PK\x07\x08", isZip}, // once in several volumes
	{"Rar!\x1a\x07", isRar},
	{sevenZipSignature, isSevenZip},
	{"\x1f\x8b", isGzip},
	{"BZh", isBzip2},
	{xzSignature, isXZ},
	{"\x28\xb5\x2f\xfd", isZstd},
}

// kindOf returns the format of a file that begins with head.
func kindOf(head []byte) kind {
	for _, s := range signatures {
		if bytes.HasPrefix(head, []byte(s.text)) {
			return s.kind
		}
	}
	if isTarHeader(head) {
		return isTar
	}
	return isUnknown
}

// isTarHeader reports whether a block is that of an entry of a tar archive. The old
// format has no signature, but each has a checksum (POSIX.1-1988 section 10.1.1).
func isTarHeader(block []byte) bool {
	if len(block) < headSize {
		return false
	}
	want, err := strconv.ParseUint(strings.Trim(string(block[148:156]), " \x00"), 8, 32)
	if err != nil {
		return false
	}

	// Old programs added signed bytes.
	var unsigned, signed int64
	for i, c := range block[:headSize] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return unsigned == int64(want) || signed == int64(want)
}
