package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "tarishi/"

// floor is what a package may import by its kind, besides the standard library.
type floor string

const (
	nouns      floor = "A nouns and leaves"
	mechanisms floor = "B mechanisms"
	roles      floor = "C roles"
	plugins    floor = "D plugins"
	instance   floor = "D the instance"
	assembly   floor = "E assembly"
	commands   floor = "commands"
	tests      floor = "tests" // servers, clients and tests; no part of the daemon
)

// below says which floors a floor may import as a whole.
var below = map[floor][]floor{
	nouns:      {},
	mechanisms: {nouns},
	roles:      {nouns, mechanisms},
	plugins:    {nouns},
	instance:   {nouns, mechanisms, roles}, // and no plugin: who knows them hands in what they declare
	assembly:   {nouns, mechanisms, roles, plugins, instance},
	commands:   {nouns, instance},
	tests:      {nouns, mechanisms, plugins},
}

// entry is one package. A name that ends in "/*" stands for every package
// directly below that has no entry of its own.
type entry struct {
	floor floor
	also  []string // imports within the module beyond those of the floor
}

var packages = map[string]entry{
	"config": {nouns, nil}, // the shipped files, embedded

	"internal/grant":        {nouns, nil},
	"internal/mail":         {nouns, []string{"internal/grant"}},
	"internal/reply":        {nouns, nil},
	"internal/message":      {nouns, []string{"internal/mail"}},
	"internal/lease":        {nouns, []string{"internal/mail"}},
	"internal/ini/grammar":  {nouns, nil},
	"internal/ini/edit":     {nouns, nil},
	"internal/ini/hostport": {nouns, []string{"internal/ini/grammar"}},
	"internal/ini":          {nouns, []string{"internal/ini/edit", "internal/ini/hostport", "internal/ini/grammar"}},
	"internal/ini/manual":   {nouns, []string{"internal/ini"}},
	"internal/vfs":          {nouns, nil},
	"internal/vfs/crashfs":  {nouns, []string{"internal/vfs"}},
	"internal/maillog":      {nouns, []string{"internal/ini", "internal/ini/grammar", "internal/mail"}},
	"internal/heap":         {nouns, nil},
	"internal/generation":   {nouns, nil},
	"internal/hangup":       {nouns, nil}, // imports next to nothing: see there
	"internal/terminal":     {nouns, nil},
	"internal/tlsconf":      {nouns, []string{"internal/ini", "internal/ini/grammar", "internal/ini/hostport", "internal/mail", "internal/tlsconf/*"}},
	"internal/tlsconf/*":    {nouns, nil}, // its inner parts
	"internal/localaddr":    {nouns, nil},
	"internal/proxyproto":   {nouns, nil},
	"internal/privilege":    {nouns, nil},
	"internal/sending":      {nouns, nil},
	"internal/hostname":     {nouns, []string{"internal/mail"}},
	"internal/pattern":      {nouns, nil},
	"internal/archive":      {nouns, []string{"internal/mail"}},
	"internal/srs":          {nouns, []string{"internal/mail"}},
	"internal/result":       {nouns, []string{"internal/ini", "internal/ini/grammar", "internal/lease", "internal/mail"}},

	"internal/tlsconf/ciphers": {nouns, []string{"internal/ini", "internal/ini/grammar"}},

	"internal/mail/addresslist": {nouns, []string{"internal/mail"}},

	"internal/store":                {nouns, []string{"internal/mail"}},
	"internal/store/journal":        {mechanisms, []string{"internal/store/journal/window"}},
	"internal/store/journal/window": {mechanisms, nil},
	"internal/store/spool":          {mechanisms, nil},
	"internal/store/disk/*":         {mechanisms, []string{"internal/store/disk/*", "internal/store/journal", "internal/store/spool"}}, // its inner parts
	"internal/schedule":             {mechanisms, []string{"internal/schedule/*"}},
	"internal/schedule/*":           {mechanisms, nil},
	"internal/schedule/dispatch":    {mechanisms, []string{"internal/schedule/*"}},
	"internal/oauth":                {mechanisms, nil},
	"internal/route":                {mechanisms, []string{"internal/oauth"}},
	"internal/dns":                  {mechanisms, nil},
	"internal/destination":          {mechanisms, []string{"internal/oauth", "internal/route"}},
	"internal/smtpclient":           {mechanisms, []string{"internal/smtpclient/*"}},
	"internal/smtpclient/*":         {mechanisms, nil},
	"internal/pool":                 {mechanisms, []string{"internal/smtpclient"}},
	"internal/qfile":                {mechanisms, nil},
	"internal/dsn":                  {mechanisms, []string{"internal/dsn/entity", "internal/dsn/sevenbit"}},
	"internal/dsn/entity":           {mechanisms, []string{"internal/dsn/sevenbit"}},
	"internal/dsn/sevenbit":         {mechanisms, nil},
	"internal/dane":                 {mechanisms, nil},
	"internal/mtasts":               {mechanisms, []string{"internal/dns"}},
	"internal/hook":                 {mechanisms, nil},
	"internal/kv":                   {mechanisms, nil},
	"internal/nexthop":              {mechanisms, []string{"internal/dns", "internal/mtasts"}},
	"internal/tlspolicy":            {mechanisms, []string{"internal/dane", "internal/dns", "internal/mtasts", "internal/nexthop", "internal/smtpclient"}},
	"internal/backend":              {mechanisms, []string{"internal/route"}},
	"internal/delivery":             {mechanisms, []string{"internal/backend", "internal/delivery/meaning", "internal/destination", "internal/dns", "internal/nexthop", "internal/pool", "internal/route", "internal/smtpclient", "internal/tlspolicy"}},
	"internal/delivery/meaning":     {mechanisms, []string{"internal/smtpclient"}},
	"internal/guesses":              {mechanisms, nil},
	"internal/ledger":               {mechanisms, nil},
	"internal/redis":                {mechanisms, []string{"internal/ledger"}},
	"internal/dkim":                 {mechanisms, []string{"internal/dkim/canon", "internal/dns"}},
	"internal/dkim/canon":           {mechanisms, nil},
	"internal/arc":                  {mechanisms, []string{"internal/dkim", "internal/dkim/canon"}},
	"internal/spf":                  {mechanisms, []string{"internal/dns"}},
	"internal/authres":              {mechanisms, nil},
	"internal/dmarc":                {mechanisms, []string{"internal/dns"}},
	"internal/domaincheck":          {mechanisms, []string{"internal/dane", "internal/dkim", "internal/dmarc", "internal/dns", "internal/mtasts", "internal/smtpclient", "internal/spf"}},

	"internal/smtpd":        {mechanisms, []string{"internal/smtpd/*"}},
	"internal/smtpd/*":      {mechanisms, nil}, // its inner parts
	"internal/smtpd/budget": {mechanisms, []string{"internal/smtpd/pace"}},
	"internal/receive":      {mechanisms, []string{"internal/smtpd", "internal/smtpd/syntax"}},

	"internal/listener":  {roles, nil},
	"internal/session":   {roles, []string{"internal/session/*"}},
	"internal/session/*": {mechanisms, []string{"internal/guesses", "internal/hook", "internal/dns", "internal/smtpd", "internal/smtpd/syntax"}}, // its inner parts

	"internal/session/policy":      {mechanisms, []string{"internal/smtpd", "internal/smtpd/scan", "internal/smtpd/syntax"}},
	"internal/session/recipient":   {mechanisms, []string{"internal/hook", "internal/receive", "internal/session/transaction", "internal/session/verdict"}},
	"internal/session/transaction": {mechanisms, []string{"internal/hook", "internal/receive", "internal/smtpd", "internal/smtpd/*"}},
	"internal/intake":              {roles, nil},
	"internal/forward":             {roles, nil},
	"internal/store/disk":          {roles, []string{"internal/store/disk/*"}},
	"internal/migrate":             {roles, []string{"internal/qfile"}},
	"internal/submit":              {roles, nil},
	"internal/outbound":            {roles, []string{"internal/submit", "internal/outbound/*"}}, // one attempt is its inner part
	"internal/outbound/*":          {roles, []string{"internal/outbound/*"}},

	"internal/plugin":             {plugins, []string{"internal/hook", "internal/dns", "internal/redis", "internal/route"}},
	"internal/plugin/all":         {plugins, []string{"internal/plugin", "internal/plugin/*"}},
	"internal/plugin/*":           {plugins, []string{"internal/hook", "internal/dns", "internal/plugin"}},
	"internal/plugin/dkim":        {plugins, []string{"internal/arc", "internal/authres", "internal/dkim", "internal/dkim/canon", "internal/hook", "internal/plugin"}},
	"internal/plugin/spf":         {plugins, []string{"internal/authres", "internal/spf", "internal/hook", "internal/plugin"}},
	"internal/plugin/dmarc":       {plugins, []string{"internal/authres", "internal/dmarc", "internal/hook", "internal/plugin"}},
	"internal/plugin/bounce":      {plugins, []string{"internal/hook", "internal/plugin", "internal/spf"}},
	"internal/plugin/srs":         {plugins, []string{"internal/hook", "internal/plugin", "internal/route"}},
	"internal/plugin/limit":       {plugins, []string{"internal/hook", "internal/ledger", "internal/plugin", "internal/redis"}},
	"internal/plugin/fcrdns":      {plugins, []string{"internal/authres", "internal/dns", "internal/hook", "internal/plugin"}},
	"internal/plugin/aliases":     {plugins, []string{"internal/hook", "internal/plugin", "internal/route"}}, // the notes that steer a message
	"internal/plugin/relay":       {plugins, []string{"internal/hook", "internal/plugin", "internal/route"}}, // next hops, and the notes that steer a message
	"internal/plugin/smtpforward": {plugins, []string{"internal/hook", "internal/plugin", "internal/route"}}, // its choice of a route is the queue's too

	"internal/conf/record": {nouns, nil},
	"internal/conf":        {instance, []string{"internal/metrics", "internal/plugin", "internal/web"}}, // what they declare

	"internal/web":            {assembly, nil},
	"internal/control":        {assembly, []string{"internal/web"}},
	"internal/control/filter": {assembly, []string{"internal/control"}},
	"internal/control/view":   {assembly, []string{"internal/control"}},
	"internal/control/mailq":  {assembly, []string{"internal/control", "internal/control/filter", "internal/control/view"}},
	"internal/metrics":        {assembly, nil},
	"internal/command":        {assembly, []string{"internal/control"}},
	"internal/rehearsal":      {assembly, nil},
	"internal/server":         {assembly, []string{"internal/control", "internal/control/mailq", "internal/control/view", "internal/metrics", "internal/rehearsal", "internal/web"}},

	"cmd/tarishi":       {commands, []string{"config", "internal/command", "internal/dkim", "internal/dns", "internal/domaincheck", "internal/mtasts", "internal/rehearsal", "internal/server", "internal/control", "internal/control/mailq", "internal/control/view"}},
	"cmd/tarishi-bench": {commands, []string{"internal/test/load", "internal/test/load/checks", "internal/test/load/instance", "internal/test/load/fileserver", "internal/test/load/mount", "internal/test/dnstest", "internal/test/namespace"}},

	"internal/plugin/plugintest":    {tests, nil},
	"internal/dns/memory":           {tests, nil}, // dns without a network
	"internal/store/mem":            {tests, nil}, // the twin in memory
	"internal/store/storetest":      {tests, []string{"internal/store"}},
	"internal/ledger/ledgertest":    {tests, nil},
	"internal/test/smtptest":        {tests, nil},
	"internal/test/dnstest":         {tests, nil},
	"internal/test/redistest":       {tests, nil},
	"internal/test/tokentest":       {tests, nil},
	"internal/test/load":            {tests, nil},
	"internal/test/load/instance":   {tests, nil},
	"internal/test/load/mount":      {tests, nil},
	"internal/test/load/checks":     {tests, []string{"internal/test/load", "internal/test/load/instance", "internal/test/dnstest"}},
	"internal/test/load/fileserver": {tests, []string{"internal/listener", "internal/session", "internal/session/policy", "internal/intake"}},
	"internal/test/crash":           {tests, []string{"internal/test/load/instance", "internal/test/dnstest"}},
	"internal/test/world":           {tests, nil},
	"internal/test/namespace":       {tests, nil},
	"internal/test/dialogue":        {tests, nil},
	"internal/test/e2e":             {tests, nil},
	"internal/test/judges":          {tests, nil},
	"internal/test/arch":            {tests, nil},
}

