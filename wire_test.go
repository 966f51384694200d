package stack_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
)

func TestEveryTypeIsListed(t *testing.T) {
	t.Parallel()
	var listed []string
	for _, v := range exported {
		listed = append(listed, reflect.TypeOf(v).Name())
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || !spec.Name.IsExported() || spec.Name.Name == "Client" { // which shows its services
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok && showsFields(s) {
				found++
				assert.Contains(t, listed, spec.Name.Name, "add it to the list exported")
			}
			return true
		})
	}
	assert.Len(t, exported, found)
}

func showsFields(s *ast.StructType) bool {
	return slices.ContainsFunc(s.Fields.List, func(f *ast.Field) bool {
		return f.Names == nil || slices.ContainsFunc(f.Names, (*ast.Ident).IsExported)
	})
}

// onWire returns the types of the list that travel as JSON, by name.
func onWire() map[string]reflect.Type {
	types := map[string]reflect.Type{}
	for _, v := range exported {
		typ := reflect.TypeOf(v)
		travels := typ.Implements(reflect.TypeFor[json.Marshaler]())
		for _, f := range reflect.VisibleFields(typ) {
			name, ok := f.Tag.Lookup("json")
			travels = travels || ok && name != "-"
		}
		if travels {
			types[typ.Name()] = typ
		}
	}
	return types
}

// filler fills values: every field that has a value of its own, or only those that take says.
type filler struct {
	secret string
	wire   bool // leave out what does not travel
	take   func() bool
}

func (f filler) fill(v reflect.Value) {
	switch v.Interface().(type) {
	case stack.Secret:
		v.Set(reflect.ValueOf(stack.NewSecret(f.secret)))
		return
	case time.Time:
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
		return
	case time.Duration:
		v.SetInt(int64(90 * time.Second))
		return
	case json.RawMessage:
		v.SetBytes([]byte(`{"a":1}`))
		return
	case stack.CustomCredential: // one or the other
		v.Set(reflect.ValueOf(stack.CustomCredential{Token: stack.NewSecret(f.secret)}))
		return
	case *stack.Client, *http.Client, *slog.Logger: // no values, but what works
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("abcdefghijklmnopqrstuvwxyz")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Float64:
		v.SetFloat(0.25)
	case reflect.Interface:
		if v.NumMethod() == 0 {
			v.Set(reflect.ValueOf("any"))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		f.fill(v.Index(0))
	case reflect.Map:
		value := reflect.New(v.Type().Elem()).Elem()
		f.fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("name").Convert(v.Type().Key()), value)
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if !field.IsExported() || f.wire && field.Tag.Get("json") == "-" || f.take != nil && !field.Anonymous && !f.take() {
				continue
			}
			f.fill(v.Field(i))
		}
	case reflect.Func:
	default:
		panic("a field of a kind that no wire type had before: " + v.Type().String())
	}
}

// newFilled returns a pointer to a filled value.
func (f filler) newFilled(typ reflect.Type) reflect.Value {
	v := reflect.New(typ)
	f.fill(v.Elem())
	return v
}

// What is written can be read back, whatever is in it.
func TestWireTypesSurvive(t *testing.T) {
	t.Parallel()
	types := onWire()
	assert.Greater(t, len(types), 70)
	for name, typ := range types {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			full := filler{secret: canary, wire: true}.newFilled(typ)
			data, err := json.Marshal(full.Interface())
			require.NoError(t, err)
			assert.NotContains(t, string(data), "90000000000", "a duration in nanoseconds")
			back := reflect.New(typ)
			require.NoError(t, json.Unmarshal(data, back.Interface()), string(data))
			assert.Equal(t, full.Interface(), back.Interface(), "%s", data)

			random := rand.New(rand.NewPCG(1, 2))
			some := filler{secret: canary, wire: true, take: func() bool { return random.IntN(2) == 0 }}
			values := []reflect.Value{reflect.New(typ)}
			for range 50 {
				values = append(values, some.newFilled(typ))
			}
			for _, v := range values {
				first, err := json.Marshal(v.Interface())
				require.NoError(t, err)
				back := reflect.New(typ)
				require.NoError(t, json.Unmarshal(first, back.Interface()), string(first))
				second, err := json.Marshal(back.Interface())
				require.NoError(t, err)
				assert.Equal(t, string(first), string(second))
			}
		})
	}
}

// The client is lenient in what it reads: a null is nothing, and what it does not know is left out.
func TestWireTypesTakeNullsAndUnknownFields(t *testing.T) {
	t.Parallel()
	for name, typ := range onWire() {
		data, err := json.Marshal(filler{secret: canary, wire: true}.newFilled(typ).Interface())
		require.NoError(t, err)
		var fields map[string]json.RawMessage
		if json.Unmarshal(data, &fields) != nil {
			continue // no object
		}
		for field := range fields {
			changed := map[string]json.RawMessage{"unknown_field": json.RawMessage(`{"a":[1]}`)}
			for k, v := range fields {
				changed[k] = v
			}
			changed[field] = json.RawMessage("null")
			data, err := json.Marshal(changed)
			require.NoError(t, err)
			assert.NoError(t, json.Unmarshal(data, reflect.New(typ).Interface()), "%s: %s", name, data)
		}
	}
}

