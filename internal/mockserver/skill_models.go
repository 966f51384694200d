package mockserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/detect"
	"github.com/getstack-go/stack/internal/mockserver/forward"
)

const defaultMaxTokens = 1024

// modelCall is what an llm step sends to a model.
type modelCall struct {
	run   *skillRun
	api   llmAPI
	model string
	body  json.RawMessage
	op    *operator   // whose key it is sent with
	conn  *connection // that holds the key
	began time.Time
	tally llmTally
}

// ask has a model answer, on the way of the gateway: its providers, a key that is injected there, its treatment of what users
// say, its usage rows.
func (run *skillRun) ask(ctx context.Context, step stack.ExecutionStep) (json.RawMessage, *stepFailure) {
	s := run.server
	api := llmAPIs[stack.LLMProvider(step.LLMProvider)]
	call := &modelCall{run: run, api: api, model: step.LLMModel, tally: llmTally{provider: api.provider}, body: run.prompt(api, step)}
	if failure := call.findKey(); failure != nil {
		return nil, failure
	}
	credential, err := s.credentialOf(call.conn)
	if err != nil {
		return nil, &stepFailure{Code: "CREDENTIAL_MISSING", Message: err.Error()}
	}
	run.inv.buyer.mu.Lock()
	system, redactor := run.inv.buyer.shaping(run.inv.AgentID)
	run.inv.buyer.mu.Unlock()
	call.body = api.shape(call.body, system, redactor)
	run.asked = true
	call.began = s.clock.now()
	resp, status, err := call.send(ctx, credential)
	if err == nil {
		call.tally.document(resp.Body)
	}
	failure := call.failure(status, err)
	call.settle(status, err, failure)
	if failure != nil {
		return nil, failure
	}
	addTo(&run.tokensIn, call.tally.tokens.Input)
	addTo(&run.tokensOut, call.tally.tokens.Output)
	return modelText(resp.Body)
}

// prompt is a step's request in the shape of its provider.
func (run *skillRun) prompt(api llmAPI, step stack.ExecutionStep) json.RawMessage {
	config := stack.SkillLLMConfig{}
	if step.LLMConfig != nil {
		config = *step.LLMConfig
	}
	system, user := run.fill(config.SystemPrompt), run.fill(or(step.UserMessage, "$PREV"))
	request := map[string]any{"model": step.LLMModel, "max_tokens": or(config.MaxTokens, defaultMaxTokens)}
	messages := []any{map[string]string{"role": "user", "content": user}}
	switch {
	case system == "":
	case api.provider == stack.LLMAnthropic:
		request["system"] = system
	default:
		messages = append([]any{map[string]string{"role": "system", "content": system}}, messages...)
	}
	request["messages"] = messages
	if config.Temperature != nil {
		request["temperature"] = *config.Temperature
	}
	return plainJSON(request)
}

// addTo adds a count that may not be known.
func addTo(sum, n *int) {
	if n != nil {
		*sum += *n
	}
}

// findKey finds the connection whose key the call is sent with, on the side that the skill says.
func (call *modelCall) findKey() *stepFailure {
	inv := call.run.inv
	mode := inv.skill.CredentialMode
	if mode == stack.CredentialsBuyer || mode == stack.CredentialsBoth {
		if failure := call.findBuyersKey(); failure != nil || call.conn != nil {
			return failure
		}
	}
	if publisher, ok := call.run.server.operatorByID(inv.skill.OperatorID); ok && mode != stack.CredentialsBuyer {
		publisher.mu.Lock()
		defer publisher.mu.Unlock()
		call.take(publisher, publisher.connected(string(call.api.provider), inv.skill.by))
	}
	if call.conn == nil {
		return &stepFailure{Code: "CREDENTIAL_MISSING", Message: fmt.Sprintf("no connection of %s that may be used (credential mode %s)",
			call.api.provider, mode)}
	}
	return nil
}

// take copies a connection, since it is used with nobody locked.
func (call *modelCall) take(op *operator, conn *connection) {
	if conn != nil {
		found := *conn
		call.op, call.conn = op, &found
	}
}

