package mockserver

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/getstack-go/stack"
)

const (
	approvalPath  = "/sdk-bootstrap" // (contract: endpoints 4.6)
	ticketPrefix  = "etk_"
	ticketLife    = 5 * time.Minute // (contract: semantics 20)
	maxTickets    = 1000
	maxAskerLabel = 80 // characters (contract: endpoints 4.6)
)

// approvalPage is where a person approves that an agent gets a key of its own. On the hosted service it is the dashboard's.
var approvalPage = template.Must(template.New("page").Parse(pageHead + `
<title>A key for an agent (mock)</title>
<h1>A key for {{.AgentID}}</h1>
<p>{{or .Process "A program"}} on {{or .Machine "a machine that does not say its name"}} asks for a key, with which it may then
call as this agent. The key does not leave that machine.</p>
{{with .Problem}}<p role="alert"><strong>{{.}}</strong></p>{{end}}
<form method="post">
<p><label>API key of your account<br><input type="password" name="api_key" autocomplete="off" autofocus></label></p>
<button name="decision" value="approve">Approve</button>
<button name="decision" value="deny">Deny</button>
</form>
</html>
`))

func agentApprovalRoutes() []route {
	return []route{
		endpoint("GET", approvalPath, (*Server).showApproval, webPage, sendsOn),
		endpoint("POST", approvalPath, (*Server).approveKeyOnPage, webPage, sendsOn, foreignBody),
	}
}

// keyRequest is what a program asks a person for.
type keyRequest struct {
	agentID, callback, state, machine, process string
}

func readKeyRequest(query string) (k keyRequest, refusal *apiError) {
	form, refusal := formOf(query)
	if refusal != nil {
		return k, refusal
	}
	k = keyRequest{form["agent_id"], form["callback"], form["state"], form["machine"], form["process"]}
	switch u, err := url.Parse(k.callback); {
	case !strings.HasPrefix(k.agentID, "agt_") || len(k.agentID) > maxClientName:
		return k, invalid("agent_id", or(k.agentID, "missing"), "the id of an agent (agt_…)")
	case err != nil || u.Scheme != "http" || !mayRedirectTo(k.callback):
		return k, invalid("callback", or(k.callback, "missing"), "an http address of the loopback interface, without user information and fragment")
	case k.state == "" || len(k.state) > maxState:
		return k, invalid("state", fmt.Sprintf("%d bytes", len(k.state)), fmt.Sprintf("1 to %d bytes that cannot be guessed", maxState))
	case utf8.RuneCountInString(k.machine) > maxAskerLabel:
		return k, invalid("machine", k.machine, fmt.Sprintf("at most %d characters", maxAskerLabel))
	case utf8.RuneCountInString(k.process) > maxAskerLabel:
		return k, invalid("process", k.process, fmt.Sprintf("at most %d characters", maxAskerLabel))
	}
	return k, nil
}

type approvalIn struct {
	Query string `rawquery:"agent_id callback state machine process"`
}

func (s *Server) showApproval(_ context.Context, _ *caller, in approvalIn) (*document, error) {
	k, refusal := readKeyRequest(in.Query)
	if refusal != nil {
		return problemPage("A key cannot be approved", refusal)
	}
	return k.page("")
}

type approveKeyIn struct {
	Query       string `rawquery:"agent_id callback state machine process"`
	ContentType string `header:"Content-Type"`
	Raw         []byte `raw:""`
}

// approveKeyOnPage is what the buttons of the page do.
func (s *Server) approveKeyOnPage(_ context.Context, _ *caller, in approveKeyIn) (*document, error) {
	k, refusal := readKeyRequest(in.Query)
	var form map[string]string
	if refusal == nil {
		form, refusal = readDecision(in.ContentType, in.Raw)
	}
	if refusal != nil {
		return problemPage("A key cannot be approved", refusal)
	}
	location, refusal := s.decideKey(k, form["api_key"], form["decision"] == "approve")
	if refusal != nil {
		return k.page("This is not possible: " + refusal.message + ".")
	}
	return redirect(location), nil
}

func (k keyRequest) page(problem string) (*document, error) {
	return pageToSendOn(approvalPage, k.callback, problem, map[string]any{"AgentID": k.agentID, "Machine": k.machine, "Process": k.process})
}

