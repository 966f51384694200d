package tool_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack/tool"
)

func named(t *testing.T, name string) *tool.Tool {
	t.Helper()
	made, err := tool.New(name, "d", func(context.Context, struct{}) (string, error) { return name, nil })
	require.NoError(t, err)
	return made
}

func TestSet(t *testing.T) {
	t.Parallel()
	b, a := named(t, "b"), named(t, "a")
	set, err := tool.NewSet(b, a)
	require.NoError(t, err)
	assert.Equal(t, []*tool.Tool{b, a}, set.All())

	set.All()[0] = nil
	assert.Equal(t, []*tool.Tool{b, a}, set.All())

	got, ok := set.Get("A")
	assert.True(t, ok)
	assert.Same(t, a, got)
	_, ok = set.Get("c")
	assert.False(t, ok)
}

func TestNewSetRefuses(t *testing.T) {
	t.Parallel()
	_, err := tool.NewSet(named(t, "post"), named(t, "Post"))
	require.EqualError(t, err, `tool set: the names "post" and "Post" differ in case at most`)
	_, err = tool.NewSet(named(t, "post"), nil)
	require.EqualError(t, err, `tool set: tool 1 is nil`)
	empty, err := tool.NewSet()
	require.NoError(t, err)
	assert.Empty(t, empty.All())
}
