package mockserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/getstack-go/stack"
	"github.com/getstack-go/stack/internal/mockserver/forward"
	"github.com/getstack-go/stack/internal/mockserver/script"
)

const defaultMaxTokens = 1024

// stepFailure is why a step, and with it the invocation, failed.
type stepFailure = stack.InvocationError

// execute runs the steps of an invocation, with nobody locked, and settles it.
func (s *Server) execute(ctx context.Context, inv *invocation) {
	ctx, cancel := context.WithTimeout(ctx, sealedSkillLife)
	defer cancel()
	run := &skillRun{server: s, inv: inv, input: inv.Input, deadline: time.Now().Add(sealedSkillLife)}
	output, failure := run.steps(ctx)
	if failure == nil {
		output, failure = run.result(output)
	}
	s.market.mu.Lock()
	if run.asked {
		inv.LLMTokensInput, inv.LLMTokensOutput = &run.tokensIn, &run.tokensOut
	}
	if now := s.clock.now(); failure != nil {
		inv.end(now, stack.InvocationFailed, nil, failure)
	} else {
		inv.end(now, stack.InvocationCompleted, output, nil)
	}
	s.market.mu.Unlock()
	s.settleInvocation(inv)
}

// skillRun is the execution of one invocation.
type skillRun struct {
	server              *Server
	inv                 *invocation
	input, prev         json.RawMessage
	deadline            time.Time
	asked               bool // a model
	tokensIn, tokensOut int
}

func (run *skillRun) steps(ctx context.Context) (json.RawMessage, *stepFailure) {
	run.prev = run.input
	for i, step := range run.inv.skill.ExecutionSteps {
		var failure *stepFailure
		if step.Type == stack.StepScript {
			run.prev, failure = run.script(step)
		} else {
			run.prev, failure = run.ask(ctx, step)
		}
		if failure != nil {
			failure.Message = fmt.Sprintf("step %d: %s", i+1, failure.Message)
			return nil, failure
		}
	}
	return run.prev, nil
}

// result makes the output of the last step's result: an object, that the output schema holds for.
func (run *skillRun) result(last json.RawMessage) (json.RawMessage, *stepFailure) {
	if !bytes.HasPrefix(bytes.TrimSpace(last), []byte("{")) {
		last = plainJSON(map[string]json.RawMessage{"result": last})
	}
	err := run.inv.skill.validate(run.inv.skill.output, "output", last)
	var refusal *apiError
	if errors.As(err, &refusal) {
		return nil, &stepFailure{Code: refusal.code, Message: refusal.message}
	}
	if err != nil {
		run.server.logger.Error("a skill's output cannot be validated", "invocation", run.inv.ID, "error", err)
		return nil, &stepFailure{Code: "INTERNAL", Message: "the output cannot be validated"}
	}
	return last, nil
}

func (run *skillRun) script(step stack.ExecutionStep) (json.RawMessage, *stepFailure) {
	limits := script.DefaultLimits
	limits.Time = min(limits.Time, max(time.Until(run.deadline), time.Millisecond))
	out, err := script.Run(step.Script, run.input, run.prev, limits)
	var failure *script.Error
	switch {
	case errors.As(err, &failure):
		return nil, &stepFailure{Code: "SCRIPT_" + strings.ToUpper(string(failure.Reason)), Message: failure.Message}
	case err != nil:
		run.server.logger.Error("the script engine failed", "invocation", run.inv.ID, "error", err)
		return nil, &stepFailure{Code: "INTERNAL", Message: "the script could not be run"}
	}
	return out, nil
}

