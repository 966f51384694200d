package mockserver

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// stateOf digests all that an operator is and has: its tenants, its agents' keys and its part of the marketplace, too.
func stateOf(op *operator) string {
	d := digester{sum: sha256.New(), op: op, seen: map[any]bool{}}
	d.add(reflect.ValueOf(op.server.keys.ofOperator(op)))
	m := &op.server.market
	m.mu.Lock()
	for sk := range m.skills.all() {
		if sk.OperatorID == op.id {
			d.add(reflect.ValueOf(sk.Skill))
		}
	}
	for inv := range m.invocations.all() {
		if inv.buyer == op {
			d.add(reflect.ValueOf(inv))
		}
	}
	for request := range m.requests.all() {
		if request.OperatorID == op.id {
			d.add(reflect.ValueOf(request))
		}
	}
	m.mu.Unlock()
	for _, t := range op.server.tenantsOf(op) {
		d.put(stateOf(t.account))
	}
	op.mu.Lock()
	defer op.mu.Unlock()
	d.add(reflect.ValueOf(op))
	return fmt.Sprintf("%x, %d rows", d.sum.Sum(nil), op.chain.Len())
}

// digester walks values. Other operators, the server and what serves to run are left out.
type digester struct {
	sum  hash.Hash
	op   *operator
	seen map[any]bool
}

func (d digester) put(parts ...any) { _, _ = fmt.Fprint(d.sum, parts...) } // a hash does not fail

func (d digester) add(v reflect.Value) {
	if !v.IsValid() {
		d.put("nil;")
		return
	}
	switch v.Type() {
	case reflect.TypeFor[*Server](), reflect.TypeFor[sync.Mutex](), reflect.TypeFor[sync.RWMutex](), reflect.TypeFor[sync.Cond](),
		reflect.TypeFor[*time.Timer](), reflect.TypeFor[context.Context](), reflect.TypeFor[rateWindow]():
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			d.put("nil;")
			return
		}
		at := v.UnsafePointer()
		if v.Type() == reflect.TypeFor[*operator]() && at != reflect.ValueOf(d.op).UnsafePointer() {
			return
		}
		if key := [2]any{at, v.Type()}; !d.seen[key] {
			d.seen[key] = true
			d.add(v.Elem())
		}
	case reflect.Interface:
		d.add(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			d.put(v.Type().Field(i).Name, ":")
			d.add(v.Field(i))
		}
	case reflect.Slice, reflect.Array:
		d.put(v.Len(), "[")
		for i := range v.Len() {
			d.add(v.Index(i))
		}
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		d.put(len(keys), "{")
		for _, key := range keys {
			d.put(key, "=")
			d.add(v.MapIndex(key))
		}
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
	default:
		d.put(v, ";")
	}
}

func TestStateOf(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	h := planted(t, s, "canary")
	before := stateOf(h.op)
	assert.Equal(t, before, stateOf(h.op))
	m, _ := h.op.missions.get(h.ids["mission_id"])
	passport, _ := h.op.passports.get(h.ids["jti"])
	tenant, _ := h.op.tenants.get(h.ids["tenant_id"])
	sk, _ := s.market.skills.get(h.ids["skill_id"])
	for name, change := range map[string]func(n int){
		"a number deep inside": func(n int) { m.Usage.Actions += n },
		"a list":               func(n int) { passport.claims.STK.Services[0].Scopes[0] = []string{"other", "", "chat:write"}[1-n] },
		"of a tenant":          func(n int) { tenant.account.packBytes += n },
		"of a skill":           func(n int) { sk.PricePerInvocation += n },
	} {
		change(1)
		assert.NotEqual(t, before, stateOf(h.op), name)
		change(-1)
		assert.Equal(t, before, stateOf(h.op), name)
	}
}
