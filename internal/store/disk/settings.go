package disk

import (
	"strconv"

	"tarishi/internal/ini"
)

// Settings is what connection.ini and outbound.ini say of the queue's memory and
// disk.
type Settings struct {
	SpoolAfter int64   // bytes of a message that are kept in memory, at most 16 MiB
	MinFree    MinFree // below it no mail is accepted
}

// Tables declares the keys of both files.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{
		{
			File: "connection.ini",
			Rows: []ini.Row{
				{
					Key: "spool_after", Kind: spoolAfter(&s.SpoolAfter), Default: "1048576", Was: []string{"smtp.ini::spool_after", "spool_after"},
					Doc: `A message of more than so many bytes is written to a file below queue/ while it arrives, instead of being
						held in memory. At most 16777216, which is also what -1 (Haraka: never) means.`,
				},
				{Key: "spool_dir", Note: ownSpool},
			},
		},
		{File: "smtp.ini", Rows: []ini.Row{{Key: "spool_dir", Note: ownSpool}}},
		{
			File: "outbound.ini",
			Rows: []ini.Row{{
				Key: "min_free", Kind: minFree(&s.MinFree), Default: "1% 256M", Haraka: ini.None,
				Doc: `Space that must stay free on the queue's file system: percent, bytes (K, M, G, T), or both, and then the
					smaller one counts. With less, and with less than 1 % of the inodes, MAIL is answered 452; a message whose
					SIZE does not fit likewise. Delivery goes on, and half of this is kept for reports of failures. 0: none.`,
			}},
		},
	}
}

const ownSpool = "has no effect: large messages are written below the queue folder, where they stay when they are queued"

// largestInMemory is the most that spool_after can keep in memory: memory must
// not grow with the size of a message.
const largestInMemory = 16 << 20

// spoolAfter reads Haraka's spool_after, where -1 means never.
func spoolAfter(p *int64) ini.Kind {
	return ini.Scalar("bytes, a whole number, at least -1", func(s string) error {
		var n int64
		if err := ini.AtLeast(&n, -1).Set([]string{s}); err != nil {
			return err
		}
		if *p = n; n < 0 || n > largestInMemory {
			*p = largestInMemory
		}
		return nil
	}, func() string { return strconv.FormatInt(*p, 10) })
}