// The wire counts whole seconds: part of one is refused, not lost.
func TestFractionsOfSecondsAreRefused(t *testing.T) {
	t.Parallel()
	checked := 0
	for name, typ := range onWire() {
		for _, f := range reflect.VisibleFields(typ) {
			wire, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Type != reflect.TypeFor[time.Duration]() || wire == "" || wire == "-" {
				continue
			}
			checked++
			v := reflect.New(typ).Elem()
			v.FieldByIndex(f.Index).SetInt(int64(90*time.Second + 250*time.Microsecond))
			data, err := json.Marshal(v.Interface())
			if strings.HasSuffix(wire, "_ms") {
				require.NoError(t, err)
				assert.Contains(t, string(data), fmt.Sprintf("%q:90000.25", wire), name)
			} else {
				assert.ErrorContains(t, err, "is not a whole number of seconds", "%s.%s", name, f.Name)
			}
		}
	}
	assert.Greater(t, checked, 8)
}

func TestUnitsOfTheWire(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(stack.PassportRefreshParams{Token: stack.NewSecret("t"), TTL: 15 * time.Minute})
	require.NoError(t, err)
	assert.JSONEq(t, `{"token":"t","ttl_seconds":900}`, string(data))

	var p stack.PassportRefreshParams
	require.NoError(t, json.Unmarshal([]byte(`{"ttl_seconds":1.5}`), &p))
	assert.Equal(t, 1500*time.Millisecond, p.TTL)
	for _, bad := range []string{`"90"`, `1e300`, `-1e300`, `{}`, `true`} {
		require.Error(t, json.Unmarshal([]byte(`{"ttl_seconds":`+bad+`}`), &p), bad)
	}

	var e stack.AuditEntry
	require.NoError(t, json.Unmarshal([]byte(`{"timestamp":1767323045123,"duration_ms":12.5}`), &e))
	assert.Equal(t, time.Date(2026, 1, 2, 3, 4, 5, 123_000_000, time.UTC), e.Timestamp)
	assert.Equal(t, 12500*time.Microsecond, e.Duration)
	for _, bad := range []string{`"2026-01-02T03:04:05Z"`, `1.5`, `[]`} {
		require.Error(t, json.Unmarshal([]byte(`{"timestamp":`+bad+`}`), &e), bad)
	}

	var page stack.AuditPage
	require.NoError(t, json.Unmarshal([]byte(`{"max_timestamp":null}`), &page))
	assert.True(t, page.MaxTimestamp.IsZero())
	data, err = json.Marshal(page)
	require.NoError(t, err)
	assert.Contains(t, string(data), `"max_timestamp":null`)
}

func TestCustomCredentialHasTwoForms(t *testing.T) {
	t.Parallel()
	for wire, want := range map[string]stack.CustomCredential{
		`"a<b"`:              {Token: stack.NewSecret("a<b")},
		`{"password":"a<b"}`: {Fields: map[string]stack.Secret{"password": stack.NewSecret("a<b")}},
		`{"a":"1","b":"2"}`:  {Fields: map[string]stack.Secret{"a": stack.NewSecret("1"), "b": stack.NewSecret("2")}},
	} {
		var c stack.CustomCredential
		require.NoError(t, json.Unmarshal([]byte(wire), &c))
		assert.Equal(t, want, c)
		data, err := c.MarshalJSON()
		require.NoError(t, err)
		assert.Equal(t, wire, string(data))
	}
	var c stack.CustomCredential
	err := json.Unmarshal([]byte(`["`+canary+`"]`), &c)
	require.Error(t, err)
	assert.NotContains(t, err.Error(), canary)
}

// A list of a hundred passports, as the poll of a busy client reads it.
func BenchmarkDecodePassportList(b *testing.B) {
	list := make([]stack.ActivePassport, 100)
	for i := range list {
		filler{wire: true}.fill(reflect.ValueOf(&list[i]).Elem())
	}
	data, err := json.Marshal(list)
	require.NoError(b, err)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		var out []stack.ActivePassport
		require.NoError(b, json.Unmarshal(data, &out))
	}
}

// enumTypes are the string types with a name that a type holds somewhere.
func enumTypes(typ reflect.Type, into map[reflect.Type]bool, seen map[reflect.Type]bool) {
	if seen[typ] {
		return
	}
	seen[typ] = true
	switch typ.Kind() {
	case reflect.String:
		if typ.PkgPath() != "" {
			into[typ] = true
		}
	case reflect.Pointer, reflect.Slice:
		enumTypes(typ.Elem(), into, seen)
	case reflect.Map:
		enumTypes(typ.Key(), into, seen)
		enumTypes(typ.Elem(), into, seen)
	case reflect.Struct:
		for _, f := range reflect.VisibleFields(typ) {
			if f.IsExported() {
				enumTypes(f.Type, into, seen)
			}
		}
	}
}

// A value that a later server adds to an enum is kept, and goes back as it came.
func TestEnumsKeepUnknownValues(t *testing.T) {
	t.Parallel()
	enums, seen := map[reflect.Type]bool{}, map[reflect.Type]bool{}
	for _, v := range exported {
		enumTypes(reflect.TypeOf(v), enums, seen)
	}
	assert.Greater(t, len(enums), 60)
	for typ := range enums {
		v := reflect.New(typ)
		require.NoError(t, json.Unmarshal([]byte(`"Of a later_day"`), v.Interface()), typ)
		assert.Equal(t, "Of a later_day", v.Elem().String(), typ)
		data, err := json.Marshal(v.Interface())
		require.NoError(t, err)
		assert.Equal(t, `"Of a later_day"`, string(data), typ)
	}
}
