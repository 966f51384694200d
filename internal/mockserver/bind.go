package mockserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/getstack-go/stack"
)

// bind fills an endpoint's input from the request. Its fields say where from: path:"agent_id", query:"limit",
// header:"X-Passport-Token", body:"" for the JSON body, raw:"" for the bytes of a body that only its sender understands,
// headers:"" for all headers and rawquery:"a b" for the whole query, which may hold more than the parameters
// named. Anything else that is sent and that the input has no place for is refused.
func bind(in reflect.Value, r *http.Request, body []byte) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalid("query", r.URL.RawQuery, "name=value pairs with valid percent-encoding, joined by &")
	}
	known := map[string]bool{}
	hasBody := false
	for i := range in.NumField() {
		field, value := in.Type().Field(i), in.Field(i)
		if name, ok := field.Tag.Lookup("path"); ok {
			value.SetString(pathParam(r, name))
		} else if name, ok := field.Tag.Lookup("query"); ok {
			known[name] = true
			if err := setText("query."+name, value, query[name]); err != nil {
				return err
			}
		} else if name, ok := field.Tag.Lookup("header"); ok {
			if err := setText("header "+name, value, r.Header.Values(name)); err != nil {
				return err
			}
		} else if _, ok := field.Tag.Lookup("body"); ok {
			hasBody = true
			if err := decodeStrict(body, value.Addr().Interface()); err != nil {
				return err
			}
		} else if _, ok := field.Tag.Lookup("raw"); ok {
			hasBody = true
			value.SetBytes(body)
		} else if _, ok := field.Tag.Lookup("headers"); ok {
			value.Set(reflect.ValueOf(r.Header))
		} else if _, ok := field.Tag.Lookup("rawquery"); ok {
			value.SetString(r.URL.RawQuery)
			query = nil
		}
	}
	for name := range query {
		if !known[name] {
			return refuse(http.StatusBadRequest, "INVALID_REQUEST", "unknown query parameter "+clip(name), map[string]any{
				"check": "validation", "field": "query." + clip(name), "allowed": sortedKeys(known)})
		}
	}
	if trimmed := bytes.TrimSpace(body); !hasBody && len(trimmed) > 0 && string(trimmed) != "{}" {
		return refuse(http.StatusBadRequest, "INVALID_REQUEST", "this route takes no body", map[string]any{
			"check": "validation", "field": "body", "allowed": "nothing, or {}"})
	}
	return nil
}

// pathParam returns a path parameter with its percent-encoding undone: chi matches the encoded path.
func pathParam(r *http.Request, name string) string {
	raw := chi.URLParam(r, name)
	if r.URL.RawPath == "" {
		return raw
	}
	return unescapeSegment(raw)
}

// setText puts query or header values into a field of a simple type.
func setText(name string, field reflect.Value, values []string) error {
	if len(values) == 0 {
		return nil
	}
	if len(values) > 1 {
		return invalid(name, fmt.Sprintf("given %d times", len(values)), "given once")
	}
	text := values[0]
	if field.Kind() == reflect.Pointer {
		field.Set(reflect.New(field.Type().Elem()))
		field = field.Elem()
	}
	switch target := field.Addr().Interface().(type) {
	case *stack.Secret:
		*target = stack.NewSecret(text)
		return nil
	case *time.Time:
		at, err := parseMoment(text)
		if err != nil {
			return invalid(name, text, "an ISO-8601 time or epoch milliseconds")
		}
		*target = at
		return nil
	}
	switch field.Kind() {
	case reflect.String:
		field.SetString(text)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return invalid(name, text, "an integer")
		}
		field.SetInt(n)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return invalid(name, text, "true or false")
		}
		field.SetBool(b)
	default:
		panic("mockserver: no text form for " + field.Type().String())
	}
	return nil
}

// parseMoment reads the two forms of times in query strings.
func parseMoment(text string) (time.Time, error) {
	var at time.Time
	ms, err := strconv.ParseInt(text, 10, 64)
	if err == nil {
		at = time.UnixMilli(ms)
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", time.DateOnly} {
		if err == nil {
			break
		}
		at, err = time.Parse(layout, text)
	}
	if at = at.UTC(); at.Year() < 1 || at.Year() > 9999 {
		return time.Time{}, errors.New("a time that JSON cannot hold")
	}
	return at, err
}

// readBody takes the whole body, up to the route's limit, and checks that it claims to be JSON where the route wants that.
func readBody(w http.ResponseWriter, r *http.Request, to *route) ([]byte, error) {
	limit := to.maxBody
	// A caller who sends slowly holds nothing for long. Where the writer has no connection below, there is nobody slow.
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(bodyPatience))
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, refuse(http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE", fmt.Sprintf("the body is over %d bytes", limit),
			map[string]any{"check": "body_size", "allowed": limit})
	}
	if err != nil {
		return nil, invalid("body", "cut short", "as long as its Content-Length says, and whole within a minute")
	}
	_ = conn.SetReadDeadline(time.Time{}) // not before: the server reads what is left of a body that was given up
	if len(data) > 0 && !to.foreignBody {
		kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || kind != "application/json" {
			return nil, unsupportedMediaType(r)
		}
	}
	return data, nil
}

