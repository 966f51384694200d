package mockserver

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/schema"
)

const (
	maxSkillRequests = 1000 // of all operators; the oldest goes
	maxMatches       = 50
	maxCompositions  = 20
	maxChained       = 200 // skills that a search for compositions looks at
)

func skillRequestRoutes() []route {
	return []route{
		endpoint("POST", "/v1/skill-requests", (*Server).postSkillRequest),
		endpoint("GET", "/v1/skill-requests", (*Server).listSkillRequests),
		endpoint("GET", "/v1/skill-requests/{request_id}", (*Server).getSkillRequest),
		endpoint("GET", "/v1/skill-requests/{request_id}/matches", (*Server).matchSkillRequest),
		endpoint("GET", "/v1/skill-requests/{request_id}/suggest", (*Server).suggestComposition),
	}
}

type postSkillRequestIn struct {
	Body stack.SkillRequestParams `body:""`
}

func (s *Server) postSkillRequest(_ context.Context, c *caller, in postSkillRequestIn) (*stack.SkillRequest, error) {
	p, now := in.Body, s.clock.now()
	price := 0
	replace(&price, p.MaxPriceCents)
	if err := firstError(
		filled("body.description", p.Description), atMost("body.description", p.Description, 1000),
		listAtMost("body.tags", p.Tags, maxSkillTags, maxSkillTag), distinct("body.tags", p.Tags),
		within("body.max_price_cents", price, 0, maxSkillPrice),
	); err != nil {
		return nil, err
	}
	r := &stack.SkillRequest{ID: newID("sreq_"), OperatorID: c.op.id, Description: p.Description, MaxPriceCents: p.MaxPriceCents,
		Tags: append([]string{}, p.Tags...), Status: "open", CreatedAt: now}
	for _, part := range []struct {
		field string
		given any
		raw   *json.RawMessage
	}{{"body.desired_input_schema", p.DesiredInputSchema, &r.DesiredInputSchema},
		{"body.desired_output_schema", p.DesiredOutputSchema, &r.DesiredOutputSchema}} {
		if part.given == nil {
			continue
		}
		raw, err := json.Marshal(part.given)
		if err != nil {
			return nil, err
		}
		if _, err = schema.Compile(raw); err != nil {
			return nil, refuseSchema(part.field, err)
		}
		*part.raw = raw
	}
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	if s.market.requests.len() >= maxSkillRequests {
		s.market.requests.delete(s.market.requests.order[0])
	}
	s.market.requests.put(r.ID, r)
	c.op.record(now, skillRow("skill_request.post", r.ID))
	return r, nil
}

type listSkillRequestsIn struct {
	Status string `query:"status"`
	Limit  int    `query:"limit"`
	Offset int    `query:"offset"`
}

func (s *Server) listSkillRequests(_ context.Context, _ *caller, in listSkillRequestsIn) (*[]stack.SkillRequest, error) {
	limit := or(in.Limit, 20)
	if err := firstError(oneOf("query.status", in.Status, "open"), within("query.limit", limit, 1, 100),
		within("query.offset", in.Offset, 0, maxSkillRequests)); err != nil {
		return nil, err
	}
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	list := []stack.SkillRequest{}
	skipped := 0
	for r := range s.market.requests.newest() {
		if skipped < in.Offset {
			skipped++
		} else if len(list) < limit {
			list = append(list, *r)
		}
	}
	return &list, nil
}

type skillRequestIn struct {
	RequestID string `path:"request_id"`
}

func (s *Server) getSkillRequest(_ context.Context, _ *caller, in skillRequestIn) (*stack.SkillRequest, error) {
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	return s.market.requestByID(in.RequestID)
}

func (m *market) requestByID(id string) (*stack.SkillRequest, error) {
	if r, ok := m.requests.get(id); ok {
		return r, nil
	}
	return nil, notFound("skill request", id)
}

// shape is what of an object's schema says which skills fit together: its members and their types.
type shape struct {
	types    map[string][]string // by member; nil takes any type
	required []string
	any      bool // nothing is said of the object
}

func shapeOf(raw json.RawMessage) shape {
	var s struct {
		Properties map[string]json.RawMessage `json:"properties"`
		Required   []string                   `json:"required"`
	}
	if json.Unmarshal(raw, &s) != nil || len(s.Properties) == 0 && len(s.Required) == 0 {
		return shape{any: true}
	}
	out := shape{types: map[string][]string{}, required: s.Required}
	for name, property := range s.Properties {
		var one struct{ Type string }
		var many struct{ Type []string }
		switch {
		case json.Unmarshal(property, &one) == nil && one.Type != "":
			out.types[name] = []string{one.Type}
		case json.Unmarshal(property, &many) == nil:
			out.types[name] = many.Type
		default:
			out.types[name] = nil
		}
	}
	return out
}

// gives reports whether an object of this shape can be taken for one of another: every member that the other requires is
// there, and of a type that it takes.
func (s shape) gives(other shape) bool {
	if other.any {
		return true
	}
	return !s.any && !slices.ContainsFunc(other.required, func(name string) bool {
		have, known := s.types[name]
		return !known || !slices.ContainsFunc(orAny(have), func(kind string) bool { return takes(other.types[name], kind) })
	})
}

func orAny(kinds []string) []string {
	if len(kinds) == 0 {
		return []string{""}
	}
	return kinds
}

func takes(kinds []string, kind string) bool {
	return len(kinds) == 0 || kind == "" || slices.Contains(kinds, kind) || kind == "integer" && slices.Contains(kinds, "number")
}

var word = regexp.MustCompile(`[a-z0-9]{4,}`)

