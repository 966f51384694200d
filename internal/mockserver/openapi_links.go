package mockserver

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/getstack-go/stack/internal/mockserver/openapi"
)

var bracedName = regexp.MustCompile(`\{([^}]+)\}`)

// offer is a field that an answer always holds, or always in an object that it may hold.
type offer struct {
	owner, name string // of the object it is in: the name of its type, or of the field that has it
	value       string // the runtime expression
}

// manyKinds is a name that says too little: Missions, their reviews and identities have claims.
const manyKinds = "claim_id"

// link lets each answer of a POST lead to the operations on what it has made: those whose path takes a field of the answer.
// The other parameters must be in the path that was called; a path that was called by the same id is no news.
func (d *describer) link(doc *openapi.Document) {
	for i := range d.table {
		from := &d.table[i]
		answer := doc.Paths[from.pattern][strings.ToLower(from.method)].Responses[strconv.Itoa(from.success)]
		media, ok := answer.Content[jsonMedia]
		if from.method != http.MethodPost || !ok {
			continue
		}
		offers := d.offers(media.Schema, "", "$response.body#", true)
		for j := range d.table {
			to := &d.table[j]
			if params := linked(from, to, offers); params != nil {
				if answer.Links == nil {
					answer.Links = map[string]openapi.Link{}
				}
				answer.Links[to.name] = openapi.Link{OperationID: to.name, Parameters: params}
			}
		}
	}
}

// offers are the fields of an object, and with nested those of the objects in it. Secrets are none: they never travel in a URL.
func (d *describer) offers(schema *jsonschema.Schema, owner, at string, nested bool) (list []offer) {
	if len(schema.AnyOf) > 0 { // an object or null
		schema = schema.AnyOf[0]
	}
	if owner == "" {
		owner = strings.TrimPrefix(schema.Ref, schemaRoot)
	}
	object := d.resolve(schema)
	for _, name := range object.Required {
		if field := object.Properties[name]; field.Type == "string" && field.Format == "" && name != manyKinds {
			list = append(list, offer{owner, name, at + "/" + name})
		}
	}
	for _, name := range sortedKeys(object.Properties) {
		if field := object.Properties[name]; nested && (field.Ref != "" || len(field.AnyOf) > 0) {
			list = append(list, d.offers(field, name, at+"/"+name, false)...)
		}
	}
	return list
}

// linked gives each parameter in the path of to its value; nil when one is missing, or none is from the answer.
func linked(from, to *route, offers []offer) map[string]string {
	params, news := map[string]string{}, false
next:
	for _, m := range bracedName.FindAllStringSubmatch(to.pattern, -1) {
		if strings.Contains(from.pattern, m[0]) {
			params[m[1]] = "$request.path." + m[1]
			continue
		}
		for _, o := range offers {
			if o.fits(from, to, m[1]) {
				params[m[1]], news = o.value, true
				continue next
			}
		}
		return nil
	}
	if !news {
		return nil
	}
	return params
}

// fits says whether the field is what a path has for a parameter. By its own name it is that in its own part of the API and in
// the part that the parameter is named after; an id also by the name of its owner. Beneath the very path that was called a
// parameter may have the shorter name: {policy_id} of a FleetPolicy in /v1/fleets/.
func (o offer) fits(from, to *route, param string) bool {
	full := squash(o.owner + o.name)
	if o.name == param || full == squash(param) {
		return from.tag() == to.tag() || strings.HasPrefix(to.tag(), strings.TrimSuffix(param, "_id"))
	}
	static, _, _ := strings.Cut(to.pattern, "{")
	return strings.HasPrefix(from.pattern+"/", static) && strings.HasSuffix(full, squash(param))
}

// squash makes one of FleetPolicy and fleet_policy.
func squash(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }
