package journal

import (
	"encoding/binary"
	"hash/crc32"
)

func sum(b []byte) uint32  { return crc32.Checksum(b, castagnoli) }
func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
