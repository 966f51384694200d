package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/internal/mockserver"
)

// FuzzSeed holds that a seed file is taken or refused with an error that does not quote its credentials.
func FuzzSeed(f *testing.F) {
	f.Add(`"canary-5f3a"`)
	f.Add(`{"username":"u","password":"canary-5f3a"}`)
	f.Add(`["canary-5f3a"]`)
	f.Add(`{"header:X-A":"canary-5f3a","x":7}`)
	f.Fuzz(func(t *testing.T, credential string) {
		if !json.Valid([]byte(credential)) {
			return
		}
		data := []byte(`{"services":[{"service":"crm","credential":` + credential + `}]}`)
		name := filepath.Join(t.TempDir(), "seed.json")
		require.NoError(t, os.WriteFile(name, data, 0o600))
		mock := mockserver.New(mockserver.Options{})
		t.Cleanup(mock.Close)
		if err := loadSeed(t.Context(), mock, name, io.Discard); err != nil {
			require.NotContains(t, err.Error(), "canary-5f3a")
		}
	})
}
