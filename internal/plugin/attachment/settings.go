package attachment

import (
	"regexp"
	"strings"
	"time"

	"tarishi/internal/ini"
	"tarishi/internal/pattern"
)

// Settings is attachment.ini and the lists of expressions.
type Settings struct {
	Timeout        time.Duration // for the archives of a message
	Disallowed     string        // extensions, as they are written
	Extensions     string        // of archives, as they are written
	MaxDepth       int
	MaxBytes       int64
	MaxEntries     int
	AllowEncrypted bool

	Files, Types, Members list
}

const (
	file        = "attachment.ini"
	fileList    = "attachment.filename.regex"
	typeList    = "attachment.ctype.regex"
	memberList  = "attachment.archive.filename.regex"
	dangerous   = "ade,adp,bat,chm,cmd,com,cpl,exe,hta,ins,isp,jar,jse,lib,lnk,mde,msc,msp,mst,pif,scr,sct,shb,sys,vb,vbe,vbs,vxd,wsc,wsf,wsh,dll,zip"
	mostEntries = 100_000
)

// Tables declares the keys of attachment.ini, and the lists.
func (s *Settings) Tables() []*ini.Table {
	rows := []ini.Row{
		{
			Key: "timeout", Kind: ini.Duration(&s.Timeout, time.Second), Default: "30",
			Doc: "How long the archives of a message may be looked into, all together.",
		},
		{
			Key: "disallowed_extensions", Kind: ini.Text(&s.Disallowed), Default: dangerous,
			Doc: "Messages with a file of such a name are refused, in archives too. Beware: zip is among them unless you say otherwise.",
		},
	}
	rows = append(rows, ini.Within("archive",
		ini.Row{
			Key: "extensions", Kind: ini.Text(&s.Extensions), Default: "zip,tar,tgz,taz,z,gz,rar,7z",
			Was: []string{file + ":main:archive_extensions", file + ":main:archive_extns"},
			Doc: "Files of such names are looked into, in archives too. Known formats: zip, tar, rar, 7z, gzip, bzip2, xz, zstd.",
		},
		ini.Row{
			Key: "max_depth", Kind: ini.Int(&s.MaxDepth, 1, 100), Default: "10", Was: []string{file + ":main:archive_max_depth"},
			Doc: "How many archives may stand in each other; 1 allows none in another.",
		},
		ini.Row{
			Key: "max_total_bytes", Kind: ini.Bytes(&s.MaxBytes, 1), Default: "104857600",
			Doc: "How many bytes are unpacked of the archives of a message, all together.",
		},
		ini.Row{
			Key: "max_total_entries", Kind: ini.Int(&s.MaxEntries, 1, mostEntries), Default: "1000",
			Doc: "How many files and folders the archives of a message may have, all together.",
		},
		ini.Row{
			Key: "allow_encrypted", Kind: ini.Bool(&s.AllowEncrypted), Default: "false", Was: []string{file + ":main:allow_encrypted_archives"},
			Doc: "Whether archives may hold what needs a password. Names in them that can be read are checked in any case.",
		},
	)...)
	return []*ini.Table{
		{
			File: file, Since: "0.3.0", Doc: "What the plugin attachment refuses, and how far it looks into archives.", Rows: rows,
			Sections: map[string]string{"archive": "Archives. What goes beyond a limit is refused."},
			Drop: map[string]string{ // in the file that comes with the original
				"filename_regex":         "has no effect, in Haraka neither: the expressions stand in " + fileList,
				"ctype_regex":            "has no effect, in Haraka neither: the expressions stand in " + typeList,
				"archive_filename_regex": "has no effect, in Haraka neither: the expressions stand in " + memberList,
			},
		},
		s.Files.table(fileList, "Names of attachments that are refused.", `\.(?:`+strings.ReplaceAll(strings.TrimSuffix(dangerous, ",zip"), ",", "|")+`)$`),
		s.Types.table(typeList, "Content types that are refused, of attachments and of all other parts.", "executable", "partial"),
		s.Members.table(memberList, "Paths in archives that are refused, with the name of the archive in front."),
	}
}

// list is a list of regular expressions.
type list struct {
	patterns    []*regexp.Regexp
	expressions []string // as they are written
}

// table declares the file of a list, which holds usual if it is empty or missing.
func (l *list) table(file, what string, usual ...string) *ini.Table {
	add := func(_ *ini.Reader, text string, _ int) error {
		expression, err := pattern.PartFold(text)
		if err == nil {
			l.patterns, l.expressions = append(l.patterns, expression), append(l.expressions, text)
		}
		return err
	}
	doc := what + " Entries are regular expressions, which match anywhere and in any case. Look-around and back references cannot be expressed."
	if len(usual) > 0 {
		doc += " An empty list stands for the usual one: " + strings.Join(usual, ", ") + "."
	}
	return &ini.Table{
		File: file, Since: "0.3.0", Doc: doc, Line: add,
		Lines: func() []string { return l.expressions },
		Begin: func(*ini.Reader) { l.patterns, l.expressions = nil, nil },
		Finish: func(r *ini.Reader) {
			// As in Haraka, a site adds to nothing: its own list replaces the usual one.
			if len(l.expressions) > 0 {
				return
			}
			for _, text := range usual {
				_ = add(r, text, 0)
			}
		},
	}
}

// match returns the first of some texts that an expression matches; the expressions are
// tried one after another.
func (l *list) match(texts []string) (text, expression string, matched bool) {
	for i, p := range l.patterns {
		for _, text := range texts {
			if p.MatchString(text) {
				return text, l.expressions[i], true
			}
		}
	}
	return "", "", false
}

// extensions is a set of the last parts of names, in lower case.
type extensions map[string]bool

// parseExtensions reads a list with blanks, commas or semicolons between.
func parseExtensions(text string) extensions {
	set := extensions{}
	for _, word := range strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return strings.ContainsRune(",; \t", r) }) {
		set[strings.TrimPrefix(word, ".")] = true
	}
	return set
}

// extension returns what stands behind the last dot of a name, as it is written. Dots and
// blanks at the end do not count: systems drop them.
func extension(name string) string {
	name = strings.TrimRight(name, ". ")
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		return name[dot+1:]
	}
	return ""
}

// has reports whether the extension of a name is in the set.
func (e extensions) has(name string) bool { return e[strings.ToLower(extension(name))] }
