package oauth

import (
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tarishi/internal/grant"
	"tarishi/internal/ini"
)

// Mechanisms are those that show an access token, as auth_type spells them.
var Mechanisms = []string{"xoauth2", "oauthbearer"}

// ShowsToken reports whether an auth_type, or the first of several, shows an access token.
func ShowsToken(authType string) bool {
	first, _, _ := strings.Cut(authType, " ")
	return slices.Contains(Mechanisms, first)
}

// Rows are the keys of a grant, in the order of their documentation.
func Rows(g *grant.Grant) []ini.Row {
	return []ini.Row{
		{
			Key: "auth_token_file", Since: "0.3.0", Kind: ini.Text(&g.TokenFile), Haraka: ini.None,
			Doc: `With auth_type=xoauth2 or oauthbearer: the file of an access token that another program keeps fresh. It is read
				at every login. Names of files are relative to this folder.`,
		},
		{
			Key: "auth_token_url", Since: "0.3.0", Kind: ini.Text(&g.URL), Haraka: ini.None,
			Doc: `Where access tokens are asked for, such as https://login.example.com/oauth2/token, with auth_refresh_token or, without one, by client credentials. https, or
				http to this host. See docs/oauth.md.`,
		},
		{Key: "auth_client_id", Since: "0.3.0", Kind: ini.Text(&g.ClientID), Haraka: ini.None, Doc: "The name under which this host is registered there."},
		{Key: "auth_client_secret", Since: "0.3.0", Kind: ini.Secret(&g.ClientSecret), Haraka: ini.None, Doc: "The secret that goes with it."},
		{
			Key: "auth_client_secret_file", Since: "0.3.0", Kind: ini.Text(&g.ClientSecretFile), Haraka: ini.None,
			Doc: "The file of that secret, instead.",
		},
		{Key: "auth_refresh_token", Since: "0.3.0", Kind: ini.Secret(&g.RefreshToken), Haraka: ini.None, Doc: "The refresh token of the mailbox."},
		{
			Key: "auth_refresh_token_file", Since: "0.3.0", Kind: ini.Text(&g.RefreshTokenFile), Haraka: ini.None,
			Doc: `The file of that token, instead. It is written anew when the server replaces the token, so that the daemon's user
				must be able to write it and its folder.`,
		},
		{Key: "auth_scope", Since: "0.3.0", Kind: ini.Text(&g.Scope), Haraka: ini.None, Doc: "The scope that is asked for, as https://outlook.office365.com/.default."},
	}
}

// Account is what a section says about a login.
type Account struct {
	Type, User, Pass string
	Grant            grant.Grant
}

// Mistake returns the key that is wrong in an account with an access token, and why; "": none. A
// key may be one that is missing.
func (a *Account) Mistake() (key, text string) {
	g := &a.Grant
	has := *g != (grant.Grant{})
	switch {
	case has && !ShowsToken(a.Type):
		return firstKey(g), "has no effect without auth_type=xoauth2 or oauthbearer"
	case !ShowsToken(a.Type):
		return "", ""
	case a.User == "":
		return "auth_type", "auth_user is missing: the mailbox that the access token is for"
	case !has && a.Pass == "":
		return "auth_type", "there is no access token: set auth_token_url, auth_token_file, or auth_pass to the token itself"
	case !has && !isToken(a.Pass):
		return "auth_pass", "is no access token"
	case !has:
		return "", ""
	case a.Pass != "":
		return "auth_pass", "cannot stand beside " + firstKey(g) + ": the access token has one source"
	case g.TokenFile != "" && *g != (grant.Grant{TokenFile: g.TokenFile}):
		return "auth_token_file", "cannot stand beside keys of auth_token_url: the access token has one source"
	case g.TokenFile != "":
		return "", ""
	}
	return mistake(g)
}

// firstKey is the first key of a grant that is set.
func firstKey(g *grant.Grant) string {
	for _, row := range Rows(g) {
		if ini.Anything(row.Kind.Text()) {
			return row.Key
		}
	}
	return ""
}

// mistake is Account.Mistake of a grant without a token file.
func mistake(g *grant.Grant) (key, text string) {
	switch {
	case g.URL == "":
		return firstKey(g), "has no effect without auth_token_url"
	case !isTokenURL(g.URL):
		return "auth_token_url", "is no URL that begins with https:// (or with http:// to this host), without a password in it"
	case g.ClientID == "":
		return "auth_token_url", "auth_client_id is missing"
	case g.ClientSecret != "" && g.ClientSecretFile != "":
		return "auth_client_secret_file", "cannot stand beside auth_client_secret"
	case g.RefreshToken != "" && g.RefreshTokenFile != "":
		return "auth_refresh_token_file", "cannot stand beside auth_refresh_token"
	case g.RefreshToken+g.RefreshTokenFile+g.ClientSecret+g.ClientSecretFile == "":
		return "auth_token_url", "auth_refresh_token is missing, or for client credentials auth_client_secret"
	}
	return "", ""
}

// isTokenURL reports whether tokens may be asked for at a URL.
func isTokenURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return false
	}
	addr, _ := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (addr.IsLoopback() || u.Hostname() == "localhost")
}

// Resolve makes the names of files in a grant absolute below dir, and returns those that are not
// there, by their keys.
func Resolve(g *grant.Grant, dir string) (missing map[string]string) {
	missing = map[string]string{}
	for key, p := range map[string]*string{
		"auth_token_file": &g.TokenFile, "auth_client_secret_file": &g.ClientSecretFile, "auth_refresh_token_file": &g.RefreshTokenFile,
	} {
		if *p == "" {
			continue
		}
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
		if info, err := os.Stat(*p); err != nil || info.IsDir() {
			missing[key] = *p
		}
	}
	return missing
}