func unsupportedMediaType(r *http.Request) *apiError {
	return refuse(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", "the body must be application/json",
		map[string]any{"check": "content_type", "sent": clip(r.Header.Get("Content-Type")), "allowed": "application/json"})
}

// decodeStrict decodes one JSON object into the struct that out points to. Unlike encoding/json it takes names exactly as
// they are written, refuses unknown and repeated ones, demands those without omitempty or omitzero, and names the field
// that was wrong, what it was and what it may be.
func decodeStrict(data []byte, out any) error { return decodeStrictAs("body", data, out) }

// decodeStrictAs is decodeStrict for an object that errors call by a name of its own.
func decodeStrictAs(root string, data []byte, out any) error {
	if len(bytes.TrimSpace(data)) == 0 {
		data = []byte("{}")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	w := &strictWalk{dec: dec, root: root}
	if err := w.value(reflect.TypeOf(out).Elem(), root, false); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return invalid(root, "followed by more data", "one JSON object and nothing after it")
	}
	if err := json.Unmarshal(data, out); err != nil {
		return invalid(root, err.Error(), "valid")
	}
	return nil
}

// DecodeStrict decodes a file's one JSON object as strictly as the body of a request. Its errors name the field by its path
// from root, what it was and what it may be.
func DecodeStrict(root string, data []byte, out any) error {
	err := decodeStrictAs(root, data, out)
	var refusal *apiError
	if errors.As(err, &refusal) {
		err = errors.New(refusal.message)
		if names, ok := refusal.details["allowed"].([]string); ok {
			err = fmt.Errorf("%w; known are %s", err, strings.Join(names, ", "))
		}
	}
	return err
}

const maxDepth = 64

// strictWalk follows a JSON text and a Go type side by side.
type strictWalk struct {
	dec   *json.Decoder
	root  string // what errors call the whole
	depth int
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	timeType     = reflect.TypeFor[time.Time]()
	secretType   = reflect.TypeFor[stack.Secret]()
	rawType      = reflect.TypeFor[json.RawMessage]()
	anyType      = reflect.TypeFor[any]()
)

func (w *strictWalk) value(t reflect.Type, path string, nullable bool) error {
	if w.depth++; w.depth > maxDepth {
		return invalid(path, "nested too deeply", fmt.Sprintf("nested at most %d deep", maxDepth))
	}
	defer func() { w.depth-- }()
	for t.Kind() == reflect.Pointer {
		t, nullable = t.Elem(), true
	}
	token, err := w.dec.Token()
	if err != nil {
		return w.notJSON(err)
	}
	if t == anyType || t == rawType {
		return w.free(t, token, path)
	}
	if token == nil {
		if nullable {
			return nil
		}
		return invalid(path, "null", expected(t))
	}
	switch t {
	case durationType:
		return w.integer(token, path, math.MaxInt64/int64(time.Second), expected(t))
	case timeType:
		s, ok := token.(string)
		if _, err := time.Parse(time.RFC3339Nano, s); !ok || err != nil {
			return invalid(path, token, expected(t))
		}
		return nil
	case secretType:
		if _, ok := token.(string); !ok {
			return invalid(path, "[REDACTED]", "a string")
		}
		return nil
	}
	ok := false
	switch t.Kind() {
	case reflect.Struct:
		if token == json.Delim('{') {
			return w.object(t, path)
		}
	case reflect.Map:
		if token == json.Delim('{') {
			return w.members(path, func(name string) error { return w.value(t.Elem(), path+"."+name, false) })
		}
	case reflect.Slice:
		if token == json.Delim('[') {
			return w.elements(path, func(at string) error { return w.value(t.Elem(), at, false) })
		}
	case reflect.String:
		_, ok = token.(string)
	case reflect.Bool:
		_, ok = token.(bool)
	case reflect.Int, reflect.Int64:
		return w.integer(token, path, math.MaxInt64, expected(t))
	case reflect.Float64:
		return w.number(token, path)
	default:
		panic("mockserver: no JSON form for " + t.String())
	}
	if !ok {
		return invalid(path, describe(token), expected(t))
	}
	return nil
}

func (w *strictWalk) integer(token json.Token, path string, most int64, allowed string) error {
	n, ok := token.(json.Number)
	if !ok {
		return invalid(path, describe(token), allowed)
	}
	switch i, err := n.Int64(); {
	case errors.Is(err, strconv.ErrRange), i > most, i < -most:
		return invalid(path, n.String(), fmt.Sprintf("%s, at most %d", allowed, most))
	case err != nil:
		return invalid(path, n.String(), allowed)
	}
	return nil
}

