package stack_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

const canary = "canary-5f3a"

// prints gives everything that fmt makes of a value.
func prints(v any) string {
	var b strings.Builder
	for _, verb := range "vsqdxXtTbcoOUeEfFgGp" {
		for _, flags := range []string{"", "+", "#", "20", "-20.3", " "} {
			fmt.Fprintf(&b, "%"+flags+string(verb)+"\n", v)
		}
	}
	return b.String() + fmt.Sprint(v) + fmt.Sprintln(v)
}

// requireBare checks that a text shows the canary in no form that fmt could have given it.
func requireBare(t *testing.T, text string, where any) {
	t.Helper()
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprintf("% x", canary),
		strings.Trim(fmt.Sprintf("%d", []byte(canary)), "[]"), url.QueryEscape(canary)} {
		require.NotContains(t, text, form, where)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	s := stack.NewSecret(canary)
	type outer struct{ inner struct{ s stack.Secret } }
	for name, v := range map[string]any{
		"secret": s, "pointer": &s, "exported field": struct{ S stack.Secret }{s}, "unexported field": struct{ s stack.Secret }{s},
		"deep in unexported fields": outer{struct{ s stack.Secret }{s}}, "pointer to a struct": &struct{ s stack.Secret }{s},
		"map value": map[string]stack.Secret{"k": s}, "map key": map[stack.Secret]int{s: 1}, "slice": []stack.Secret{s},
		"array": [1]stack.Secret{s}, "any": []any{s}, "embedded": struct{ stack.Secret }{s},
		"error": fmt.Errorf("with %v and %s", s, s), "option": stack.WithAPIKey(canary),
	} {
		requireBare(t, prints(v), name)
		var text bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("x", "v", v, slog.Group("g", slog.Any("v", v)))
		requireBare(t, text.String(), name)
	}
	var js bytes.Buffer
	slog.New(slog.NewJSONHandler(&js, nil)).Info("x", "v", s, "p", &s, slog.Group("g", slog.Any("v", s)))
	requireBare(t, js.String(), "JSON handler")
	assert.Equal(t, 3, strings.Count(js.String(), "[REDACTED]"))

	assert.Equal(t, canary, s.Reveal())
	assert.Equal(t, "[REDACTED] [REDACTED] [REDACTED]", fmt.Sprintf("%v %#v %d", s, s, s))
	for _, empty := range []stack.Secret{{}, stack.NewSecret("")} {
		assert.Empty(t, fmt.Sprint(empty))
		assert.Empty(t, empty.Reveal())
		assert.True(t, empty.IsZero())
		assert.Equal(t, stack.Secret{}, empty)
	}
	assert.False(t, s.IsZero())
}

// holdsSecret reports whether a Secret can be reached through the type.
func holdsSecret(typ reflect.Type) bool {
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return holdsSecret(typ.Elem())
	case reflect.Struct:
		secret := reflect.TypeFor[stack.Secret]()
		foreign := typ.PkgPath() != "" && typ.PkgPath() != secret.PkgPath()
		return typ == secret || !foreign && typ != reflect.TypeFor[stack.Client]() &&
			slices.ContainsFunc(reflect.VisibleFields(typ), func(f reflect.StructField) bool { return holdsSecret(f.Type) })
	}
	return false
}

// No type of the package shows a secret that it holds, and slog shows none even as JSON.
func TestTypesWithSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	checked := 0
	for _, v := range exported {
		typ := reflect.TypeOf(v)
		if !holdsSecret(typ) {
			continue
		}
		checked++
		full := filler{secret: canary}.newFilled(typ)
		for _, v := range []any{full.Interface(), full.Elem().Interface()} {
			requireBare(t, prints(v), typ)
			var text, js bytes.Buffer
			slog.New(slog.NewTextHandler(&text, nil)).Info("x", "v", v)
			slog.New(slog.NewJSONHandler(&js, nil)).Info("x", "v", v, slog.Group("g", slog.Any("v", v)))
			requireBare(t, text.String(), typ)
			requireBare(t, js.String(), typ)
		}
	}
	assert.GreaterOrEqual(t, checked, 13)
}

// What slog shows of a proxied call is the URL without user information, query and fragment, and nothing of the rest.
func TestProxyRequestInLogs(t *testing.T) {
	t.Parallel()
	r := stack.ProxyRequest{Service: "slack", Method: "POST",
		URL:     "https://u:" + canary + "@h.example/p?q=" + canary + "#" + canary,
		Headers: map[string]string{"X-Key": canary}, Body: canary, Query: map[string]string{"k": canary},
		PassportToken: stack.NewSecret(canary), ApprovalID: "apr_1", OperationID: "op"}
	var js bytes.Buffer
	slog.New(slog.NewJSONHandler(&js, nil)).Info("x", "call", r)
	requireBare(t, js.String(), "log")
	assert.Contains(t, js.String(), `"call":{"service":"slack","method":"POST","url":"https://h.example/p","operation_id":"op"}`)
}

