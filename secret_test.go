package stack_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

const canary = "canary-5f3a"

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	s := stack.NewSecret(canary)
	values := map[string]any{
		"secret": s, "pointer": &s, "exported field": struct{ S stack.Secret }{s}, "unexported field": struct{ s stack.Secret }{s},
		"map value": map[string]stack.Secret{"k": s}, "map key": map[stack.Secret]int{s: 1}, "slice": []stack.Secret{s},
		"passport": stack.Passport{Token: s}, "refresh": stack.PassportRefreshParams{Token: s}, "delegate": stack.PassportDelegateParams{ParentToken: s},
		"proxy": stack.ProxyRequest{PassportToken: s, URL: "https://u:" + canary + "@h/p?" + canary}, "operation": stack.ProxyOperationParams{PassportToken: s},
		"connect": stack.ServiceConnectParams{OAuthToken: s}, "custom": stack.ServiceConnectCustomParams{Credential: stack.CustomCredential{Token: s}},
		"custom fields": stack.CustomCredential{Fields: map[string]stack.Secret{"password": s}}, "credential": stack.Credential{Credential: s},
		"credential params": stack.CredentialParams{PassportToken: s}, "started": stack.StartedMission{Passport: stack.Passport{Token: s}},
		"renewed": stack.RenewedMission{Passport: stack.Passport{Token: s}},
	}
	for name, v := range values {
		if name != "proxy" { // fmt shows a URL as it is; slog does not
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%t"} {
				assert.NotContains(t, fmt.Sprintf(verb, v), canary, name+" "+verb)
				assert.NotContains(t, fmt.Sprintf(verb, v), fmt.Sprintf("%x", canary), name+" "+verb)
			}
		}
		var text, js bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("x", "v", v)
		assert.NotContains(t, text.String(), canary, name)
		if name != "exported field" && name != "map value" && name != "slice" { // JSON is the wire: a type of one's own must redact itself
			slog.New(slog.NewJSONHandler(&js, nil)).Info("x", "v", v)
			assert.NotContains(t, js.String(), canary, name)
		}
	}
	assert.Equal(t, canary, s.Reveal())
	assert.Equal(t, "[REDACTED]", s.String())
	assert.Empty(t, stack.Secret{}.String())
	assert.True(t, stack.NewSecret("").IsZero())
}

func TestSecretOnTheWire(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(map[string]stack.Secret{"a": stack.NewSecret("<&>"), "b": {}})
	require.NoError(t, err)
	var back map[string]stack.Secret
	require.NoError(t, json.Unmarshal(data, &back))
	assert.Equal(t, "<&>", back["a"].Reveal())
	var s stack.Secret
	require.NoError(t, json.Unmarshal([]byte("null"), &s))
	assert.True(t, s.IsZero())
	err = json.Unmarshal([]byte(`{"x":"`+canary+`"}`), &s)
	require.Error(t, err)
	assert.NotContains(t, err.Error(), canary)
}
