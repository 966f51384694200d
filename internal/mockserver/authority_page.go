package mockserver

import (
	"context"
	"html/template"
	"net/http"
	"time"

	"github.com/getstack-go/stack"
)

// decisionPath is where a person is sent who is to decide something: a page of the mock's own, whose buttons stand in for them
// and, where the hosted service would ask one, for an identity provider.
const decisionPath = "/authority/requests/"

func decisionURL(ctx context.Context, id string) string { return baseURL(ctx) + decisionPath + id }

// decision waits for a person to say yes or no. It writes what they say into the object that it is about.
type decision struct {
	id          string // that of the object
	principalID string
	bindingID   string // of an approval request
	version     int    // of that binding
	title       string
	lines       []string // what the person decides
	returnURL   string
	expiresAt   time.Time

	status    *stack.RequestStatus
	decidedAt *time.Time
	decided   func(at time.Time) error // what follows; on its failure nothing is decided
}

var decisionPage = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{.Title}} (mock)</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem}
form{display:inline}button{font:inherit;padding:.5rem 1rem}
</style>
<h1>{{.Title}}</h1>
<p>This page of the STACK mock stands in for the person who decides.</p>
<ul>{{range .Lines}}<li>{{.}}</li>{{end}}</ul>
{{if .Pending}}<form method="post" action="{{.ID}}/approve"><button>Approve</button></form>
<form method="post" action="{{.ID}}/reject"><button>Reject</button></form>
{{else}}<p>Decided: {{.Status}}.</p>
{{with .ReturnURL}}<p><a href="{{.}}">Go back</a></p>{{end}}{{end}}
</html>
`))

func (d *decision) page() (*document, error) {
	return htmlPage(decisionPage, map[string]any{"ID": d.id, "Title": d.title, "Lines": d.lines, "Status": *d.status,
		"Pending": *d.status == stack.RequestPending, "ReturnURL": d.returnURL})
}

// atObject runs fn on an object of whichever operator has it. Who is let in this way has no key of the API: the object's id,
// which cannot be guessed, stands for one.
func atObject[T any](s *Server, what, id string, tableOf func(*operator) *table[T],
	fn func(*operator, *T, time.Time) error) error {
	found, err := s.atOperator(func(op *operator, now time.Time) (bool, error) {
		v, ok := tableOf(op).get(id)
		if !ok {
			return false, nil
		}
		return true, fn(op, v, now)
	})
	if !found {
		return notFound(what, id)
	}
	return err
}

// ask puts a decision before a person, until its time is up.
func (op *operator) ask(d *decision) {
	op.authority.decisions.put(d.id, d)
	op.due.add(d.expiresAt, func(at time.Time) {
		if *d.status == stack.RequestPending {
			*d.status = stack.RequestExpired
			op.recordAuthority(at, "request_expire", d.id, "")
		}
	})
}

// cancelDecisions takes back what need not be decided any more.
func (op *operator) cancelDecisions(match func(*decision) bool, now time.Time) {
	for d := range op.authority.decisions.all() {
		if *d.status == stack.RequestPending && match(d) {
			*d.status = stack.RequestCancelled
			op.recordAuthority(now, "request_cancel", d.id, "")
		}
	}
}

// wipeDecisions forgets decisions, made or not: their pages say who somebody is.
func (op *operator) wipeDecisions(match func(*decision) bool) {
	var ids []string
	for d := range op.authority.decisions.all() {
		if match(d) {
			ids = append(ids, d.id)
		}
	}
	for _, id := range ids {
		op.authority.decisions.delete(id)
	}
}

// take takes a person's answer. Giving the same one again changes nothing.
func (op *operator) take(d *decision, answer stack.RequestStatus, now time.Time) error {
	switch *d.status {
	case answer:
		return nil
	case stack.RequestPending:
	case stack.RequestExpired:
		return refuse(http.StatusGone, "AUTHORITY_REQUEST_EXPIRED", "nobody has decided in time", map[string]any{
			"check": "authority_state", "sent": d.id, "expired_at": d.expiresAt, "allowed": "a new request"})
	default:
		return wrongState("request", d.id, *d.status, "a pending request")
	}
	*d.status, *d.decidedAt = answer, now
	if err := d.decided(now); err != nil {
		*d.status, *d.decidedAt = stack.RequestPending, time.Time{}
		return err
	}
	op.recordAuthority(now, map[stack.RequestStatus]string{stack.RequestApproved: "request_approve",
		stack.RequestRejected: "request_reject"}[answer], d.id, "")
	return nil
}

// ApproveAuthority stands in for the person who is asked by an enterprise OIDC request, a proof collection session or an
// approval request of any operator, and says yes. Doing so twice is as good as once. It fails for what is unknown, expired,
// cancelled or was rejected.
func (s *Server) ApproveAuthority(id string) error {
	return s.decideAuthority(id, stack.RequestApproved)
}

// RejectAuthority is [Server.ApproveAuthority] for a person who says no.
func (s *Server) RejectAuthority(id string) error {
	return s.decideAuthority(id, stack.RequestRejected)
}

func (s *Server) decideAuthority(id string, answer stack.RequestStatus) error {
	return s.atDecision(id, func(op *operator, d *decision, now time.Time) error { return op.take(d, answer, now) })
}

func (s *Server) atDecision(id string, fn func(*operator, *decision, time.Time) error) error {
	return atObject(s, "request", id, func(op *operator) *table[decision] { return &op.authority.decisions }, fn)
}

type decisionIn struct {
	RequestID string `path:"request_id"`
}

func (s *Server) showDecision(_ context.Context, _ *caller, in decisionIn) (out *document, err error) {
	err = s.atDecision(in.RequestID, func(_ *operator, d *decision, _ time.Time) error {
		out, err = d.page()
		return err
	})
	return out, err
}

func (s *Server) approveOnPage(_ context.Context, _ *caller, in decisionIn) (*document, error) {
	return s.decideOnPage(in, stack.RequestApproved)
}

func (s *Server) rejectOnPage(_ context.Context, _ *caller, in decisionIn) (*document, error) {
	return s.decideOnPage(in, stack.RequestRejected)
}

func (s *Server) decideOnPage(in decisionIn, answer stack.RequestStatus) (out *document, err error) {
	err = s.atDecision(in.RequestID, func(op *operator, d *decision, now time.Time) error {
		if err = op.take(d, answer, now); err == nil {
			out, err = d.page()
		}
		return err
	})
	return out, err
}
