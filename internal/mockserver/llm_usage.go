package mockserver

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/sse"
)

// llmTally reads a provider's answer along: what it used, what it said, whether it is whole.
type llmTally struct {
	provider stack.LLMProvider
	model    string
	tokens   stack.LLMTokens
	cost     *float64 // in cents

	events   sse.Decoder
	complete bool // the stream's last event was seen
	failed   bool // the provider reported an error in the stream
	texts    []*strings.Builder
	kept     int // bytes in texts
}

// llmAnswer is what is read of an answer, or of an event of one.
type llmAnswer struct {
	Type  string          `json:"type"`
	Model string          `json:"model"`
	Usage json.RawMessage `json:"usage"`
	Error json.RawMessage `json:"error"`

	Message struct { // of Anthropic's message_start
		Model string          `json:"model"`
		Usage json.RawMessage `json:"usage"`
	} `json:"message"`
	Index int `json:"index"`
	Delta struct {
		Text string `json:"text"`
	} `json:"delta"`

	Choices []struct {
		Index int `json:"index"`
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
	} `json:"choices"`
}

// document reads an answer that is not streamed.
func (t *llmTally) document(body json.RawMessage) {
	var a llmAnswer
	_ = json.Unmarshal(body, &a) // what has another shape is not there
	t.model = a.Model
	t.add(a.Usage)
}

// line reads one line of a stream.
func (t *llmTally) line(line []byte) {
	event, ok, err := t.events.Line(line)
	if err == nil && ok {
		t.event(event)
	}
}

// end reads what the stream's last line left.
func (t *llmTally) end() {
	if event, ok := t.events.Flush(); ok {
		t.event(event)
	}
}

func (t *llmTally) event(event sse.Event) {
	data := bytes.TrimSpace(event.Data)
	if string(data) == "[DONE]" {
		t.complete = true
		return
	}
	var a llmAnswer
	if !json.Valid(data) { // the beginning of an event, at the end of a cut stream
		return
	}
	_ = json.Unmarshal(data, &a) // what has another shape is not there
	kind := cmp.Or(event.Name, a.Type)
	t.failed = t.failed || kind == "error" || len(a.Error) > 0 && string(a.Error) != "null"
	t.complete = t.complete || kind == "message_stop" && t.provider == stack.LLMAnthropic
	t.model = cmp.Or(a.Model, a.Message.Model, t.model)
	t.add(a.Message.Usage)
	t.add(a.Usage)
	t.hear(a.Index, a.Delta.Text)
	for _, choice := range a.Choices {
		t.hear(choice.Index, choice.Delta.Content)
	}
}

// add takes in a usage object. Later ones of a stream tell the whole again, or a part of it.
func (t *llmTally) add(usage json.RawMessage) {
	tokens, ok := stack.ReadLLMTokens(t.provider, usage)
	if !ok {
		return
	}
	t.tokens = stack.LLMTokens{Input: cmp.Or(tokens.Input, t.tokens.Input), Output: cmp.Or(tokens.Output, t.tokens.Output),
		CacheRead: cmp.Or(tokens.CacheRead, t.tokens.CacheRead), CacheWrite: cmp.Or(tokens.CacheWrite, t.tokens.CacheWrite)}
	var price struct {
		Dollars *float64 `json:"cost"`
	}
	if json.Unmarshal(usage, &price) == nil && price.Dollars != nil && *price.Dollars >= 0 && *price.Dollars < 1e9 {
		cents := *price.Dollars * 100
		t.cost = &cents
	}
}

const (
	maxHeardTexts = 64      // blocks or choices of one stream whose text is remembered for the data-flow wall
	maxHeardBytes = 1 << 20 // of all of them
)

// hear keeps what the model says, so that the data-flow wall knows it again as it does an answer that is not streamed.
func (t *llmTally) hear(index int, text string) {
	if text == "" || index < 0 || index >= maxHeardTexts || t.kept+len(text) > maxHeardBytes {
		return
	}
	for len(t.texts) <= index {
		t.texts = append(t.texts, &strings.Builder{})
	}
	t.texts[index].WriteString(text)
	t.kept += len(text)
}

// count keeps the row of a call that is over.
func (call *llmCall) count(outcome stack.LLMOutcome) {
	op, p := call.op, call.passport
	op.mu.Lock()
	defer op.mu.Unlock()
	op.llmUsage.add(call.tally.row(stack.LLMUsage{Model: call.model, PassportJTI: p.jti(), MissionID: p.mission.MissionID,
		AgentID: p.agentID(), Stream: call.stream, Status: call.status, Outcome: outcome,
		Duration: call.server.clock.now().Sub(call.began), CreatedAt: call.began}))
}

// row completes the row of a call that is over with what was read of its answer.
func (t *llmTally) row(row stack.LLMUsage) stack.LLMUsage {
	row.ID, row.Provider, row.Model = newID("llmu_"), t.provider, clip(or(t.model, row.Model))
	row.LLMTokens, row.CostCents, row.Complete = t.tokens, t.cost, row.Outcome == stack.LLMCompleted
	return row
}

// llmHistory holds the calls to models, in the order in which they ended, and forgets the oldest when it is full.
type llmHistory struct {
	rows  []stack.LLMUsage
	first int // how many were forgotten
}

const maxLLMUsage = 10_000

func (h *llmHistory) add(row stack.LLMUsage) {
	if len(h.rows) == maxLLMUsage {
		const drop = maxLLMUsage / 10
		h.first += drop
		h.rows = slices.Delete(h.rows, 0, drop)
	}
	h.rows = append(h.rows, row)
}

