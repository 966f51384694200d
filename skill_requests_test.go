package stack_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/stacktest"
)

func TestSkillRequests(t *testing.T) {
	t.Parallel()
	srv := stacktest.New(t)
	client := srv.Client()
	price := 50
	asked, err := client.Skills.PostRequest(t.Context(), stack.SkillRequestParams{Description: "Translate texts", Tags: []string{"text"},
		DesiredInputSchema: object("text"), DesiredOutputSchema: object("french"), MaxPriceCents: &price})
	require.NoError(t, err)
	assert.Regexp(t, `^sreq_`, asked.ID)
	assert.Equal(t, srv.OperatorID(), asked.OperatorID)
	assert.Equal(t, "open", asked.Status)
	got, err := client.Skills.GetRequest(t.Context(), asked.ID)
	require.NoError(t, err)
	assert.Equal(t, asked, got)
	for range 3 {
		_, err = client.Skills.PostRequest(t.Context(), stack.SkillRequestParams{Description: "More"})
		require.NoError(t, err)
	}
	page, err := client.Skills.ListRequests(t.Context(), stack.SkillRequestListParams{Status: "open", Limit: 2, Offset: 2})
	require.NoError(t, err)
	require.Len(t, page, 2)
	assert.Equal(t, asked.ID, page[1].ID, "newest first")
	n := 0
	for _, err := range client.Skills.AllRequests(t.Context(), stack.SkillRequestListParams{Limit: 1}) {
		require.NoError(t, err)
		n++
	}
	assert.Equal(t, 4, n)

	_, err = client.Skills.PostRequest(t.Context(), stack.SkillRequestParams{})
	requireParam(t, err, "description")
	negative := -1
	for field, params := range map[string]stack.SkillRequestParams{
		"body.description":           {Description: strings.Repeat("x", 1001)},
		"body.tags[0]":               {Description: "x", Tags: []string{""}},
		"body.max_price_cents":       {Description: "x", MaxPriceCents: &negative},
		"body.desired_input_schema":  {Description: "x", DesiredInputSchema: map[string]any{"type": 1}},
		"body.desired_output_schema": {Description: "x", DesiredOutputSchema: "no"},
	} {
		_, err = client.Skills.PostRequest(t.Context(), params)
		assert.Equal(t, field, requireRefused(t, err, 400, "INVALID_REQUEST").Details["field"])
	}
	for field, params := range map[string]stack.SkillRequestListParams{"query.limit": {Limit: 101}, "query.offset": {Offset: -1},
		"query.status": {Status: "closed"}} {
		_, err = client.Skills.ListRequests(t.Context(), params)
		assert.Equal(t, field, requireRefused(t, err, 400, "INVALID_REQUEST").Details["field"])
	}
	for _, err := range []error{failure(client.Skills.GetRequest(t.Context(), "sreq_none")),
		failure(client.Skills.GetRequestMatches(t.Context(), "sreq_none")),
		failure(client.Skills.SuggestComposition(t.Context(), "sreq_none"))} {
		requireRefused(t, err, 404, "NOT_FOUND")
	}
}

// Matches follow from schemas and price; tags and words put them in order.
func TestSkillRequestMatches(t *testing.T) {
	t.Parallel()
	client := stacktest.New(t).Client()
	offer := func(name string, in, out map[string]any, price int, tags ...string) {
		p := shout()
		p.Name, p.Description, p.InputSchema, p.OutputSchema, p.PricePerInvocation, p.Tags = name, "Will "+name, in, out, price, tags
		publish(t, client, p)
	}
	count := object("text", "count")
	count["properties"].(map[string]any)["count"] = map[string]any{"type": "integer"}
	ratio := object("text", "count")
	ratio["properties"].(map[string]any)["count"] = map[string]any{"type": []string{"number", "null"}}
	offer("translate", object("text"), object("french"), 10, "text", "language")
	offer("translate-dear", object("text"), object("french"), 1000, "text", "language")
	offer("translate-more", object("text", "glossary"), object("french"), 10, "text", "language")
	offer("count", object("text"), count, 10, "text")
	offer("weigh", ratio, object("weight"), 10)
	offer("print", object("weight"), object("page"), 10)

	max := 100
	matches := func(p stack.SkillRequestParams) []string {
		p.MaxPriceCents = &max
		asked, err := client.Skills.PostRequest(t.Context(), p)
		require.NoError(t, err)
		found, err := client.Skills.GetRequestMatches(t.Context(), asked.ID)
		require.NoError(t, err)
		list := []string{}
		for _, m := range found.Matches {
			list = append(list, m.Name)
			assert.True(t, m.SchemasFit)
		}
		return list
	}
	chains := func(p stack.SkillRequestParams) []string {
		p.MaxPriceCents = &max
		asked, err := client.Skills.PostRequest(t.Context(), p)
		require.NoError(t, err)
		found, err := client.Skills.SuggestComposition(t.Context(), asked.ID)
		require.NoError(t, err)
		list := []string{}
		for _, c := range found.Compositions {
			var steps []string
			for _, step := range c.Steps {
				steps = append(steps, step.Name)
			}
			list = append(list, strings.Join(steps, " > "))
			assert.Equal(t, 10*len(steps), c.PriceCents)
		}
		return list
	}
	ask := func(text string, in, out map[string]any, tags ...string) stack.SkillRequestParams {
		p := stack.SkillRequestParams{Description: text, Tags: tags}
		if in != nil {
			p.DesiredInputSchema = in
		}
		if out != nil {
			p.DesiredOutputSchema = out
		}
		return p
	}
	assert.Equal(t, []string{"translate"}, matches(ask("French", object("text"), object("french"))), "not what needs more, nor what costs more")
	assert.Equal(t, []string{"translate", "translate-more"}, matches(ask("French", nil, object("french"), "language")))
	assert.Equal(t, []string{"translate", "translate-more", "count"}, matches(ask("please translate", nil, nil, "text")))
	assert.Empty(t, matches(ask("Something else", nil, nil)))
	assert.Empty(t, matches(ask("French", object("sound"), object("french"))))

	assert.Equal(t, []string{"count > weigh"}, chains(ask("Weight", object("text"), object("weight"))), "an integer is a number")
	assert.Equal(t, []string{"count > weigh > print"}, chains(ask("Page", object("text"), object("page"))))
	assert.Empty(t, chains(ask("French", object("text"), object("french"))), "one alone is a match and no composition")
	assert.Empty(t, chains(ask("Page", nil, object("page"))))
	max = 25
	assert.Empty(t, chains(ask("Page", object("text"), object("page"))), "three cost 30")
}
