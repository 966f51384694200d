package stack

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSaveCredentials(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ".stack", "credentials.json")
	require.NoError(t, saveCredentials(t.Context(), path, "oac_1", NewSecret("first"), "agents:read audit:read"))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(text, &fields))
	issued := fields["issued_at"].(float64)
	assert.WithinDuration(t, time.Now(), time.Unix(int64(issued), 0), time.Minute)
	assert.Equal(t, map[string]any{"client_id": "oac_1", "refresh_token": "first", "scope": "agents:read audit:read",
		"issued_at": issued, "refresh_expires_at": issued + (30 * 24 * time.Hour).Seconds()}, fields)
	assert.Contains(t, string(text), "{\n  \"client_id\": ", "indented by 2")
	for name, mode := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700 | fs.ModeDir} {
		info, statErr := os.Stat(name)
		require.NoError(t, statErr)
		assert.Equal(t, mode, info.Mode(), name)
	}

	link := filepath.Join(filepath.Dir(path), "link.json")
	require.NoError(t, os.Symlink(path, link))
	require.NoError(t, saveCredentials(t.Context(), link, "oac_2", NewSecret("second"), ""))
	saved, err := readCredentials(path)
	require.NoError(t, err)
	assert.Equal(t, "oac_2", saved.clientID)
	assert.Equal(t, "second", saved.refreshToken)
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".credentials-*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

// A refresh that runs finishes before a new session takes the place of the old one.
func TestSaveCredentialsWaits(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "credentials.json")
	require.NoError(t, saveCredentials(t.Context(), path, "oac_1", NewSecret("first"), ""))
	lock, err := lockCredentials(t.Context(), path)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, saveCredentials(ctx, path, "oac_2", NewSecret("second"), ""), context.Canceled)
	saved, err := readCredentials(path)
	require.NoError(t, err)
	assert.Equal(t, "first", saved.refreshToken)
	require.NoError(t, lock.Close())
	require.NoError(t, saveCredentials(t.Context(), path, "oac_2", NewSecret("second"), ""))
}

// What is in the way is told, and leaves nothing behind.
func TestSaveCredentialsFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	require.ErrorContains(t, saveCredentials(t.Context(), filepath.Join(dir, "file", "credentials.json"), "oac_1", NewSecret("hidden"), ""),
		"the credentials file cannot be written")
	taken := filepath.Join(dir, "taken")
	require.NoError(t, os.Mkdir(taken, 0o700))
	err := saveCredentials(t.Context(), taken, "oac_1", NewSecret("hidden"), "")
	require.ErrorContains(t, err, "the credentials file cannot be written")
	assert.NotContains(t, err.Error(), "hidden")
	left, err := filepath.Glob(filepath.Join(dir, ".credentials-*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestOnThisHost(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	require.NoError(t, err)
	assert.Equal(t, "STACK Go SDK on "+host[:min(len(host), 40)], onThisHost("STACK Go SDK"))
	assert.Len(t, []rune(hostName(3)), min(3, len(host)))
}
