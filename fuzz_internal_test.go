package stack

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzCredentialsFile holds that a credentials file either is refused, by an error that does not quote it, or gives a client id
// and a refresh token.
func FuzzCredentialsFile(f *testing.F) {
	f.Add([]byte(`{"client_id":"a","refresh_token":"b","x":{"y":[1.0]}}`))
	f.Add([]byte(`{"client_id":"a","refresh_token":7,"secret":"canary"}`))
	f.Add([]byte(`{"refresh_token":"b","refresh_token":null}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "credentials.json")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		file, err := readCredentials(path)
		if err != nil {
			var param *ParamError
			require.ErrorAs(t, err, &param)
			require.NotContains(t, err.Error(), "canary")
			return
		}
		require.NotEmpty(t, file.clientID)
		require.NotEmpty(t, file.refreshToken)
		require.True(t, json.Valid(data))
	})
}

// FuzzJournalRecords holds that what a journal's records come to makes sense, whatever is in them: what is to be checked out
// can be encoded, and nothing was accepted that was not logged.
func FuzzJournalRecords(f *testing.F) {
	f.Add([]byte(`{"begin":{"version":1}}` + "\n" + `{"opened":{}}` + "\n" + `{"call":{"tool":"slack","failed":true}}` + "\n" + `{"accepted":1}`))
	f.Add([]byte(`{"begin":{"version":1}}` + "\n" + `{"account":{"total":-1,"services":["a","a"]}}` + "\n" + `{"calls":{"reported":true,"list":[{}]}}`))
	f.Add([]byte(`{"begin":{}}` + "\n" + `{"accepted":-1}`))
	f.Add([]byte(`{"opened":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		records := bytes.Split(data, []byte("\n"))
		state, sane := readJournal(records)
		if !sane {
			return
		}
		require.Equal(t, journalVersion, state.begin.Version)
		require.LessOrEqual(t, len(state.account.pending)+len(state.account.reported), 1<<20)
		_, err := marshalJSON(state.account.pending)
		require.NoError(t, err)
		again, sane := readJournal(records)
		require.True(t, sane)
		require.Equal(t, state, again, "the same records come to the same")
	})
}

// FuzzPaths holds that a path for Client.Do, and a base URL, stay on the host and below the prefix that they seem to name.
func FuzzPaths(f *testing.F) {
	f.Add("/v1/agents?a=b")
	f.Add("//evil.example/x")
	f.Add("/v1/%2e%2E/x")
	f.Add("https://user:canary@h.example")
	f.Add("http://[::1%25eth0]:80/p//")
	f.Fuzz(func(t *testing.T, text string) {
		var param *ParamError
		if path, err := parsePath(text); err == nil {
			require.Empty(t, path.Host+path.Scheme)
			require.Nil(t, path.User)
			require.True(t, strings.HasPrefix(path.EscapedPath(), "/") && !strings.HasPrefix(path.EscapedPath(), "//"))
			require.NotContains(t, "/"+path.Path+"/", "/../")
		} else {
			require.ErrorAs(t, err, &param)
		}
		if base, err := parseBaseURL("WithBaseURL", text); err == nil {
			require.Contains(t, []string{"http", "https"}, base.Scheme)
			require.Nil(t, base.User)
			require.NotEmpty(t, base.Hostname())
			require.Empty(t, base.RawQuery+base.Fragment)
		} else {
			require.ErrorAs(t, err, &param)
			if strings.Contains(text, "@") {
				require.NotContains(t, err.Error(), "canary")
			}
		}
	})
}
