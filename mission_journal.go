package stack

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/getstack-go/stack/internal/journal"
)

const (
	journalVersion   = 1
	journalCompactAt = 4 << 20   // bytes, at the least, before a journal is written anew without what it need not keep
	journalMarker    = "journal" // in the baseline profile of a Mission, what finds it before its id is known
	journalChunk     = 1000      // calls of one record of a journal that is written anew
)

// WithJournal keeps, in files of the directory, what each Mission of the client has logged and not yet delivered, so that it
// survives the death of the process; see [PassportsService.Recover]. The directory is made with mode 0700 if it is not
// there. Use one for the processes of one program: each Mission has a file of its own in it, which goes when the Mission is
// closed, and holds services, methods, URLs without their query, and ids; no token, no body.
//
// A call is in the journal before [Mission.Proxy] or [Mission.Log] returns. It then survives the process, be it killed; the
// last ones may not survive the machine. What cannot be written is logged as a warning, and said by [Mission.Close].
//
// The Mission's baseline profile gets a random mark, by which one is found whose opening was not answered any more.
func WithJournal(dir string) Option {
	return func(c *config) error {
		if dir == "" {
			return &ParamError{Param: "WithJournal", Reason: "is empty; give a directory, or leave the option out to keep no journal"}
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("stack: WithJournal: %w", err)
		}
		c.journal = dir
		return nil
	}
}

// journalRecord is one record of a Mission's journal: the one field that is set.
type journalRecord struct {
	Begin     *journalBegin   `json:"begin,omitempty"`
	Opened    *journalOpened  `json:"opened,omitempty"`
	Call      *journalCall    `json:"call,omitempty"`
	Delegated string          `json:"delegated,omitempty"` // to this agent
	Accepted  *int            `json:"accepted,omitempty"`  // so many pending calls went with a checkpoint, none when it was idle
	Account   *journalAccount `json:"account,omitempty"`   // replaces what came before
	Calls     *journalCalls   `json:"calls,omitempty"`     // belongs to an Account before it
}

// journalBegin is written before a Mission is opened.
type journalBegin struct {
	Version   int       `json:"version"`
	BaseURL   string    `json:"base_url"`
	AgentID   string    `json:"agent_id"`
	Marker    string    `json:"marker"`
	MissionID string    `json:"mission_id,omitempty"` // of one that was open before
	At        time.Time `json:"at"`
}

// journalOpened is written when the Mission's passport is there, and again when the Mission passes to it.
type journalOpened struct {
	MissionID string `json:"mission_id"`
	JTI       string `json:"jti"`
	Owns      bool   `json:"owns"` // the Mission ends with it
}

type journalCall struct {
	ToolCall
	Failed bool `json:"failed,omitempty"`
}

type journalAccount struct {
	Total       int      `json:"total"`
	Checkpoints int      `json:"checkpoints"`
	Services    []string `json:"services"`
	DelegatedTo []string `json:"delegated_to"`
}

type journalCalls struct {
	Reported bool       `json:"reported"` // by a checkpoint that was accepted
	List     []ToolCall `json:"list"`
}

// missionJournal is the journal of one Mission. A nil one takes everything and keeps nothing. Its lock is taken before the
// Mission's, so that calls are in the file in the order of the account, while nobody waits for the disk with the Mission
// locked.
type missionJournal struct {
	logger *slog.Logger
	marker string

	mu        sync.Mutex
	file      *journal.Journal // nil after the end
	begin     journalBegin
	opened    journalOpened
	compactAt int64
	failure   error // the first; nothing is written after it
}

// newJournal begins the journal of a Mission that is about to be opened, or bound to.
func (c *Client) newJournal(params MissionParams) (*missionJournal, error) {
	if c.journal == "" {
		return nil, nil //nolint:nilnil // a nil journal is one that keeps nothing
	}
	j := &missionJournal{logger: c.logger, marker: strings.ToLower(rand.Text()), compactAt: journalCompactAt}
	file, err := journal.Create(filepath.Join(c.journal, j.marker+journal.Suffix))
	if err != nil {
		return nil, fmt.Errorf("stack: begin the journal of a Mission: %w", err)
	}
	j.file = file
	j.begin = journalBegin{Version: journalVersion, BaseURL: c.BaseURL(), AgentID: params.AgentID, Marker: j.marker,
		MissionID: params.MissionID, At: time.Now().UTC()}
	if err = errors.Join(j.append(journalRecord{Begin: &j.begin}), file.Sync()); err != nil {
		return nil, fmt.Errorf("stack: begin the journal of a Mission: %w", errors.Join(err, file.Remove()))
	}
	return j, nil
}

// profile is the baseline profile by which the Mission is found.
func (j *missionJournal) profile() map[string]any {
	if j == nil {
		return nil
	}
	return map[string]any{journalMarker: j.marker}
}

