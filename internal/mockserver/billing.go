package mockserver

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"time"

	"github.com/getstack-go/stack"
)

const (
	// overageCents is the price of one use of a meter beyond the plan. The hosted service's prices are not known.
	overageCents = 1

	minTopUp, maxTopUp = 1_000, 1_000_000 // cents
	maxTransactions    = 10_000           // that are remembered
	maxTopUps          = 100              // that wait for their payer; the oldest goes
)

// wallet is an operator's money.
type wallet struct {
	cents        int
	transactions []stack.Transaction // oldest first
	topUps       table[topUp]
}

// topUp is a payment that waits for its payer.
type topUp struct {
	id    string
	cents int
}

func billingRoutes() []route {
	return []route{
		endpoint("GET", "/v1/billing/balance", (*Server).getBalance),
		endpoint("GET", "/v1/billing/transactions", (*Server).listTransactions),
		endpoint("POST", "/v1/billing/topup", (*Server).startTopUp, adminOnly, billing),
		endpoint("GET", paymentPath+"{session_id}", (*Server).showPayment, webPage),
		endpoint("POST", paymentPath+"{session_id}", (*Server).payOnPage, webPage),
	}
}

// move puts money into the wallet or takes it out. Repeated overage on one meter within an hour is one transaction: there
// can be one with every call.
func (w *wallet) move(now time.Time, kind stack.TransactionType, cents int, description string) {
	w.cents += cents
	if n := len(w.transactions); n > 0 && kind == stack.TransactionOverage {
		last := &w.transactions[n-1]
		if last.Type == kind && last.Description == description && last.CreatedAt.Equal(now.Truncate(time.Hour)) {
			last.AmountCents += cents
			last.BalanceAfterCents = w.cents
			return
		}
		now = now.Truncate(time.Hour)
	}
	if len(w.transactions) == maxTransactions {
		w.transactions = slices.Delete(w.transactions, 0, 1)
	}
	w.transactions = append(w.transactions, stack.Transaction{ID: newID("wtxn_"), Type: kind, AmountCents: cents,
		BalanceAfterCents: w.cents, Description: description, CreatedAt: now})
}

// debit takes money out, or refuses when there is too little. The pool must be held.
func (op *operator) debit(now time.Time, kind stack.TransactionType, cents int, description string) error {
	wallet := &op.payer().wallet
	if wallet.cents < cents {
		return refuse(http.StatusPaymentRequired, "INSUFFICIENT_CREDITS",
			fmt.Sprintf("%s costs %d cents and the wallet holds %d", description, cents, wallet.cents),
			map[string]any{"check": "wallet", "price_cents": cents, "balance_cents": wallet.cents,
				"allowed": fmt.Sprintf("at most %d cents", wallet.cents)})
	}
	wallet.move(now, kind, -cents, description)
	return nil
}

// spent sums up what the wallet paid in a period. Refunds are of paid skills.
func (w *wallet) spent(start, end time.Time) (s stack.SpendCents) {
	for _, t := range w.transactions {
		if t.CreatedAt.Before(start.Truncate(time.Hour)) || !t.CreatedAt.Before(end) {
			continue
		}
		switch t.Type {
		case stack.TransactionInvocation, stack.TransactionRefund:
			s.Skills -= t.AmountCents
		case stack.TransactionIdentity:
			s.Identity -= t.AmountCents
		case stack.TransactionOverage:
			s.Overage -= t.AmountCents
		case stack.TransactionTopUp:
		}
	}
	s.Total = s.Skills + s.Identity + s.Overage + s.LLMCompute
	return s
}

func (s *Server) getBalance(_ context.Context, c *caller, _ none) (*stack.Balance, error) {
	now := s.clock.now()
	start, end := month(now)
	used := func(meter string) int { return c.op.meters.count(meter, start, end) }
	return &stack.Balance{OperatorID: c.op.id, BalanceCents: c.op.wallet.cents, Tier: c.op.policy.Tier,
		BillingPeriodStart: start, BillingPeriodEnd: end, Usage: stack.BalanceUsage{Passports: used(meterPassports),
			Dropoffs: used(meterDropoffs), ProxyCalls: used(meterProxy), FreeSkillInvocations: used(meterSkills)}}, nil
}