func (w *strictWalk) number(token json.Token, path string) error {
	n, ok := token.(json.Number)
	if !ok {
		return invalid(path, describe(token), "a number")
	}
	if _, err := n.Float64(); err != nil {
		return invalid(path, n.String(), "a number that 64 bits can hold")
	}
	return nil
}

// object walks the members of a struct.
func (w *strictWalk) object(t reflect.Type, path string) error {
	fields := jsonFields(t)
	sent := map[string]bool{}
	err := w.members(path, func(name string) error {
		f, ok := fields.byName[name]
		if !ok {
			return refuse(http.StatusBadRequest, "INVALID_REQUEST", "unknown field "+clip(path+"."+name), map[string]any{
				"check": "validation", "field": clip(path + "." + name), "allowed": sortedKeys(fields.byName)})
		}
		sent[name] = true
		return w.value(f.typ, path+"."+name, f.optional)
	})
	if err != nil {
		return err
	}
	for _, name := range fields.required {
		if !sent[name] {
			return invalid(path+"."+name, nil, expected(fields.byName[name].typ))
		}
	}
	return nil
}

// members walks an object whose opening brace has been read, refusing repeated names.
func (w *strictWalk) members(path string, member func(name string) error) error {
	seen := map[string]bool{}
	for w.dec.More() {
		token, err := w.dec.Token()
		if err != nil {
			return w.notJSON(err)
		}
		name, _ := token.(string)
		if seen[name] {
			return invalid(clip(path+"."+name), "given twice", "given once")
		}
		seen[name] = true
		if err := member(name); err != nil {
			return err
		}
	}
	return w.closing()
}

// elements walks an array whose opening bracket has been read.
func (w *strictWalk) elements(path string, element func(at string) error) error {
	for i := 0; w.dec.More(); i++ {
		if err := element(path + "[" + strconv.Itoa(i) + "]"); err != nil {
			return err
		}
	}
	return w.closing()
}

// free walks a value of any shape, so that depth and repeated names are still checked. A raw one keeps numbers of any size.
func (w *strictWalk) free(t reflect.Type, token json.Token, path string) error {
	switch token {
	case json.Delim('{'):
		return w.members(path, func(name string) error { return w.value(t, path+"."+name, true) })
	case json.Delim('['):
		return w.elements(path, func(at string) error { return w.value(t, at, true) })
	}
	if _, ok := token.(json.Number); ok && t == anyType {
		return w.number(token, path)
	}
	return nil
}

func (w *strictWalk) closing() error {
	if _, err := w.dec.Token(); err != nil {
		return w.notJSON(err)
	}
	return nil
}

func (w *strictWalk) notJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return invalid(w.root, "cut short", "one whole JSON object")
	}
	return invalid(w.root, "not JSON ("+err.Error()+")", "one JSON object")
}

// jsonField is a field of a body as the wire knows it.
type jsonField struct {
	typ      reflect.Type
	optional bool
}

// structFields are the fields of a struct by their wire names, embedded structs included.
type structFields struct {
	byName   map[string]jsonField
	required []string // in order
}

var knownStructs sync.Map // reflect.Type → structFields

func jsonFields(t reflect.Type) structFields {
	if known, ok := knownStructs.Load(t); ok {
		return known.(structFields)
	}
	fields := structFields{byName: map[string]jsonField{}}
	for _, f := range reflect.VisibleFields(t) {
		tag, ok := f.Tag.Lookup("json")
		if !ok || tag == "-" || !f.IsExported() {
			continue
		}
		parts := strings.Split(tag, ",")
		optional := slices.Contains(parts, "omitempty") || slices.Contains(parts, "omitzero") || f.Type.Kind() == reflect.Pointer
		fields.byName[parts[0]] = jsonField{f.Type, optional}
	}
	for _, name := range sortedKeys(fields.byName) {
		if !fields.byName[name].optional {
			fields.required = append(fields.required, name)
		}
	}
	knownStructs.Store(t, fields)
	return fields
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// expected names a type as a caller would.
func expected(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case durationType:
		return "a whole number of seconds"
	case timeType:
		return "an ISO-8601 time"
	case anyType, rawType:
		return "present"
	case secretType:
		return "a string"
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice:
		return "an array"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "an integer"
	case reflect.Float64:
		return "a number"
	}
	return "a string"
}

// describe names a JSON token for a message.
func describe(token json.Token) any {
	switch v := token.(type) {
	case json.Delim:
		if v == '{' {
			return "an object"
		}
		return "an array"
	case json.Number:
		return v.String()
	}
	return token
}