// findBuyersKey finds a connection of the buyer's that who invokes may use: one that the passport reaches, or that the agent
// has a grant on, or any, and of a bound member only theirs. A passport's data-flow wall stands before it as before any call.
func (call *modelCall) findBuyersKey() *stepFailure {
	inv, provider := call.run.inv, string(call.api.provider)
	op, p := inv.buyer, inv.passport
	op.mu.Lock()
	defer op.mu.Unlock()
	id := ""
	switch {
	case p != nil:
		service, ok := p.service(provider)
		if !ok {
			return nil
		}
		id = service.ConnectionID
		var content any
		if err := json.Unmarshal(call.body, &content); err != nil {
			return &stepFailure{Code: "INTERNAL", Message: "the model's request"}
		}
		if f := p.mission.checkFlow(provider, service.AllowDataFrom, detect.Part{Name: "prompt", Value: content}); f != nil {
			op.raise(call.run.server.clock.now(), p, *f)
			return &stepFailure{Code: "DATA_FLOW_BLOCKED", Message: f.Message}
		}
	case inv.AgentID != "":
		for _, g := range op.grantsOf(inv.AgentID) { // of several connections of a provider, the newest granted
			if g.Provider == provider {
				id = g.ServiceConnectionID
			}
		}
	default:
		call.take(op, op.connected(provider, inv.by))
		return nil
	}
	if conn, ok := op.connections.get(id); ok && inv.by.reaches(id) {
		call.take(op, conn)
	}
	return nil
}

// connected finds the newest connection of a provider that a caller may use; nil when there is none.
func (op *operator) connected(provider string, by *caller) *connection {
	for conn := range op.connections.newest() {
		if conn.Provider == provider && conn.Status == stack.ConnectionConnected && by.reaches(conn.ID) {
			return conn
		}
	}
	return nil
}

// send sends the call and reads the whole answer. The status is 0 when there is none.
func (call *modelCall) send(ctx context.Context, credential forward.Credential) (*forward.Response, int, error) {
	target, err := forward.ParseURL(call.api.url)
	if err != nil {
		return nil, 0, err
	}
	answer, err := call.run.server.forward.Open(ctx, forward.Request{Method: http.MethodPost, URL: target,
		Headers: call.api.headers(llmIn{}), Body: call.body, Credential: credential, AllowedHosts: call.conn.AllowedHosts})
	if err != nil {
		return nil, 0, err
	}
	defer answer.Close()
	resp, err := answer.Response()
	return resp, answer.Status, err
}

func (call *modelCall) failure(status int, err error) *stepFailure {
	var failure *forward.Error
	switch {
	case errors.As(err, &failure):
		return &stepFailure{Code: failure.Code, Message: failure.Message}
	case err != nil:
		return &stepFailure{Code: forward.CodeUnreachable, Message: "the model's provider cannot be reached"}
	case status >= 300:
		return &stepFailure{Code: fmt.Sprintf("UPSTREAM_%d", status), Message: "the model's provider refused the request"}
	}
	return nil
}

// settle records the call with the operator whose key it was sent with: in its audit log and, once it was sent, among its
// calls to models. Of another operator's agents and passports it is not told.
func (call *modelCall) settle(status int, err error, failed *stepFailure) {
	inv, now := call.run.inv, call.run.server.clock.now()
	took := now.Sub(call.began)
	row := stack.AuditEntry{AgentID: inv.skill.AgentID, Action: actionLLM}
	usage := stack.LLMUsage{Model: call.model, AgentID: inv.skill.AgentID, Status: status, Outcome: stack.LLMCompleted,
		Duration: took, CreatedAt: call.began}
	if call.op == inv.buyer {
		row.AgentID, usage.AgentID = inv.AgentID, inv.AgentID
		if p := inv.passport; p != nil {
			row = p.row(actionLLM)
			usage.PassportJTI, usage.MissionID = p.jti(), p.mission.MissionID
		}
	}
	row.Layer, row.TraceID, row.Duration, row.PayloadHash = "vault", inv.ID, took, payloadHash(call.body)
	if failed != nil {
		row.Outcome, row.ErrorCode, row.ErrorMessage = stack.OutcomeFailure, failed.Code, failed.Message
	}
	switch {
	case err != nil && status == 0:
		usage.Outcome = stack.LLMNoAnswer
	case err != nil:
		usage.Outcome = stack.LLMIncomplete
	case failed != nil:
		usage.Outcome = stack.LLMUpstreamError
	}
	call.op.mu.Lock()
	defer call.op.mu.Unlock()
	call.op.record(now, row)
	var failure *forward.Error
	if !errors.As(err, &failure) || failure.Dispatched {
		call.op.llmUsage.add(call.tally.row(usage))
	}
}

// modelText reads the text of a model's answer, in either shape.
func modelText(body json.RawMessage) (json.RawMessage, *stepFailure) {
	var said struct {
		Content []textBlock `json:"content"`
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if err := json.Unmarshal(body, &said); err != nil || len(said.Content) == 0 && len(said.Choices) == 0 {
		return nil, &stepFailure{Code: "MODEL_ANSWER", Message: "the model's answer has no text"}
	}
	var text strings.Builder
	for _, block := range said.Content {
		text.WriteString(block.Text)
	}
	if len(said.Choices) > 0 {
		text.WriteString(said.Choices[0].Message.Content)
	}
	return plainJSON(text.String()), nil
}
