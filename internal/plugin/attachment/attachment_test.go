package attachment

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
)

// read reads attachment.ini and the lists.
func read(text string, lists map[string]string) (*Settings, ini.Problems) {
	folder := fstest.MapFS{file: {Data: []byte(text)}}
	for name, content := range lists {
		folder[name] = &fstest.MapFile{Data: []byte(content)}
	}
	s := &Settings{}
	r := ini.NewReader(folder, "")
	r.Load(s.Tables())
	return s, r.Problems()
}

// part is a part of a message: the value of Content-Type, that of Content-Disposition, and
// the content.
type part struct{ kind, disposition, content string }

// compose makes a message of parts.
func compose(parts ...part) string {
	var b strings.Builder
	b.WriteString("Subject: x\nContent-Type: multipart/mixed; boundary=\"zz\"\n\n--zz\n\nHello\n")
	for _, p := range parts {
		b.WriteString("--zz\nContent-Transfer-Encoding: base64\n")
		if p.kind != "" {
			b.WriteString("Content-Type: " + p.kind + "\n")
		}
		if p.disposition != "" {
			b.WriteString("Content-Disposition: " + p.disposition + "\n")
		}
		b.WriteString("\n" + base64.StdEncoding.EncodeToString([]byte(p.content)) + "\n")
	}
	b.WriteString("--zz--\n")
	return b.String()
}

// attached is an attachment of a name.
func attached(name, content string) part {
	return part{"application/octet-stream", `attachment; filename="` + name + `"`, content}
}

// zipped is a zip archive of names, each with a content behind a colon.
func zipped(t *testing.T, files ...string) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, one := range files {
		name, content, _ := strings.Cut(one, ":")
		w, err := z.Create(name)
		if err == nil {
			_, err = io.WriteString(w, content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// encrypted is a zip archive whose directory says so.
func encrypted(archive string) string {
	at := strings.Index(archive, "PK\x01\x02") + 8
	return archive[:at] + string(archive[at]|1) + archive[at+1:]
}

// check runs the plugin over a message.
func check(t *testing.T, s *Settings, relaying bool, text string) (hook.Verdict, *hook.Transaction) {
	t.Helper()
	chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{})
	c, tx := plugintest.Session(t, "a@b.com", "b@here.com")
	tx.Relaying = relaying
	plugintest.Receive(t, tx, text)
	return chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()}), tx
}

