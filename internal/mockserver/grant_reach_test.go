package mockserver

import (
	"net/http"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/getstack-go/stack"
)

// What a grant token may call is there, is checked for what it refers to and, when it makes or lists something, is locked.
func TestGrantRoutes(t *testing.T) {
	t.Parallel()
	byName := map[string]route{}
	for _, r := range routes() {
		byName[r.method+" "+r.pattern] = r
	}
	listed := []reflect.Type{reflect.TypeFor[[]stack.Agent](), reflect.TypeFor[[]stack.Connection](), reflect.TypeFor[[]stack.ActivePassport](),
		reflect.TypeFor[inboundWebhookList](), reflect.TypeFor[[]stack.Service](), reflect.TypeFor[[]stack.ServiceTemplate]()}
	for name, scope := range grantRoutes {
		r, ok := byName[name]
		if !assert.True(t, ok, "%s is no route", name) {
			continue
		}
		assert.Contains(t, connectScopes, scope, name)
		assert.False(t, r.public || r.control || r.operatorOnly || r.idempotent, name)
		assert.Equal(t, name == "POST /v1/proxy", r.unlocked, name)
		assert.Equal(t, r.method == http.MethodGet, scope[len(scope)-5:] == ":read", "%s takes %s", name, scope)
		for i := range r.in.NumField() {
			if at, isPath := r.in.Field(i).Tag.Lookup("path"); isPath && at != "provider" {
				assert.Contains(t, grantReferences, at, name)
			}
		}
		if r.out.Kind() == reflect.Slice {
			assert.True(t, slices.Contains(listed, r.out), "%s lists %s, which nothing cuts to the grant", name, r.out)
		}
	}
}
