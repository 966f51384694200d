package detect

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// walk calls visit with the strings in a decoded JSON value, with the names in objects too when names is true, until visit
// answers true; then it says where that was, as in ".items[2].text". Values that the JSON package would not decode to are
// walked as what it encodes them to.
func walk(v any, names bool, visit func(string) bool) (where string, found bool) {
	switch v := v.(type) {
	case nil, bool, float64, json.Number:
		return "", false
	case string:
		return "", visit(v)
	case []byte:
		return "", visit(string(v))
	case []any:
		return walkList(v, names, visit)
	case []string:
		return walkList(v, names, visit)
	case map[string]any:
		return walkMap(v, names, visit)
	case map[string]string:
		return walkMap(v, names, visit)
	case map[string][]string:
		return walkMap(v, names, visit)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return "", false // a channel, a function: nothing that could have travelled
	}
	var decoded any
	if err := json.Unmarshal(text, &decoded); err != nil {
		return "", false
	}
	return walk(decoded, names, visit)
}

func walkList[T any](list []T, names bool, visit func(string) bool) (string, bool) {
	for i, item := range list {
		if where, found := walk(item, names, visit); found {
			return "[" + strconv.Itoa(i) + "]" + where, true
		}
	}
	return "", false
}

func walkMap[T any](object map[string]T, names bool, visit func(string) bool) (string, bool) {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if names && visit(name) {
			return " (a name)", true
		}
		if where, found := walk(object[name], names, visit); found {
			return "." + name + where, true
		}
	}
	return "", false
}