// The cases are those of haraka-plugin-attachment 1.2.1, with the texts of its replies.
func TestReplies(t *testing.T) {
	const zips = "disallowed_extensions=exe dll;scr\n"
	deep := zipped(t, "in.zip:"+zipped(t, "in.zip:"+zipped(t, "a.txt:")))
	lists := map[string]string{memberList: "secret/\n", fileList: "\\.virus\n(?:a|b)\\.one$\n", typeList: "x-bad\n"}
	for _, test := range []struct {
		name, ini string
		lists     map[string]string
		parts     []part
		code      hook.Code // 0: it passes
		text      string
	}{
		{"nothing attached", "", nil, nil, 0, ""},
		{"harmless", "", nil, []part{attached("a.pdf", "x")}, 0, ""},
		{"extension", "", nil, []part{attached("a.pdf", "x"), attached("Setup.EXE", "x")}, hook.Deny, "Message contains disallowed file extension (EXE)"},
		{"zip by default", "", nil, []part{attached("a.zip", zipped(t, "a.txt:x"))}, hook.Deny, "Message contains disallowed file extension (zip)"},
		{"extension in an archive", zips, nil, []part{attached("a.zip", zipped(t, "a.txt:x", "b/c.Scr:y"))}, hook.Deny, "Message contains disallowed file extension (Scr)"},
		{"extension two archives deep", zips, nil, []part{attached("a.zip", zipped(t, "in.ZIP:"+zipped(t, "x.dll:")))}, hook.Deny, "Message contains disallowed file extension (dll)"},
		{"dots at the end", zips, nil, []part{attached("a.exe. ", "x")}, hook.Deny, "Message contains disallowed file extension (exe)"},
		{"the end only", zips, nil, []part{attached("a.exe.txt", "x"), attached("exe", "x"), attached("a.myexe", "x")}, 0, ""},
		{"no extensions", "disallowed_extensions=\n", map[string]string{fileList: "x\n"}, []part{attached("a.eee", "")}, 0, ""},
		{"type", "", nil, []part{{"application/x-MS-Executable; x=y", "", "x"}}, hook.Deny, "Message contains unacceptable content type (application/x-MS-Executable)"},
		{"type of a text", "", nil, []part{{"text/partial", "", "x"}}, hook.Deny, "Message contains unacceptable content type (text/partial)"},
		{"type of one's own", "", lists, []part{{"text/X-BAD", "", "x"}}, hook.Deny, "Message contains unacceptable content type (text/X-BAD)"},
		{"the usual types do not count then", "", lists, []part{{"text/partial", "", "x"}}, 0, ""},
		{"name", zips, nil, []part{attached("a.VBS", "x")}, hook.Deny, "Message contains unacceptable attachment (a.VBS)"},
		{"name of one's own", zips, lists, []part{attached("a.VIRUS.txt", "x")}, hook.Deny, "Message contains unacceptable attachment (a.VIRUS.txt)"},
		{"expressions in their order", zips, lists, []part{attached("a.one", "x"), attached("b.virus", "y")}, hook.Deny, "Message contains unacceptable attachment (b.virus)"},
		{"name in an archive", zips, lists, []part{attached("a.zip", zipped(t, "Secret/x.txt:"))}, hook.Deny, "Message contains unacceptable attachment (a.zip/Secret/x.txt)"},
		{"encoded name", zips, nil, []part{{"application/x", `attachment; filename="=?utf-8?b?YS5leGU=?="`, "x"}}, hook.Deny, "Message contains disallowed file extension (exe)"},
		{"name of RFC 2231", zips, nil, []part{{"application/x", `attachment; filename*=UTF-8''a%2Eexe`, "x"}}, hook.Deny, "Message contains disallowed file extension (exe)"},
		{"second name", zips, nil, []part{{`application/x; name="b.exe"`, `attachment; filename="b.txt"`, "x"}}, hook.Deny, "Message contains disallowed file extension (exe)"},
		{"text with a name", zips, nil, []part{{"text/plain", `inline; filename="b.exe"`, "x"}}, hook.Deny, "Message contains disallowed file extension (exe)"},
		{"deep", zips + "[archive]\nmax_depth=3\n", nil, []part{attached("a.zip", deep)}, 0, ""},
		{"too deep", zips + "archive_max_depth=2\n", nil, []part{attached("a.zip", deep)}, hook.Deny, "Message contains nested archives exceeding the maximum depth"},
		{"too many entries", zips + "[archive]\nmax_total_entries=2\n", nil, []part{attached("a.zip", zipped(t, "1:", "2:")), attached("b.zip", zipped(t, "3:"))}, hook.Deny, "Message contains an archive whose entry count exceeds the limit"},
		{"too many bytes", zips + "[archive]\nmax_total_bytes=100\n", nil, []part{attached("a.zip", zipped(t, "in.zip:"+strings.Repeat("x", 101)))}, hook.Deny, "Message contains an archive whose decompressed size exceeds the limit"},
		{"encrypted", zips, nil, []part{attached("a.zip", encrypted(zipped(t, "a.txt:x")))}, hook.Deny, "Message contains encrypted archive"},
		{"encrypted, allowed", zips + "[archive]\nallow_encrypted=true\n", nil, []part{attached("a.zip", encrypted(zipped(t, "a.txt:x")))}, 0, ""},
		{"encrypted, allowed by the old name", zips + "allow_encrypted_archives=true\n", nil, []part{attached("a.zip", encrypted(zipped(t, "a.exe:x")))}, hook.Deny, "Message contains disallowed file extension (exe)"},
		{"broken", zips, nil, []part{attached("a.zip", zipped(t, "a.txt:x")[:50])}, hook.DenySoft, "Error unpacking archive"},
		{"broken and too deep", zips + "[archive]\nmax_depth=2\n", nil, []part{attached("b.zip", zipped(t, "a.txt:x")[:50]), attached("a.zip", deep)}, hook.Deny, "Message contains nested archives exceeding the maximum depth"},
		{"no archive", zips, nil, []part{attached("a.zip", "none")}, 0, ""},
		{"not looked into", zips + "[archive]\nextensions=tar\n", nil, []part{attached("a.zip", zipped(t, "a.exe:x"))}, 0, ""},
		{"too many parts", "", nil, slices.Repeat([]part{{}}, 1000), hook.Deny, "Transaction failed due to too many MIME parts"},
		{"too much header", "", nil, []part{{kind: "text/plain; x=" + strings.Repeat("\"\n ", 1<<19)}}, hook.Deny, "Message is too complex to be checked"},
	} {
		s, problems := read(test.ini, test.lists)
		if len(problems.Errors()) > 0 {
			t.Fatal(problems)
		}
		v, tx := check(t, s, false, compose(test.parts...))
		code := v.Code
		if code == hook.Cont {
			code = 0
		}
		if code != test.code || v.Text != test.text {
			t.Errorf("%s: %+v, want %q; %+v", test.name, v, test.text, tx.Results.Of(Name))
		}
		if fails := tx.Results.Of(Name).Fail; code != 0 && !slices.Equal(fails, []string{test.text}) {
			t.Errorf("%s: %q", test.name, fails)
		}
	}
}

