package stack_test

import (
	"context"
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/getstack-go/stack"
)

// Each method that gives one page has another, with the same parameters, that goes through all of them.
func TestEveryPagedListHasAnIterator(t *testing.T) {
	t.Parallel()
	paged := 0
	client := reflect.TypeFor[stack.Client]()
	for i := range client.NumField() {
		service := client.Field(i)
		if !service.IsExported() {
			continue
		}
		lists, iterators := map[string]string{}, map[string]bool{}
		for m := range service.Type.NumMethod() {
			method := service.Type.Method(m)
			parameters, pages := "", false
			for p := 1; p < method.Type.NumIn(); p++ {
				in := method.Type.In(p)
				parameters += in.String() + " "
				pages = pages || in.Kind() == reflect.Struct && hasAny(in, "Page", "Offset", "Cursor")
			}
			switch {
			case !pages:
			case method.Type.Out(0).Kind() == reflect.Func:
				iterators[parameters] = true
			case method.Type.In(1) == reflect.TypeFor[context.Context]():
				paged++
				lists[method.Name] = parameters
			}
		}
		for name, parameters := range lists {
			assert.True(t, iterators[parameters], "%s.%s has no iterator", service.Name, name)
		}
	}
	assert.GreaterOrEqual(t, paged, 10)
}

func hasAny(typ reflect.Type, fields ...string) bool {
	for _, name := range fields {
		if _, ok := typ.FieldByName(name); ok {
			return true
		}
	}
	return false
}
