package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/getstack-go/stack"
)

// report prints what is on record about the run.
func (t *triage) report(ctx context.Context, skipped int) error {
	t.printf("\n%d tickets acknowledged, %d left, %d lines skipped\n\n%s", t.handled, t.remaining, skipped, t.mission.Summary())

	record, err := t.env.client.Passports.Report(ctx, t.mission.JTI())
	if err != nil {
		return fmt.Errorf("reading the passport's report: %w", err)
	}
	t.printf("\nCheckpoints\n")
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	for i, cp := range record.Checkpoints {
		_, _ = fmt.Fprintf(w, "  %d\t%s\t%d actions\n", i+1, cp.CheckpointID, cp.ActionsCount)
	}
	if err = w.Flush(); err != nil {
		return err
	}
	if len(record.Checkpoints) == 0 {
		t.printf("  none\n")
	}
	t.printf("\nPassport: %s", record.Passport.Status)
	if record.Passport.RevocationReason != "" {
		t.printf(" (revoked: %s)", record.Passport.RevocationReason)
	}
	if record.Checkout != nil {
		t.printf("; review: %s", record.Checkout.ReviewStatus)
	}
	t.printf("\n")

	chain, err := t.env.client.Audit.VerifyChain(ctx, stack.AuditVerifyParams{})
	if err != nil {
		return fmt.Errorf("verifying the audit log: %w", err)
	}
	if !chain.Valid {
		return fmt.Errorf("the audit log is broken: %+v", chain.FirstBreak)
	}
	t.printf("Audit log: %d entries, chain verified\n", chain.Checked)

	if t.env.slack != nil {
		t.printf("\nWhat Slack received\n")
		w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
		for _, m := range t.env.slack.messages() {
			_, _ = fmt.Fprintf(w, "  %s\t%s\n", m.Channel, m.Text)
		}
		return w.Flush()
	}
	return nil
}