// llmFilter selects calls to models.
type llmFilter struct {
	provider, passportJTI, missionID, agentID string
	since, until                              time.Time
}

func (f llmFilter) check() error {
	return firstError(oneOf("query.provider", f.provider, string(stack.LLMAnthropic), string(stack.LLMOpenAI),
		string(stack.LLMOpenRouter)), inOrder("query.until", f.since, f.until))
}

func (f llmFilter) takes(row *stack.LLMUsage) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	return is(f.provider, string(row.Provider)) && is(f.passportJTI, row.PassportJTI) && is(f.missionID, row.MissionID) &&
		is(f.agentID, row.AgentID) && !row.CreatedAt.Before(f.since) && (f.until.IsZero() || row.CreatedAt.Before(f.until))
}

type listLLMUsageIn struct {
	Limit       *int      `query:"limit"`
	Cursor      string    `query:"cursor"`
	Provider    string    `query:"provider"`
	PassportJTI string    `query:"passport_jti"`
	MissionID   string    `query:"mission_id"`
	AgentID     string    `query:"agent_id"`
	Since       time.Time `query:"since"`
	Until       time.Time `query:"until"`
}

// listLLMUsage pages from the newest on. A cursor names the place of the last row that was given, so that rows which come
// meanwhile move nothing.
func (s *Server) listLLMUsage(_ context.Context, c *caller, in listLLMUsageIn) (*stack.LLMUsagePage, error) {
	filter := llmFilter{in.Provider, in.PassportJTI, in.MissionID, in.AgentID, in.Since, in.Until}
	_, limit, err := paging(nil, in.Limit, 20)
	if err == nil {
		err = filter.check()
	}
	if err != nil {
		return nil, err
	}
	h := &c.op.llmUsage
	before := h.first + len(h.rows)
	if in.Cursor != "" {
		if before, err = readCursor(in.Cursor, before); err != nil {
			return nil, err
		}
	}
	out := &stack.LLMUsagePage{Items: []stack.LLMUsage{}}
	for i := before - h.first - 1; i >= 0; i-- {
		row := &h.rows[i]
		if !filter.takes(row) {
			continue
		}
		if len(out.Items) == limit {
			cursor := makeCursor(before)
			out.NextCursor = &cursor
			break
		}
		out.Items = append(out.Items, *row)
		before = h.first + i
	}
	return out, nil
}

const cursorPrefix = "llmu:"

func makeCursor(place int) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorPrefix + strconv.Itoa(place)))
}

// readCursor reads a cursor, whose place is at most end.
func readCursor(cursor string, end int) (int, error) {
	plain, err := base64.RawURLEncoding.DecodeString(cursor)
	digits, ok := strings.CutPrefix(string(plain), cursorPrefix)
	place, numErr := strconv.Atoi(digits)
	if err != nil || !ok || numErr != nil || place < 0 || place > end {
		return 0, invalid("query.cursor", cursor, "the next_cursor of an earlier page")
	}
	return place, nil
}

type summarizeLLMUsageIn struct {
	Provider     string    `query:"provider"`
	PassportJTI  string    `query:"passport_jti"`
	MissionID    string    `query:"mission_id"`
	AgentID      string    `query:"agent_id"`
	Since        time.Time `query:"since"`
	Until        time.Time `query:"until"`
	GroupByModel bool      `query:"group_by_model"`
}

func (s *Server) summarizeLLMUsage(_ context.Context, c *caller, in summarizeLLMUsageIn) (*stack.LLMUsageSummary, error) {
	filter := llmFilter{in.Provider, in.PassportJTI, in.MissionID, in.AgentID, in.Since, in.Until}
	if err := filter.check(); err != nil {
		return nil, err
	}
	out := &stack.LLMUsageSummary{Buckets: []stack.LLMUsageBucket{}}
	type key struct {
		provider stack.LLMProvider
		model    string
	}
	places := map[key]int{}
	for i := range c.op.llmUsage.rows {
		row := &c.op.llmUsage.rows[i]
		if !filter.takes(row) {
			continue
		}
		k := key{provider: row.Provider}
		if in.GroupByModel {
			k.model = row.Model
		}
		at, ok := places[k]
		if !ok {
			at = len(out.Buckets)
			places[k] = at
			out.Buckets = append(out.Buckets, stack.LLMUsageBucket{Provider: k.provider, Model: k.model})
		}
		addUp(&out.Totals, row)
		addUp(&out.Buckets[at].LLMUsageTotals, row)
	}
	slices.SortFunc(out.Buckets, func(a, b stack.LLMUsageBucket) int {
		return cmp.Or(cmp.Compare(a.Provider, b.Provider), cmp.Compare(a.Model, b.Model))
	})
	return out, nil
}

func addUp(sum *stack.LLMUsageTotals, row *stack.LLMUsage) {
	sum.Calls++
	if !row.Complete {
		sum.IncompleteCalls++
	}
	for _, c := range []struct{ to, n *int }{{&sum.InputTokens, row.Input}, {&sum.OutputTokens, row.Output},
		{&sum.CacheReadTokens, row.CacheRead}, {&sum.CacheWriteTokens, row.CacheWrite}} {
		if c.n != nil {
			*c.to += *c.n
		}
	}
	if row.CostCents != nil {
		total := *row.CostCents
		if sum.CostCents != nil {
			total += *sum.CostCents
		}
		sum.CostCents = &total
	}
}