// append writes one record; the lock is held or the journal not shared yet.
func (j *missionJournal) append(record journalRecord) error {
	text, err := marshalJSON(record)
	if err == nil {
		err = j.file.Append(text)
	}
	return err
}

// write takes a record of something that apply then does to the Mission's account.
func (j *missionJournal) write(m *Mission, record journalRecord, apply func()) {
	if j == nil {
		apply()
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file != nil && j.failure == nil {
		err := j.append(record)
		if err == nil && j.file.Size() > j.compactAt {
			defer func() { j.keep(j.compact(m)) }() // with what apply does
		}
		j.keep(err)
	}
	apply()
}

// keep notes the first failure. Without the record after it, those that follow would be misread.
func (j *missionJournal) keep(err error) {
	if err == nil || j.failure != nil {
		return
	}
	j.failure = fmt.Errorf("stack: the Mission's journal: %w", err)
	j.logger.Warn("mission journal cannot be written; the mission goes on without", slog.String("mission_id", j.opened.MissionID),
		slog.Any("error", err))
}

// open notes the Mission and its passport.
func (j *missionJournal) open(opened journalOpened) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.opened = opened; j.file != nil && j.failure == nil {
		j.keep(errors.Join(j.append(journalRecord{Opened: &opened}), j.file.Sync()))
	}
}

// compact writes the journal anew from the account; the lock is held.
func (j *missionJournal) compact(m *Mission) error {
	m.mu.Lock()
	a := m.account
	a.pending, a.reported = slices.Clone(a.pending), slices.Clone(a.reported)
	a.services, a.delegatedTo = slices.Clone(a.services), slices.Clone(a.delegatedTo)
	m.mu.Unlock()
	records := []journalRecord{{Begin: &j.begin}, {Opened: &j.opened},
		{Account: &journalAccount{Total: a.total, Checkpoints: a.checkpoints, Services: a.services, DelegatedTo: a.delegatedTo}}}
	for _, calls := range []journalCalls{{true, a.reported}, {false, a.pending}} {
		for chunk := range slices.Chunk(calls.List, journalChunk) {
			records = append(records, journalRecord{Calls: &journalCalls{calls.Reported, chunk}})
		}
	}
	texts := make([][]byte, len(records))
	for i, record := range records {
		var err error
		if texts[i], err = marshalJSON(record); err != nil {
			return err
		}
	}
	if err := j.file.Replace(texts...); err != nil {
		return err
	}
	j.compactAt = max(journalCompactAt, 2*j.file.Size())
	return nil
}

// end removes the journal when all of it is delivered, and else leaves it to Recover. It returns what went wrong with it.
func (j *missionJournal) end(delivered bool) error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	var err error
	if delivered {
		err = j.file.Remove()
	} else {
		err = errors.Join(j.file.Sync(), j.file.Close())
	}
	j.file = nil
	return errors.Join(j.failure, err)
}

// journalState is what a journal's records come to.
type journalState struct {
	begin   journalBegin
	opened  *journalOpened // nil: the opening was not answered
	account account
}

// readJournal replays records. It stops at the first that makes no sense, as at a torn end.
func readJournal(records [][]byte) (state journalState, sane bool) {
	for i, text := range records {
		var r journalRecord
		if json.Unmarshal(text, &r) != nil || (r.Begin != nil) != (i == 0) {
			return state, false
		}
		if !state.replay(r) {
			return state, false
		}
	}
	return state, len(records) > 0 && state.begin.Version == journalVersion
}

func (s *journalState) replay(r journalRecord) bool {
	switch {
	case r.Begin != nil:
		s.begin = *r.Begin
	case r.Opened != nil:
		s.opened = r.Opened
	case r.Call != nil:
		s.account.add(r.Call.ToolCall, r.Call.Failed)
	case r.Delegated != "":
		if !slices.Contains(s.account.delegatedTo, r.Delegated) {
			s.account.delegatedTo = append(s.account.delegatedTo, r.Delegated)
		}
	case r.Accepted != nil:
		if *r.Accepted < 0 || *r.Accepted > len(s.account.pending) {
			return false
		}
		s.account.accepted(*r.Accepted)
	case r.Account != nil:
		s.account = account{total: r.Account.Total, checkpoints: r.Account.Checkpoints, services: r.Account.Services,
			delegatedTo: r.Account.DelegatedTo, perService: map[string]*serviceCount{}}
		for _, service := range r.Account.Services {
			s.account.perService[service] = &serviceCount{methods: map[string]int{}}
		}
	case r.Calls != nil && r.Calls.Reported:
		s.account.reported = append(s.account.reported, r.Calls.List...)
	case r.Calls != nil:
		s.account.pending = append(s.account.pending, r.Calls.List...)
	default:
		return false // of a later version
	}
	return true
}