// ask has a model answer, through the way of the gateway: the provider's address, and a key that is injected there.
func (run *skillRun) ask(ctx context.Context, step stack.ExecutionStep) (json.RawMessage, *stepFailure) {
	api := llmAPIs[stack.LLMProvider(step.LLMProvider)]
	conn, credential, err := run.credential(step.LLMProvider)
	if err != nil {
		return nil, &stepFailure{Code: "CREDENTIAL_MISSING", Message: err.Error()}
	}
	target, err := forward.ParseURL(api.url)
	if err != nil {
		return nil, &stepFailure{Code: "INTERNAL", Message: "the provider's address"}
	}
	run.asked = true
	resp, err := run.server.forward.Do(ctx, forward.Request{Method: http.MethodPost, URL: target, Headers: api.headers(llmIn{}),
		Body: run.prompt(api, step), Credential: credential, AllowedHosts: conn.AllowedHosts})
	var failure *forward.Error
	switch {
	case errors.As(err, &failure):
		return nil, &stepFailure{Code: failure.Code, Message: failure.Message}
	case err != nil:
		return nil, &stepFailure{Code: forward.CodeUnreachable, Message: "the model's provider cannot be reached"}
	case resp.Status >= 300:
		return nil, &stepFailure{Code: fmt.Sprintf("UPSTREAM_%d", resp.Status), Message: "the model's provider refused the request"}
	}
	return run.answer(resp.Body)
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

// answer reads the text and the tokens of a model's answer, in either shape.
func (run *skillRun) answer(body json.RawMessage) (json.RawMessage, *stepFailure) {
	var said struct {
		Content []textBlock `json:"content"`
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
		Usage struct {
			InputTokens      int `json:"input_tokens"`
			OutputTokens     int `json:"output_tokens"`
			PromptTokens     int `json:"prompt_tokens"`
			CompletionTokens int `json:"completion_tokens"`
		} `json:"usage"`
	}
	if err := json.Unmarshal(body, &said); err != nil || len(said.Content) == 0 && len(said.Choices) == 0 {
		return nil, &stepFailure{Code: "MODEL_ANSWER", Message: "the model's answer has no text"}
	}
	run.tokensIn += said.Usage.InputTokens + said.Usage.PromptTokens
	run.tokensOut += said.Usage.OutputTokens + said.Usage.CompletionTokens
	var text strings.Builder
	for _, block := range said.Content {
		text.WriteString(block.Text)
	}
	if len(said.Choices) > 0 {
		text.WriteString(said.Choices[0].Message.Content)
	}
	return plainJSON(text.String()), nil
}

// credential opens the key of a provider, of the side that the skill says.
func (run *skillRun) credential(provider string) (*connection, forward.Credential, error) {
	publisher, _ := run.server.operatorByID(run.inv.skill.OperatorID)
	sides := map[stack.CredentialMode][]*operator{stack.CredentialsBuyer: {run.inv.buyer},
		stack.CredentialsBoth: {run.inv.buyer, publisher}}[run.inv.skill.CredentialMode]
	if sides == nil {
		sides = []*operator{publisher}
	}
	for _, op := range sides {
		if op == nil {
			continue
		}
		if conn := op.connected(provider); conn != nil {
			credential, err := run.server.credentialOf(conn)
			return conn, credential, err
		}
	}
	return nil, forward.Credential{}, fmt.Errorf("no connection of %s (credential mode %s)", provider, run.inv.skill.CredentialMode)
}

// connected finds the newest connection of a provider, and copies it, since it is used with nobody locked.
func (op *operator) connected(provider string) *connection {
	op.mu.Lock()
	defer op.mu.Unlock()
	for conn := range op.connections.newest() {
		if conn.Provider == provider && conn.Status == stack.ConnectionConnected {
			found := *conn
			return &found
		}
	}
	return nil
}

var placeholder = regexp.MustCompile(`\$(INPUT|PREV)((?:\.[A-Za-z_][A-Za-z0-9_]*)*)`)

// fill puts values in the place of $INPUT and $PREV, and of $INPUT.name and $PREV.name. Text goes in as it is, all else as
// JSON, and what is not there as nothing. What was put in is not looked at again.
func (run *skillRun) fill(template string) string {
	return placeholder.ReplaceAllStringFunc(template, func(found string) string {
		parts := placeholder.FindStringSubmatch(found)
		raw := run.input
		if parts[1] == "PREV" {
			raw = run.prev
		}
		for _, name := range strings.Split(parts[2], ".")[1:] {
			var object map[string]json.RawMessage
			if json.Unmarshal(raw, &object) != nil {
				return ""
			}
			raw = object[name]
		}
		var text string
		if json.Unmarshal(raw, &text) == nil {
			return text
		}
		return string(raw)
	})
}