func wordsOf(texts ...string) map[string]bool {
	words := map[string]bool{}
	for _, w := range word.FindAllString(strings.ToLower(strings.Join(texts, " ")), -1) {
		words[w] = true
	}
	return words
}

// match scores a skill for a request by what they have in common: tags count twice as much as words.
func match(r *stack.SkillRequest, sk *skill) stack.SkillMatch {
	m := stack.SkillMatch{SkillID: sk.ID, Name: sk.Name, PriceCents: sk.PricePerInvocation, SharedTags: []string{}}
	for _, tag := range r.Tags {
		if slices.Contains(sk.Tags, tag) {
			m.SharedTags = append(m.SharedTags, tag)
		}
	}
	asked, told := wordsOf(r.Description), wordsOf(sk.Name, sk.Description)
	maps.DeleteFunc(told, func(w string, _ bool) bool { return !asked[w] })
	m.SharedWords = sortedKeys(told)
	share := func(part, whole int) float64 { return float64(part) / float64(max(whole, 1)) }
	m.Score = share(len(told), len(asked))
	if len(r.Tags) > 0 {
		m.Score = (2*share(len(m.SharedTags), len(r.Tags)) + m.Score) / 3
	}
	return m
}

func affordable(r *stack.SkillRequest, cents int) bool {
	return r.MaxPriceCents == nil || cents <= *r.MaxPriceCents
}

func (s *Server) matchSkillRequest(_ context.Context, _ *caller, in skillRequestIn) (*stack.SkillMatches, error) {
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	r, err := s.market.requestByID(in.RequestID)
	if err != nil {
		return nil, err
	}
	given, wanted := shapeOf(r.DesiredInputSchema), shapeOf(r.DesiredOutputSchema)
	out := &stack.SkillMatches{RequestID: r.ID, Matches: []stack.SkillMatch{}}
	for sk := range s.market.skills.all() {
		if sk.Status != stack.SkillActive || !affordable(r, sk.PricePerInvocation) {
			continue
		}
		m := match(r, sk)
		m.SchemasFit = (given.any || given.gives(shapeOf(sk.InputSchema))) && shapeOf(sk.OutputSchema).gives(wanted)
		if m.SchemasFit && (m.Score > 0 || !wanted.any) {
			out.Matches = append(out.Matches, m)
		}
	}
	slices.SortStableFunc(out.Matches, func(a, b stack.SkillMatch) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.PriceCents, b.PriceCents))
	})
	out.Matches = out.Matches[:min(len(out.Matches), maxMatches)]
	return out, nil
}

// suggestComposition chains skills: the first takes what the request gives, each further one the output of the one before, and
// the last gives what is wanted.
func (s *Server) suggestComposition(_ context.Context, _ *caller, in skillRequestIn) (*stack.SkillSuggestions, error) {
	s.market.mu.Lock()
	defer s.market.mu.Unlock()
	r, err := s.market.requestByID(in.RequestID)
	if err != nil {
		return nil, err
	}
	out := &stack.SkillSuggestions{RequestID: r.ID, Compositions: []stack.SkillComposition{}}
	search := chainSearch{request: r, wanted: shapeOf(r.DesiredOutputSchema), out: out}
	given := shapeOf(r.DesiredInputSchema)
	if given.any || search.wanted.any {
		return out, nil
	}
	for sk := range s.market.skills.newest() {
		link := chainLink{sk, shapeOf(sk.InputSchema), shapeOf(sk.OutputSchema)}
		// What takes anything or says nothing of what it gives would fit everywhere, and so says nothing.
		if sk.Status == stack.SkillActive && !link.input.any && !link.output.any && len(search.links) < maxChained {
			search.links = append(search.links, link)
		}
	}
	search.extend(nil, shape{}, given, 0)
	slices.SortStableFunc(out.Compositions, func(a, b stack.SkillComposition) int {
		return cmp.Or(cmp.Compare(len(a.Steps), len(b.Steps)), cmp.Compare(a.PriceCents, b.PriceCents))
	})
	out.Compositions = out.Compositions[:min(len(out.Compositions), maxCompositions)]
	return out, nil
}

type chainLink struct {
	skill         *skill
	input, output shape
}

type chainSearch struct {
	request *stack.SkillRequest
	wanted  shape
	links   []chainLink
	out     *stack.SkillSuggestions
}

const longestChain = 3

// extend tries every skill that takes what the chain gives, and that could not do without the chain's last. A chain that is
// good enough is not made longer.
func (c *chainSearch) extend(chain []chainLink, before, given shape, price int) {
	for _, link := range c.links {
		cost := price + link.skill.PricePerInvocation
		used := slices.ContainsFunc(chain, func(other chainLink) bool { return other.skill == link.skill })
		if used || len(chain) > 0 && before.gives(link.input) || !affordable(c.request, cost) || !given.gives(link.input) || len(c.out.Compositions) >= 10*maxCompositions {
			continue
		}
		longer := append(slices.Clip(chain), link)
		switch {
		case link.output.gives(c.wanted):
			if len(longer) > 1 { // one alone is a match
				c.add(longer, cost)
			}
		case len(longer) < longestChain:
			c.extend(longer, given, link.output, cost)
		}
	}
}

func (c *chainSearch) add(chain []chainLink, price int) {
	composition := stack.SkillComposition{PriceCents: price}
	for _, link := range chain {
		m := match(c.request, link.skill)
		m.SchemasFit = true
		composition.Steps = append(composition.Steps, m)
	}
	c.out.Compositions = append(c.out.Compositions, composition)
}
