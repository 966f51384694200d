package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/getstack-go/stack/internal/journal"
)

const (
	recoverSummary  = "Mission failed: the process that ran it died."
	maxBegin        = 4 << 10         // bytes of a journal's first record, and more
	openingPatience = 5 * time.Second // for which the opening of a Mission may be under way after its process died
)

// RecoveredMission is a Mission that a dead process left behind.
type RecoveredMission struct {
	MissionID   string // empty when the process died before one was opened
	PassportJTI string // empty when it died before it knew
	AgentID     string
	Calls       int       // that were logged
	Torn        bool      // the end of the journal was not whole: the record that was being written is lost
	Checkout    *Checkout // nil when there was no passport to check out, or that was done before
	Err         error     // why it could not be recovered; the journal is kept for the next try
}

// Recover closes the Missions that processes which died have left in the directory of [WithJournal]: what they had logged is
// checked out, with a summary that says what happened, and the Mission is revoked, as [Mission.Close] does with a run that
// failed. A Mission that was bound is left open. Missions that run, in this process or another, are not touched. Call it when
// the program starts.
//
// It goes through all of them, and returns one entry for each, in the order of their beginning, with the errors of all joined.
// It fails with a [*ParamError] when the client has no journal.
//
// POST /v1/passports/{passport_jti}/checkout and POST /v1/missions/{mission_id}/revoke, for each
func (s *PassportsService) Recover(ctx context.Context) ([]RecoveredMission, error) {
	dir := s.client.journal
	if dir == "" {
		return nil, &ParamError{Param: "WithJournal", Reason: "was not given to the client, so it has no journal to recover from"}
	}
	files, err := journal.Paths(dir)
	if err != nil {
		return nil, fmt.Errorf("stack: recover: %w", err)
	}
	var found []*deadMission
	var problems []error
	for _, path := range files {
		file, records, torn, openErr := journal.Open(path)
		if errors.Is(openErr, journal.ErrOwned) || errors.Is(openErr, fs.ErrNotExist) {
			continue
		}
		if openErr != nil {
			problems = append(problems, fmt.Errorf("stack: recover %s: %w", filepath.Base(path), openErr))
			continue
		}
		state, sane := readJournal(records)
		dead := &deadMission{client: s.client, file: file, journalState: state, torn: torn > 0 || !sane}
		if len(records) == 0 && torn <= maxBegin { // it died before it had asked for anything
			problems = append(problems, file.Remove())
			continue
		}
		if len(records) == 0 {
			problems = append(problems, fmt.Errorf("stack: recover %s: it is damaged from the start, or no journal", filepath.Base(path)), file.Close())
			continue
		}
		if state.begin.Version != journalVersion || state.begin.BaseURL != s.client.BaseURL() { // somebody else's
			problems = append(problems, file.Close())
			continue
		}
		found = append(found, dead)
	}
	slices.SortFunc(found, func(a, b *deadMission) int { return a.begin.At.Compare(b.begin.At) })
	recovered := make([]RecoveredMission, len(found))
	for i, dead := range found {
		recovered[i] = dead.recover(ctx)
		problems = append(problems, recovered[i].Err)
	}
	return recovered, errors.Join(problems...)
}

// deadMission is a Mission whose process has died.
type deadMission struct {
	journalState
	client *Client
	file   *journal.Journal
	torn   bool
}

func (d *deadMission) recover(ctx context.Context) RecoveredMission {
	r := RecoveredMission{MissionID: d.begin.MissionID, AgentID: d.begin.AgentID, Calls: d.account.total, Torn: d.torn}
	owns := d.begin.MissionID == ""
	if d.opened != nil {
		r.MissionID, r.PassportJTI, owns = d.opened.MissionID, d.opened.JTI, d.opened.Owns
	}
	var err error
	if r.MissionID == "" {
		r.MissionID, err = d.find(ctx)
	}
	if err == nil && r.PassportJTI != "" {
		r.Checkout, err = d.checkout(ctx)
	}
	if err == nil && owns && r.MissionID != "" {
		err = d.revoke(ctx, r.MissionID)
	}
	if err != nil {
		r.Err = errors.Join(fmt.Errorf("stack: recover Mission %s: %w", cmp.Or(r.MissionID, "of "+r.AgentID), err), d.file.Close())
		return r
	}
	r.Err = d.file.Remove()
	d.client.logger.Warn("mission recovered", slog.String("mission_id", r.MissionID), slog.Int("calls", r.Calls))
	return r
}

// find looks for a Mission whose opening was not answered any more. The server may be at it still, if that was just now.
func (d *deadMission) find(ctx context.Context) (id string, err error) {
	for {
		for record, err := range d.client.Missions.All(ctx, MissionListParams{Status: MissionLive}) {
			if err != nil {
				return "", err
			}
			if record.BaselineProfile[journalMarker] == d.begin.Marker {
				return record.MissionID, nil
			}
		}
		left := openingPatience - time.Since(d.begin.At)
		if left <= 0 {
			return "", nil
		}
		if err = sleep(ctx, min(left, time.Second)); err != nil {
			return "", err
		}
	}
}

// checkout accounts for what was logged, unless that was done before. What the dead process had sent may arrive meanwhile.
func (d *deadMission) checkout(ctx context.Context) (*Checkout, error) {
	done, err := d.accounted(ctx)
	if done || err != nil {
		return nil, err
	}
	m := &Mission{client: d.client, id: d.opened.MissionID, jti: d.opened.JTI, reporting: make(chan struct{}, 1)}
	result, err := m.checkout(ctx, d.account.checkout(recoverSummary))
	if err == nil {
		return result, nil
	}
	if done, askErr := d.accounted(ctx); done && askErr == nil {
		return nil, nil //nolint:nilnil // there is nothing left to check out
	}
	return nil, err
}

// accounted reports whether nobody waits for the account any more.
func (d *deadMission) accounted(ctx context.Context) (bool, error) {
	report, err := d.client.Passports.Report(ctx, d.opened.JTI)
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	return err == nil && report.Checkout != nil, err
}

// revoke ends the Mission, if it has not ended by itself.
func (d *deadMission) revoke(ctx context.Context, id string) error {
	ended, err := d.ended(ctx, id)
	if ended || err != nil {
		return err
	}
	_, err = d.client.Missions.Revoke(ctx, id, MissionRevokeParams{Reason: ReasonOperatorClean, Notes: recoverSummary})
	if err != nil {
		if ended, askErr := d.ended(ctx, id); ended && askErr == nil {
			return nil
		}
	}
	return err
}

func (d *deadMission) ended(ctx context.Context, id string) (bool, error) {
	record, err := d.client.Missions.Get(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	return err == nil && record.Status != MissionLive, err
}