// Every call that takes a secret is made with the canary in it, to an API that fails in every way. The canary arrives
// there, and is neither in the error nor in the log.
func TestSecretsOfCallsStayInside(t *testing.T) {
	t.Parallel()
	failures := map[string]step{
		"refusal":     answer(403, `{"error":{"code":"FORBIDDEN","message":"no","details":{"a":1}}}`),
		"RFC 6749":    answer(401, `{"error":"invalid_token","error_description":"no"}`),
		"not found":   answer(404, `{"error":{"code":"NOT_FOUND","message":"no"}}`),
		"html":        answer(502, "<html>bad gateway"),
		"html as 200": answer(200, "<html>welcome"),
		"wrong shape": answer(200, `{"token":"`+canary+`","credential":"`+canary+`","id":{},"jti":{},"valid":{},"status":{},`+
			`"provider":{},"agent_id":{},"operation_id":{},"verdict":{},"allowed":{},"approval_id":{}}`),
		"list":         answer(200, `["`+canary+`"]`),
		"cut":          answer(200, `{"token":"`+canary+`","credential":"`+canary),
		"no network":   broken(errDial),
		"broken":       broken(&url.Error{Op: "Get", URL: "https://api.example/?q=" + canary, Err: io.ErrUnexpectedEOF}),
		"redirect":     answer(307, "", "Location", "https://evil.example/?q="+canary),
		"overload":     answer(429, "", "Retry-After", "60"),
		"unauthorized": answer(401, ""),
	}
	for failure, one := range failures {
		t.Run(failure, func(t *testing.T) {
			t.Parallel()
			var logged bytes.Buffer
			logger := slog.New(slog.NewJSONHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
			s := &scripted{steps: []step{one}}
			client := script(t, s, stack.WithLogger(logger), stack.WithMaxRetries(0), stack.WithAPIKey("key-"+canary))
			calls := callsWithSecrets(t, client)
			assert.Greater(t, len(calls), 15)
			for name, call := range calls {
				s.requests, s.bodies = nil, nil
				err := call()
				require.NotEmpty(t, s.requests, "%s: the arguments were refused: %v", name, err)
				sent := s.bodies[0] + fmt.Sprint(s.requests[0].Header["X-Passport-Token"])
				require.Contains(t, sent, canary, name)
				require.Equal(t, []string{"Bearer key-" + canary}, s.requests[0].Header["Authorization"])
				require.NotContains(t, s.requests[0].URL.String(), canary, name)
				require.Error(t, err, name)
				for ; err != nil; err = errors.Unwrap(err) {
					requireBare(t, prints(err), name)
					logger.Warn("failed", "error", err)
				}
			}
			requireBare(t, logged.String(), "the log")
			assert.Contains(t, logged.String(), `"msg":"stack call"`)
			requireBare(t, prints(client), "the client")
		})
	}
}

// callsWithSecrets finds the methods of the client's services that take a secret, each with arguments that the SDK lets pass.
func callsWithSecrets(t *testing.T, client *stack.Client) map[string]func() error {
	t.Helper()
	calls := map[string]func() error{}
	services := reflect.ValueOf(client).Elem()
	for i := range services.NumField() {
		if !services.Type().Field(i).IsExported() {
			continue
		}
		service := services.Field(i)
		for m := range service.NumMethod() {
			method, typ := service.Method(m), service.Method(m).Type()
			args := []reflect.Value{reflect.ValueOf(t.Context())}
			secret := false
			for a := 1; a < typ.NumIn(); a++ {
				arg := filler{secret: canary}.newFilled(typ.In(a)).Elem()
				if r, ok := arg.Addr().Interface().(*stack.ProxyRequest); ok {
					r.URL, r.Method = "https://slack.com/x", "POST"
				}
				if p, ok := arg.Addr().Interface().(*stack.ServiceConnectCustomParams); ok {
					p.Credential = stack.CustomCredential{Fields: map[string]stack.Secret{"password": stack.NewSecret(canary)}}
				}
				args, secret = append(args, arg), secret || holdsSecret(typ.In(a))
			}
			if secret {
				calls[service.Type().Elem().Name()+"."+service.Type().Method(m).Name] = func() error {
					results := method.Call(args)
					err, _ := results[len(results)-1].Interface().(error)
					return err
				}
			}
		}
	}
	return calls
}

func TestSecretOnTheWire(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(map[string]stack.Secret{"a": stack.NewSecret(`"<&>é` + "\u2028"), "b": {}})
	require.NoError(t, err)
	var back map[string]stack.Secret
	require.NoError(t, json.Unmarshal(data, &back))
	assert.Equal(t, `"<&>é`+"\u2028", back["a"].Reveal())
	assert.True(t, back["b"].IsZero())

	data, err = json.Marshal(struct {
		S stack.Secret `json:"s,omitzero"`
	}{})
	require.NoError(t, err)
	assert.Equal(t, "{}", string(data))

	s := stack.NewSecret("before")
	require.NoError(t, json.Unmarshal([]byte("null"), &s))
	assert.True(t, s.IsZero())
	for _, bad := range []string{`{"x":"` + canary + `"}`, `["` + canary + `"]`, `7`, `true`} {
		err = json.Unmarshal([]byte(bad), &s)
		require.Error(t, err, bad)
		requireBare(t, err.Error(), bad)
	}
	_, err = json.Marshal([]any{map[stack.Secret]int{stack.NewSecret(canary): 1}})
	require.Error(t, err, "a secret is no key of an object")
	requireBare(t, err.Error(), "key")
}

// A key that no header could carry is refused, and not shown.
func TestRefusedSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	_, err := stack.New(stack.WithAPIKey(canary + "\n"))
	requireParam(t, err, "WithAPIKey")
	requireBare(t, prints(err), "key")

	s := &scripted{steps: []step{answer(200, "{}")}}
	c := script(t, s)
	for name, token := range map[string]string{"line break": canary + "\r\nX-Evil: 1", "not ASCII": canary + "é"} {
		_, err = c.Credentials.Get(t.Context(), "slack", stack.CredentialParams{PassportToken: stack.NewSecret(token)})
		requireParam(t, err, "X-Passport-Token")
		requireBare(t, prints(err), name)
	}
	assert.Empty(t, s.requests)
}