// Our own clients may send what cannot be unpacked, but nothing that is beyond a limit.
func TestRelaying(t *testing.T) {
	s, _ := read("disallowed_extensions=exe\n[archive]\nmax_depth=1\n", nil)
	if v, tx := check(t, s, true, compose(attached("a.zip", zipped(t, "a.txt:x")[:50]))); v.Code != hook.Cont || len(tx.Results.Of(Name).Err) != 1 {
		t.Errorf("%+v", v)
	}
	if v, _ := check(t, s, true, compose(attached("a.zip", zipped(t, "a.zip:x")))); v.Text != textDepth {
		t.Errorf("%+v", v)
	}
}

// TestNotes: code of a site reads what was found.
func TestNotes(t *testing.T) {
	s, _ := read("disallowed_extensions=\n[archive]\nmax_depth=1\n", nil)
	_, tx := check(t, s, false, compose(
		attached("A.Zip", zipped(t, "a.txt:x", "in.zip:y")), part{"image/PNG; name=b.png", "inline", "abc"}, part{"", "attachment", ""},
	))
	for name, want := range map[string][]string{
		"attachment_ctypes": {"application/octet-stream", "image/PNG", "multipart/mixed", "application/octet-stream", "image/PNG"},
		"attachment_files":  {"A.Zip", "b.png"}, "attachment_archive_files": {"A.Zip/a.txt", "A.Zip/in.zip"},
	} {
		if got, _ := tx.Notes.Get(name).([]string); !slices.Equal(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	const none, abc = "d41d8cd98f00b204e9800998ecf8427e", "900150983cd24fb0d6963f7d28e17f72"
	list, _ := tx.Notes.Get("attachments").([]any)
	results, _ := tx.Results.Of(Name).Value("attach").([]any)
	if len(list) != 3 || len(results) != 3 {
		t.Fatalf("%v, %v", list, results)
	}
	first, second, third := list[0].(map[string]any), list[1].(map[string]any), list[2].(map[string]any)
	if first["extension"] != "zip" || first["filename"] != "A.Zip" || second["md5"] != abc || second["ctype"] != "image/png" || third["md5"] != none ||
		third["ctype"] != "unknown/unknown" || third["filename"] != "" {
		t.Errorf("%v", list)
	}
	if one := results[1].(map[string]any); one["file"] != "b.png" || one["ctype"] != "image/png" || one["md5"] != abc || one["bytes"] != int64(3) {
		t.Errorf("%v", results)
	}
	if got, _ := tx.Notes.Get("attachment_result").([]any); len(got) != 2 || got[0] != 902 || got[1] != textDepth || tx.Notes.Get("attachment_count") != 0 {
		t.Errorf("%v", tx.Notes)
	}
}

// TestTurns: a message that has to wait for others for too long is put off.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := read("disallowed_extensions=\n", nil)
		var c *checker
		chain := plugintest.Chain(t, func(env plugin.Env) (plugin.Plugin, error) {
			p, err := New(env)
			c, _ = p.(*checker)
			return p, err
		}, plugintest.Own(s), plugin.Services{})
		for range cap(c.turns) {
			c.turns <- struct{}{}
		}
		conn, tx := plugintest.Session(t, "a@b.com", "b@here.com")
		plugintest.Receive(t, tx, compose(attached("a.zip", zipped(t, "a.txt:x"))))
		if v := chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: conn.View(), Tx: tx.View()}); v.Code != hook.DenySoft || v.Text != textUnpacking {
			t.Errorf("%+v", v)
		}
	})
}

func TestProblems(t *testing.T) {
	_, problems := read("[archive]\nmax_depth=0\n", map[string]string{fileList: "ok\n(?!x).*\n", memberList: "(\n"})
	if len(problems.Errors()) != 3 {
		t.Errorf("%v", problems)
	}
}