type listTransactionsIn struct {
	Type   stack.TransactionType `query:"type"`
	Limit  int                   `query:"limit"`
	Offset int                   `query:"offset"`
}

func (s *Server) listTransactions(_ context.Context, c *caller, in listTransactionsIn) (*stack.TransactionPage, error) {
	limit := or(in.Limit, 50)
	if err := firstError(
		oneOf("query.type", in.Type, stack.TransactionTopUp, stack.TransactionInvocation, stack.TransactionOverage,
			stack.TransactionIdentity, stack.TransactionRefund),
		within("query.limit", limit, 1, 200),
		within("query.offset", in.Offset, 0, maxTransactions),
	); err != nil {
		return nil, err
	}
	page := &stack.TransactionPage{Transactions: []stack.Transaction{}}
	for _, t := range slices.Backward(c.op.wallet.transactions) {
		if in.Type != "" && t.Type != in.Type {
			continue
		}
		if page.Count >= in.Offset && len(page.Transactions) < limit {
			page.Transactions = append(page.Transactions, t)
		}
		page.Count++
	}
	return page, nil
}

type startTopUpIn struct {
	Body struct {
		AmountCents int `json:"amount_cents"`
	} `body:""`
}

func (s *Server) startTopUp(ctx context.Context, c *caller, in startTopUpIn) (*stack.TopUp, error) {
	if err := firstError(within("body.amount_cents", in.Body.AmountCents, minTopUp, maxTopUp)); err != nil {
		return nil, err
	}
	waiting := &c.op.wallet.topUps
	if waiting.len() == maxTopUps {
		waiting.delete(waiting.order[0])
	}
	t := &topUp{id: newID("pay_"), cents: in.Body.AmountCents}
	waiting.put(t.id, t)
	c.op.record(s.clock.now(), stack.AuditEntry{Action: "billing.topup_request", TraceID: t.id})
	return &stack.TopUp{SessionID: t.id, CheckoutURL: baseURL(ctx) + paymentPath + t.id}, nil
}

// paymentPath is where a top-up is paid: a page of the mock's own.
const paymentPath = "/billing/pay/"

var paymentPage = template.Must(template.New("page").Parse(pageHead + `
<title>Payment (mock)</title>
<h1>Payment</h1>
{{if .Paid}}<p>Done: the wallet holds {{.Balance}} cents now.</p>
{{else}}<p>This page of the STACK mock stands in for the payment of {{.Amount}} cents. No money moves.</p>
<form method="post"><button>Pay</button></form>{{end}}
</html>
`))

type paymentIn struct {
	SessionID string `path:"session_id"`
}

func (s *Server) showPayment(_ context.Context, _ *caller, in paymentIn) (out *document, err error) {
	err = s.atTopUp(in.SessionID, func(_ *operator, t *topUp, _ time.Time) error {
		out, err = htmlPage(paymentPage, map[string]any{"Amount": t.cents})
		return err
	})
	return out, err
}

func (s *Server) payOnPage(_ context.Context, _ *caller, in paymentIn) (out *document, err error) {
	err = s.atTopUp(in.SessionID, func(op *operator, t *topUp, now time.Time) error {
		op.wallet.topUps.delete(t.id)
		op.credit(now, t.cents)
		out, err = htmlPage(paymentPage, map[string]any{"Paid": true, "Balance": op.wallet.cents})
		return err
	})
	return out, err
}

func (op *operator) credit(now time.Time, cents int) {
	op.wallet.move(now, stack.TransactionTopUp, cents, "top-up")
	op.record(now, stack.AuditEntry{Action: "billing.topup"})
}

func (s *Server) atTopUp(id string, fn func(*operator, *topUp, time.Time) error) error {
	found, err := s.atOperator(func(op *operator, now time.Time) (bool, error) {
		t, ok := op.wallet.topUps.get(id)
		if !ok {
			return false, nil
		}
		return true, fn(op, t, now)
	})
	if !found {
		return notFound("payment", id)
	}
	return err
}

// TopUp puts money into the first operator's wallet, as a payment would, of at least one cent and at most a million.
func (s *Server) TopUp(cents int) error {
	if err := firstError(within("cents", cents, 1, maxTopUp)); err != nil {
		return err
	}
	s.view(func(op *operator) { op.credit(s.clock.now(), cents) })
	return nil
}
