package stack

import (
	"context"
	"maps"
	"slices"
	"time"
)

// recent remembers what was used lately: at least limit entries, and at most twice as many. It is not safe for concurrent use.
type recent[V any] struct {
	limit      int
	young, old map[string]V
}

func (r *recent[V]) get(key string) (V, bool) {
	if v, ok := r.young[key]; ok {
		return v, true
	}
	v, ok := r.old[key]
	if ok {
		r.put(key, v)
	}
	return v, ok
}

func (r *recent[V]) put(key string, v V) {
	if r.young == nil || len(r.young) >= r.limit {
		r.old, r.young = r.young, make(map[string]V)
	}
	r.young[key] = v
}

// asked is a question under way or answered, for whose answer several may wait.
type asked[T any] struct {
	began time.Time
	done  chan struct{} // closed when the answer is there
	value T
	err   error
}

// ask asks in the background, for at most the given time: the question does not end with the one that asked first.
func ask[T any](ctx context.Context, timeout time.Duration, question func(context.Context) (T, error)) *asked[T] {
	a := &asked[T]{began: time.Now(), done: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	go func() {
		defer cancel()
		defer close(a.done)
		a.value, a.err = question(ctx)
	}()
	return a
}

// answered reports whether the answer is there.
func (a *asked[T]) answered() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// wait waits for the answer, or for the end of the context.
func (a *asked[T]) wait(ctx context.Context) (value T, err error) {
	select {
	case <-a.done:
		return a.value, a.err
	case <-ctx.Done():
		return value, ctx.Err()
	}
}

// clone copies the claims, so that nobody changes what another one was given.
func (c *PassportClaims) clone() *PassportClaims {
	out := *c
	stk := &out.STK
	stk.Services = slices.Clone(stk.Services)
	for i := range stk.Services {
		s := &stk.Services[i]
		s.Scopes, s.AllowDataFrom, s.Constraints = slices.Clone(s.Scopes), slices.Clone(s.AllowDataFrom), slices.Clone(s.Constraints)
		for j := range s.Constraints {
			s.Constraints[j].Value = cloneJSON(s.Constraints[j].Value)
		}
	}
	stk.IdentityClaims, stk.IntentRefs = cloneObjects(stk.IdentityClaims), cloneObjects(stk.IntentRefs)
	stk.MissionIDs, stk.IntentServices = slices.Clone(stk.MissionIDs), slices.Clone(stk.IntentServices)
	stk.AuthorityRefs = slices.Clone(stk.AuthorityRefs)
	return &out
}

func cloneObjects(list []map[string]any) []map[string]any {
	list = slices.Clone(list)
	for i, object := range list {
		list[i], _ = cloneJSON(object).(map[string]any)
	}
	return list
}

// cloneJSON copies a value as encoding/json makes them.
func cloneJSON(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := maps.Clone(v)
		for key, inner := range out {
			out[key] = cloneJSON(inner)
		}
		return out
	case []any:
		out := slices.Clone(v)
		for i, inner := range out {
			out[i] = cloneJSON(inner)
		}
		return out
	}
	return v
}
