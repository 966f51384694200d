package stack

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The names are those that the Python SDK makes. (contract: endpoints 4.7)
func TestFleetKeyNames(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "fleet_df05300f51892e19de06e0eefae97e87c9544b12c41b3132aa9049c52d65dda6", fleetKeyName("fpol_1", "idem-1"))
	assert.Equal(t, "fleet_7ee7796ff5ac9def0a02af2634c0c741c5b977ab3cbc11bb183efe0f5058163b", fleetKeyName(`p"<>&`, "é\u2028"))
	assert.Equal(t, `"\b\f\n\r\t\"\\/\u0000\u001f\u007f\u00e9\ud83d\ude00 ~"`, asciiJSON("\b\f\n\r\t\"\\/\x00\x1f\x7fé😀 ~"))
}

func FuzzASCIIJSON(f *testing.F) {
	for _, text := range []string{"", "a", "é\u2028😀", "\x00\x7f", "\xff", `"\`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := asciiJSON(text)
		assert.Equal(t, -1, strings.IndexFunc(got, func(r rune) bool { return r < ' ' || r > '~' }))
		var back string
		require.NoError(t, json.Unmarshal([]byte(got), &back))
		assert.Equal(t, string([]rune(text)), back)
	})
}

func TestFleetKeyIsMadeOnce(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	dir := filepath.Join(home, ".stack", "agents")
	var wg sync.WaitGroup
	keys := make([]*keyFile, 16)
	for i := range keys {
		wg.Go(func() {
			key, err := fleetKey(t.Context(), "flp_1", "once")
			if assert.NoError(t, err) {
				keys[i] = key
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		require.NotNil(t, key)
		assert.Equal(t, keys[0].private, key.private, "one wins, and the others take it")
	}
	other, err := fleetKey(t.Context(), "flp_1", "twice")
	require.NoError(t, err)
	assert.NotEqual(t, keys[0].PublicKey, other.PublicKey)
	require.NoError(t, keys[0].keepFor("agt_1"))
	require.NoError(t, keys[0].keepFor("agt_1"), "again")

	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 3, "nothing else lies about")
	for _, e := range entries {
		info, statErr := e.Info()
		require.NoError(t, statErr)
		assert.Equal(t, os.FileMode(0o600), info.Mode())
	}
	info, err := os.Stat(dir)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	var file map[string]any
	data, err := os.ReadFile(filepath.Join(dir, "agt_1.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &file))
	private := file["privateKey"].(map[string]any)
	assert.Equal(t, map[string]any{"agent_id": "agt_1", "publicKey": map[string]any{"kty": "OKP", "crv": "Ed25519", "x": private["x"]},
		"privateKey": private, "enrolled_at": file["enrolled_at"]}, file)
	assert.InDelta(t, float64(time.Now().Unix()), file["enrolled_at"], 60)
	assert.Len(t, private, 4)
}

// A file of the Python SDK, as it writes it.
const pythonKey = `{"agent_id": "fleet_x", "publicKey": {"kty": "OKP", "crv": "Ed25519",
 "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}, "privateKey": {"kty": "OKP", "crv": "Ed25519",
 "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"},
 "enrolled_at": 1795521600.123456}`

func TestFleetKeyOfAnotherProcess(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	dir := filepath.Join(home, ".stack", "agents")
	path := filepath.Join(dir, fleetKeyName("flp_1", "k")+".json")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	synctest.Test(t, func(t *testing.T) {
		require.NoError(t, os.WriteFile(path, []byte(pythonKey[:100]), 0o600)) // it is being written
		time.AfterFunc(300*time.Millisecond, func() { _ = os.WriteFile(path, []byte(pythonKey), 0o600) })
		key, err := fleetKey(t.Context(), "flp_1", "k")
		require.NoError(t, err)
		assert.Equal(t, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", key.public().X)
		require.NoError(t, key.keepFor("agt_1"))
		kept, err := readKeyFile(filepath.Join(dir, "agt_1.json"))
		require.NoError(t, err)
		assert.Equal(t, "agt_1", kept.AgentID)
		assert.JSONEq(t, "1795521600.123456", string(kept.EnrolledAt), "as it was")
	})
}

func TestFleetKeyFailures(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	dir := filepath.Join(home, ".stack", "agents")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	path := filepath.Join(dir, fleetKeyName("flp_1", "k")+".json")
	const secret = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
	for content, says := range map[string]string{
		"":                 "is not the JSON of a key pair",
		pythonKey[:200]:    "is not the JSON of a key pair",
		`{"privateKey":1}`: "is not the JSON of a key pair",
		`{}`:               "another kind of key",
		strings.ReplaceAll(pythonKey, "Ed25519", "X25519"):                "another kind of key",
		strings.Replace(pythonKey, secret, secret+"AAAA", 1):              "privateKey.d",
		strings.Replace(pythonKey, `"d": "n`, `"d": "m`, 1):               "not its private key's",
		strings.Replace(pythonKey, `"x": "11qYAYKx`, `"x": "11qYAYKy`, 1): "not its private key's",
	} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			_, err := fleetKey(t.Context(), "flp_1", "k")
			require.ErrorContains(t, err, says)
			assert.ErrorContains(t, err, path)
			assert.NotContains(t, err.Error(), secret[1:20], "nothing of the key is told")
			assert.Equal(t, 19*keyFilePause, time.Since(began))
		})
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, content, string(data), "what is there is left alone")
	}

	require.NoError(t, os.WriteFile(path, []byte(pythonKey), 0o600))
	key, err := fleetKey(t.Context(), "flp_1", "k")
	require.NoError(t, err)
	for _, id := range []string{"", "agt_", "agent_1", "agt_../../x", "agt_é", "agt_1\n"} {
		require.ErrorContains(t, key.keepFor(id), "no agent id")
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1)

	t.Setenv("HOME", filepath.Join(path, "a-file-is-no-home"))
	_, err = fleetKey(t.Context(), "flp_1", "k")
	require.ErrorContains(t, err, "key file")
	require.ErrorContains(t, key.keepFor("agt_1"), "writing a key file")
	t.Setenv("HOME", "")
	_, err = fleetKey(t.Context(), "flp_1", "k")
	require.ErrorContains(t, err, "no place for keys")
	require.ErrorContains(t, key.keepFor("agt_1"), "no place for keys")
}

func FuzzKeyFile(f *testing.F) {
	f.Add([]byte(pythonKey))
	f.Add([]byte(`{"privateKey":{"d":"AA"}}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key := &keyFile{}
		if err := key.parse(data); err != nil {
			assert.Less(t, len(err.Error()), 100)
			return
		}
		written, err := marshalJSON(key)
		require.NoError(t, err)
		again := &keyFile{}
		require.NoError(t, again.parse(written))
		assert.Equal(t, key.private, again.private)
	})
}