// only names the importers of packages that not everyone above may use. A name that
// ends in "/*" stands for all below.
var only = map[string][]string{
	"config":                     {"cmd/tarishi"},
	"internal/server":            {"cmd/tarishi"},
	"internal/conf":              {"cmd/tarishi", "internal/server"}, // a package that reads a setting declares it itself
	"internal/hangup":            {"cmd/tarishi"},
	"internal/privilege":         {"internal/server"},
	"internal/schedule/dispatch": {"internal/schedule"},
	"internal/schedule/order":    {"internal/schedule", "internal/schedule/dispatch"},
	"internal/store/disk/*":      {"internal/store/disk", "internal/store/disk/*"},
	"internal/store/journal":     {"internal/store/disk", "internal/store/disk/*"},
	"internal/store/spool":       {"internal/store/disk", "internal/store/disk/*"},

	"internal/store/journal/window": {"internal/store/journal"},
	"internal/backend":              {"internal/delivery"},
	"internal/tlspolicy":            {"internal/delivery"},
	"internal/smtpclient/*":         {"internal/smtpclient"},
}

// never names what a package must not import although its floor may.
var never = map[string][]string{
	"internal/forward": {"internal/pool", "internal/smtpclient"}, // the engine is delivery
}

// modules names the importers of each module that the project depends on: a
// package, or one that ends in "/*" and everything below it. docs/dependencies.md
// says what each is for.
var modules = map[string][]string{
	"github.com/emersion/go-smtp":         {"internal/smtpd"}, // the server
	"github.com/emersion/go-sasl":         {"internal/smtpd", "internal/smtpclient/auth"},
	"gopkg.in/ini.v1":                     {"internal/ini/grammar"},
	"github.com/miekg/dns":                {"internal/dns", "internal/test/dnstest"},
	"blitiri.com.ar/go/spf":               {"internal/spf"},
	"go.uber.org/zap":                     {"internal/*"},
	"github.com/google/uuid":              {"internal/mail"},
	"go.etcd.io/bbolt":                    {"internal/kv"},
	"github.com/redis/go-redis/v9":        {"internal/redis"},
	"github.com/fsnotify/fsnotify":        {"internal/conf"},
	"github.com/prometheus/client_golang": {"internal/metrics"},
	"golang.org/x/net/idna":               {"internal/mail"},
	"golang.org/x/net/publicsuffix":       {"internal/hostname", "internal/plugin/*"},
	"golang.org/x/sys":                    {"internal/vfs", "internal/listener"},
	"github.com/klauspost/compress":       {"internal/archive"},
	"github.com/nwaples/rardecode/v2":     {"internal/archive"},
	"github.com/ulikunitz/xz":             {"internal/archive"},
}

