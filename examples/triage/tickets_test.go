package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadTickets(t *testing.T) {
	t.Parallel()
	lines := []string{
		`{"id":"T-1","subject":"one"}`,
		``,
		`not json`,
		`{"id":"T-2"}`,
		`{"subject":"no id"}`,
		`{"id":"T-1","subject":"again"}`,
		`{"id":"T-3","subject":"x"} {"id":"T-4","subject":"y"}`,
		`{"id":"T-5","subject":"` + strings.Repeat("long", maxLine) + `"}`,
		"{\"id\":\"T-6\",\"subject\":\"\xff\"}",
		`["a list"]`,
		`{"id":"T-7","subject":"last, without a newline"}`,
	}
	skipped := map[int]string{}
	tickets, n, err := readTickets(strings.NewReader(strings.Join(lines, "\n")), func(line int, problem error) { skipped[line] = problem.Error() })
	require.NoError(t, err)
	var ids []string
	for _, ticket := range tickets {
		ids = append(ids, ticket.ID)
	}
	assert.Equal(t, []string{"T-1", "T-7"}, ids)
	assert.Equal(t, len(skipped), n)
	for line, want := range map[int]string{3: "not a ticket in JSON", 4: `"subject" is missing`, 5: `"id" is missing`, 6: "stands on line 1",
		7: "more than one", 8: "longer than", 9: "UTF-8", 10: "not a ticket in JSON"} {
		assert.Contains(t, skipped[line], want, line)
	}
	assert.Len(t, skipped, 8)
}

func TestSampleTickets(t *testing.T) {
	t.Parallel()
	tickets, skipped, err := readTickets(strings.NewReader(sampleTickets), func(line int, problem error) { t.Errorf("line %d: %s", line, problem) })
	require.NoError(t, err)
	assert.Zero(t, skipped)
	require.Len(t, tickets, 20)
	used := map[string]bool{}
	for _, ticket := range tickets {
		used[acknowledge(prompt(ticket)).Channel] = true
	}
	assert.Len(t, used, len(channels), "the sample has something for each channel")
}

func FuzzReadTickets(f *testing.F) {
	f.Add([]byte(sampleTickets))
	f.Add([]byte("{\"id\":\"a\",\"subject\":\"b\"}\r\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		calls := 0
		tickets, skipped, err := readTickets(bytes.NewReader(data), func(line int, _ error) {
			calls++
			assert.LessOrEqual(t, line, bytes.Count(data, []byte("\n"))+1)
		})
		require.NoError(t, err)
		assert.Equal(t, calls, skipped)
		seen := map[string]bool{}
		for _, ticket := range tickets {
			assert.NotEmpty(t, strings.TrimSpace(ticket.ID))
			assert.False(t, seen[ticket.ID])
			seen[ticket.ID] = true
		}
	})
}