// decideKey gives the program a ticket when the person approves, is who the key says and may enrol keys, or else tells it of the
// refusal. The account learns of both, of a refusal where it is known who refuses.
func (s *Server) decideKey(k keyRequest, key string, approve bool) (location string, refusal *apiError) {
	denied := withAnswer(k.callback, url.Values{"error": {"access_denied"}, "state": {k.state}})
	c, refusal := s.personOf(key)
	if refusal != nil {
		if !approve {
			return denied, nil
		}
		return "", refusal
	}
	c.op.mu.Lock()
	defer c.op.mu.Unlock()
	now := s.clock.now()
	c.op.sweep(now)
	_, has := c.op.agents.get(k.agentID)
	switch {
	case !approve:
		if has {
			c.op.record(now, stack.AuditEntry{AgentID: k.agentID, Action: "agent.enrollment_deny", Outcome: stack.OutcomeBlocked})
		}
		return denied, nil
	case !has:
		return "", notFound("agent", k.agentID)
	case c.member != nil && c.member.Role == stack.RoleReadonly:
		return "", forbidden("readonly members approve no keys", map[string]any{"check": "role", "sent": c.member.Role,
			"allowed": []stack.TeamRole{stack.RoleStandard, stack.RoleAdmin}})
	}
	ticket := newID(ticketPrefix) + newID("")
	s.keys.addTicket(ticket, &enrollTicket{agentID: k.agentID, key: hashKey(key), expiresAt: now.Add(ticketLife)}, now)
	c.op.record(now, stack.AuditEntry{AgentID: k.agentID, Action: "agent.enrollment_approve"})
	return withAnswer(k.callback, url.Values{"ticket": {ticket}, "state": {k.state}}), nil
}

// enrollTicket lets its holder enrol one key for one agent.
type enrollTicket struct {
	agentID   string
	key       keyHash // of who approved; when that key ends, the ticket does
	expiresAt time.Time
}

// ticketRoutes are the routes that a ticket opens. (contract: server-api 2.4)
var ticketRoutes = []string{"POST /v1/agents/{agent_id}/enrollment-challenge", "POST /v1/agents/{agent_id}/enroll"}

// ticketCaller finds whose enrolment a ticket is for.
func (s *Server) ticketCaller(text string) (*caller, error) {
	if ticket, ok := s.keys.ticket(text, s.clock.now()); ok {
		if c, there := s.signedIn(ticket.key); there {
			return &caller{op: c.op, agentID: ticket.agentID, ticket: text}, nil
		}
	}
	return nil, badTicket()
}

func badTicket() *apiError {
	return unauthorized("UNAUTHORIZED", "the ticket is unknown, used or too old, or its giver is gone",
		"a ticket of the approval page that is less than 5 minutes old, once")
}

// ticketMayCall refuses a route that is not of an enrolment. For which agent it is, [Server.withinReach] looks.
func (c *caller) ticketMayCall(r *route) error {
	if slices.Contains(ticketRoutes, r.method+" "+r.pattern) {
		return nil
	}
	return forbidden("a ticket enrols a key and does nothing else", map[string]any{"check": "ticket_route",
		"sent": r.method + " " + r.pattern, "allowed": ticketRoutes})
}

// DecideEnrollment stands in for a person who opens the address of the approval page, signs in as the first operator and approves
// or denies. It returns where the page sends them then. It fails for an address that the page refuses to show, and for the
// approval of an agent that the operator does not have.
func (s *Server) DecideEnrollment(address string, approve bool) (location string, err error) {
	u, err := url.Parse(address)
	if err != nil || u.Path != approvalPath {
		return "", fmt.Errorf("the address must be one of %s", approvalPath)
	}
	k, refusal := readKeyRequest(u.RawQuery)
	if refusal == nil {
		location, refusal = s.decideKey(k, s.first.APIKey, approve)
	}
	if refusal != nil {
		return "", refusal
	}
	return location, nil
}

// readDecision reads which button a person has pressed.
func readDecision(contentType string, raw []byte) (map[string]string, *apiError) {
	form, refusal := formBody(contentType, raw)
	if refusal == nil && form["decision"] != "approve" && form["decision"] != "deny" {
		refusal = invalid("decision", form["decision"], "approve or deny")
	}
	return form, refusal
}

// personOf finds who a person on a page of the mock is.
func (s *Server) personOf(key string) (*caller, *apiError) {
	if strings.HasPrefix(key, apiKeyPrefix) {
		if c, err := s.keyCaller(key); err == nil {
			return c, nil
		}
	}
	return nil, unauthorized("UNAUTHORIZED", "that is no API key of an account here", "an API key")
}

// pageToSendOn is a page whose form sends a person on to a foreign URI. A form's redirects count as its targets, so the URI's scheme
// is one.
func pageToSendOn(page *template.Template, uri, problem string, data map[string]any) (*document, error) {
	data["Problem"] = problem
	out, err := htmlPage(page, data)
	if err != nil {
		return nil, err
	}
	scheme, _, _ := strings.Cut(uri, ":")
	policy := out.header.Get("Content-Security-Policy")
	out.header.Set("Content-Security-Policy", strings.Replace(policy, "form-action 'self'", "form-action 'self' "+scheme+":", 1))
	if problem != "" {
		out.status = http.StatusForbidden
	}
	return out, nil
}

// withAnswer is a URI with an answer added to its query.
func withAnswer(uri string, answer url.Values) string {
	u, err := url.Parse(uri)
	if err != nil { // it was looked at before
		panic(err)
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += answer.Encode()
	return u.String()
}