// source is one package as it stands in the tree.
type source struct {
	imports  map[string][]string // path → files, of the package itself
	tests    map[string][]string // the same of its tests
	comments []string            // files with a package comment
	files    int                 // that are no tests
}

// read parses the imports of every Go file below the module's folders. It
// opens the files itself, so that go test runs again when one has changed.
func read(t *testing.T) map[string]*source {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]*source)
	for _, top := range []string{"cmd", "config", "internal"} {
		err := fs.WalkDir(os.DirFS(root), top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.Contains(path, "/testdata/") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.ImportsOnly|parser.ParseComments)
			if err != nil {
				return err
			}
			dir := filepath.ToSlash(filepath.Dir(path))
			if found[dir] == nil {
				found[dir] = &source{imports: map[string][]string{}, tests: map[string][]string{}}
			}
			found[dir].add(path, f)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func (s *source) add(path string, f *ast.File) {
	imports := s.imports
	if strings.HasSuffix(path, "_test.go") {
		imports = s.tests
	} else {
		s.files++
		if f.Doc != nil {
			s.comments = append(s.comments, path)
		}
	}
	for _, i := range f.Imports {
		name, _ := strconv.Unquote(i.Path.Value)
		imports[name] = append(imports[name], path)
	}
}

func TestImports(t *testing.T) {
	found := read(t)
	for _, dir := range slices.Sorted(maps.Keys(found)) {
		e, ok := lookup(dir)
		if !ok {
			t.Errorf("%s: not in the table: give it a floor", dir)
			continue
		}
		for name, files := range found[dir].imports {
			if why := forbidden(dir, e, name); why != "" {
				t.Errorf("%s imports %s: %s", strings.Join(files, ", "), name, why)
			}
		}
		for name, files := range found[dir].tests {
			switch strings.TrimPrefix(name, module) {
			case "internal/test/e2e", "internal/test/arch":
				t.Errorf("%s imports %s: tests are on top", strings.Join(files, ", "), name)
			}
		}
	}
	for name := range packages {
		if _, ok := found[name]; !ok && !strings.HasSuffix(name, "/*") {
			t.Errorf("%s is in the table and not in the tree", name)
		}
	}
}

// forbidden says why the package dir may not import name, or "".
func forbidden(dir string, e entry, name string) string {
	target, ours := strings.CutPrefix(name, module)
	if !ours {
		if first, _, _ := strings.Cut(name, "/"); !strings.Contains(first, ".") {
			return "" // the standard library
		}
		for m, users := range modules {
			if name == m || strings.HasPrefix(name, m+"/") {
				if slices.ContainsFunc(users, func(u string) bool { return matches(u, dir) }) {
					return ""
				}
				return "only " + strings.Join(users, ", ") + " may"
			}
		}
		return "the module is not in the table"
	}
	for restricted, users := range only {
		if matches(restricted, target) && !slices.ContainsFunc(users, func(u string) bool { return matches(u, dir) }) {
			return "only " + strings.Join(users, ", ") + " may"
		}
	}
	if slices.Contains(never[dir], target) {
		return "it must not"
	}
	if slices.ContainsFunc(e.also, func(a string) bool { return matches(a, target) }) {
		return ""
	}
	to, ok := lookup(target)
	if !ok {
		return "it is not in the table"
	}
	if slices.Contains(below[e.floor], to.floor) {
		return ""
	}
	return "floor " + string(e.floor) + " must not import floor " + string(to.floor)
}

// lookup finds a package's entry: its own, or that of its parent's "/*".
func lookup(name string) (entry, bool) {
	if e, ok := packages[name]; ok {
		return e, true
	}
	for i := strings.LastIndexByte(name, '/'); i >= 0; i = strings.LastIndexByte(name[:i], '/') {
		if e, ok := packages[name[:i]+"/*"]; ok {
			return e, true
		}
	}
	return entry{}, false
}

func matches(pattern, name string) bool {
	parent, wild := strings.CutSuffix(pattern, "*")
	if wild {
		return strings.HasPrefix(name, parent)
	}
	return pattern == name
}

func TestPackageComments(t *testing.T) {
	for dir, s := range read(t) {
		if s.files > 0 && len(s.comments) != 1 {
			t.Errorf("%s: %d package comments %q, want one", dir, len(s.comments), s.comments)
		}
	}
}

// The rules themselves, on imports that must and must not pass.
func TestForbidden(t *testing.T) {
	for _, c := range []struct {
		dir, imported string
		allowed       bool
	}{
		{"internal/mail", "net/netip", true},
		{"internal/mail", module + "internal/reply", false},
		{"internal/dns", module + "internal/mail", true},
		{"internal/dns", module + "internal/pool", false},
		{"internal/pool", module + "internal/smtpclient", true},
		{"internal/store/disk", module + "internal/store/journal", true},
		{"internal/outbound", module + "internal/store/journal", false},
		{"internal/store/disk/spill", module + "internal/store/journal", true},
		{"internal/outbound", module + "internal/store/disk", false},
		{"internal/outbound", module + "internal/store/disk/index", false},
		{"internal/outbound", module + "internal/store", true},
		{"internal/server", module + "internal/store/mem", false},
		{"internal/outbound", module + "internal/delivery", true},
		{"internal/forward", module + "internal/delivery", true},
		{"internal/forward", module + "internal/pool", false},
		{"internal/forward", module + "internal/smtpclient", false},
		{"internal/delivery", module + "internal/smtpclient", true},
		{"internal/session", module + "internal/hook", true},
		{"internal/smtpd", "github.com/emersion/go-smtp", true},
		{"internal/session", "github.com/emersion/go-smtp", false},
		{"internal/smtpclient", "github.com/emersion/go-smtp", false},
		{"internal/plugin/relay", module + "internal/hook", true},
		{"internal/plugin/relay", module + "internal/session", false},
		{"internal/plugin/queue/forward", module + "internal/plugin", true},
		{"internal/server", module + "internal/store/disk", true},
		{"internal/server", module + "internal/plugin/all", true},
		{"internal/server", module + "internal/store/journal", false},
		{"internal/server", module + "internal/test/e2e", false},
		{"cmd/tarishi", module + "internal/server", true},
		{"cmd/tarishi", module + "internal/store/disk", false},
		{"cmd/tarishi-bench", module + "internal/server", false},
		{"internal/conf", module + "internal/session", true},
		{"internal/conf", module + "internal/plugin", true},
		{"internal/conf", module + "internal/plugin/relay", false},
		{"internal/conf", module + "internal/plugin/all", false},
		{"internal/session", module + "internal/conf", false},
		{"internal/control", module + "internal/conf", false},
		{"internal/plugin/relay", module + "internal/conf", false},
		{"internal/test/e2e", module + "internal/server", false},
		{"internal/mail", "example.org/unknown", false},
		{"internal/session", "github.com/emersion/go-smtp-proxy", false},
		{"internal/store/disk", module + "internal/nowhere", false},
	} {
		e, ok := lookup(c.dir)
		if !ok {
			t.Fatalf("%s is not in the table", c.dir)
		}
		if why := forbidden(c.dir, e, c.imported); (why == "") != c.allowed {
			t.Errorf("%s imports %s: %q, allowed should be %v", c.dir, c.imported, why, c.allowed)
		}
	}
}
