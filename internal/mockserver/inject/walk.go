package inject

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// walker visits the strings in a decoded JSON value.
type walker struct {
	visit func(text string) (stop bool)
	path  []string // to the string being visited
}

// where returns the place of the string being visited.
func (w *walker) where() string { return strings.Join(w.path, "") }

// Part is a named part of a content, such as the body of a request. Its name is no text of the content: it is not scanned.
type Part struct {
	Name  string
	Value any
}

// walk visits the strings in v and the names in its objects, until visit answers true; then it answers true too. Depth is
// how many levels of objects and arrays are entered; a negative one means all. Values that the JSON package would not
// decode to are walked as what it encodes them to.
func (w *walker) walk(v any, depth int) bool {
	switch v := v.(type) {
	case nil, bool, float64, json.Number:
		return false
	case string:
		return w.visit(v)
	case []Part:
		return slices.ContainsFunc(v, func(p Part) bool { return w.enter(p.Name, p.Value, depth) })
	case []any:
		for i := 0; i < len(v) && depth != 0; i++ {
			if w.enter("["+strconv.Itoa(i)+"]", v[i], depth-1) {
				return true
			}
		}
		return false
	case map[string]any:
		if depth == 0 {
			return false
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if w.enter(" (a name)", name, 0) || w.enter("."+name, v[name], depth-1) {
				return true
			}
		}
		return false
	}
	text, err := json.Marshal(v)
	if err != nil {
		return false // a channel, a function: nothing that could have travelled
	}
	var decoded any
	if json.Unmarshal(text, &decoded) != nil {
		return false
	}
	return w.walk(decoded, depth)
}

// enter walks a part of a value.
func (w *walker) enter(step string, v any, depth int) bool {
	w.path = append(w.path, step)
	stop := w.walk(v, depth)
	w.path = w.path[:len(w.path)-1]
	return stop
}
