package mockserver

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"time"

	"github.com/getstack-go/stack"
)

const (
	maxAuthorityList    = 1000   // items of a list's answer, the newest
	maxAuthorityRecords = 10_000 // uses, and presentations, that are kept
	maxVersions         = 100    // of a proof or a binding
	maxPurpose          = 500
	maxName             = 200
	decisionLifetime    = 24 * time.Hour // how long a person has to decide
)

// authority is what an operator keeps of the authority on which its agents act.
type authority struct {
	principals    table[stack.Principal]
	proofs        table[proof]
	sessions      table[stack.ProofCollectionSession]
	oidcRequests  table[stack.EnterpriseOIDCRequest]
	bindings      table[binding]
	receivers     table[stack.Receiver]
	challenges    table[receiverChallenge]
	profiles      table[stack.ProfileVersion]
	uses          table[stack.AuthorityUse]
	presentations table[stack.AuthorityPresentation]
	tombstones    table[stack.Tombstone] // by the id of what was erased
	decisions     table[decision]        // by the id of what is decided
}

func authorityRoutes() []route {
	key := idempotent(true) // (contract: endpoints 1.2)
	return []route{
		endpoint("POST", "/v1/authority/enterprise-oidc/requests", (*Server).createOIDCRequest, key),
		endpoint("GET", "/v1/authority/enterprise-oidc/requests/{request_id}", (*Server).getOIDCRequest),
		endpoint("POST", "/v1/authority/principals", (*Server).createPrincipal, key),
		endpoint("GET", "/v1/authority/principals", (*Server).listPrincipals),
		endpoint("GET", "/v1/authority/principals/{principal_id}", (*Server).getPrincipal),
		endpoint("POST", "/v1/authority/principals/{principal_id}/archive", (*Server).archivePrincipal, key),
		endpoint("POST", "/v1/authority/principals/{principal_id}/erase", (*Server).erasePrincipal, key),
		endpoint("POST", "/v1/authority/proofs/import", (*Server).importProof, key),
		endpoint("POST", "/v1/authority/proof-collection-sessions", (*Server).createProofSession, key),
		endpoint("GET", "/v1/authority/proof-collection-sessions/{session_id}", (*Server).getProofSession),
		endpoint("GET", "/v1/authority/proofs", (*Server).listProofs),
		endpoint("GET", "/v1/authority/proofs/{proof_id}", (*Server).getProof),
		endpoint("POST", "/v1/authority/proofs/{proof_id}/revoke", (*Server).revokeProof, key),
		endpoint("POST", "/v1/authority/proofs/{proof_id}/erase", (*Server).eraseProof, key),
		endpoint("POST", "/v1/authority/bindings", (*Server).createBinding, key),
		endpoint("GET", "/v1/authority/bindings", (*Server).listBindings),
		endpoint("GET", "/v1/authority/bindings/{binding_id}", (*Server).getBinding),
		endpoint("POST", "/v1/authority/bindings/{binding_id}/approval-requests", (*Server).createApprovalRequests, key),
		endpoint("GET", "/v1/authority/bindings/{binding_id}/approval-requests", (*Server).listApprovalRequests),
		endpoint("POST", "/v1/authority/bindings/{binding_id}/activate", (*Server).activateBinding, key),
		endpoint("POST", "/v1/authority/bindings/{binding_id}/delegate", (*Server).delegateBinding, key),
		endpoint("POST", "/v1/authority/bindings/{binding_id}/revoke", (*Server).revokeBinding, key),
		endpoint("POST", "/v1/authority/bindings/{binding_id}/erase", (*Server).eraseBinding, key),
		endpoint("POST", "/v1/authority/receivers", (*Server).createReceiver, key),
		endpoint("GET", "/v1/authority/receivers", (*Server).listReceivers),
		endpoint("GET", "/v1/authority/receivers/{receiver_id}", (*Server).getReceiver),
		endpoint("POST", "/v1/authority/receivers/{receiver_id}/verification-challenges", (*Server).challengeReceiver, key),
		endpoint("POST", "/v1/authority/receivers/{receiver_id}/verify", (*Server).verifyReceiver, key),
		endpoint("POST", "/v1/authority/receivers/{receiver_id}/keys", (*Server).addReceiverKey, key),
		endpoint("POST", "/v1/authority/receivers/{receiver_id}/keys/{key_id}/revoke", (*Server).revokeReceiverKey, key),
		endpoint("POST", "/v1/authority/profile-versions", (*Server).createProfile, key, adminOnly),
		endpoint("POST", "/v1/authority/profile-versions/{profile_id}/activate", (*Server).activateProfile, key, adminOnly),
		endpoint("GET", "/v1/authority/uses", (*Server).listUses),
		endpoint("GET", "/v1/authority/uses/{use_id}", (*Server).getUse),
		endpoint("GET", "/v1/authority/presentations", (*Server).listPresentations),
		endpoint("GET", "/v1/authority/presentations/{presentation_id}", (*Server).getPresentation),
		endpoint("POST", "/v1/authority/presentations/{presentation_id}/erase", (*Server).erasePresentation, key),

		endpoint("GET", decisionPath+"{request_id}", (*Server).showDecision, webPage),
		endpoint("POST", decisionPath+"{request_id}/approve", (*Server).approveOnPage, webPage),
		endpoint("POST", decisionPath+"{request_id}/reject", (*Server).rejectOnPage, webPage),
		endpoint("POST", challengePath+"{challenge_id}", (*Server).answerChallenge, public),
	}
}

// find gets an object of the operator, or tells that it was erased or never was.
func find[T any](op *operator, t *table[T], what, id string) (*T, error) {
	v, err := t.find(what, id)
	if tomb, ok := op.authority.tombstones.get(id); err != nil && ok && tomb.Object == what {
		return nil, wasErased(what, id, map[string]any{"tombstone": tomb})
	}
	return v, err
}

func wasErased(what, id string, details map[string]any) error {
	all := map[string]any{"check": "authority_erased", "sent": id, "allowed": "a " + what + " that is not erased"}
	maps.Copy(all, details)
	return refuse(http.StatusGone, "AUTHORITY_ERASED", "the "+what+" was erased", all)
}

// wipe takes away what the answers of keyed calls tell of an object that is erased: it, and what names it as its own.
func (op *operator) wipe(what, id string, owns ...string) {
	texts := []string{`"id":"` + id + `"`}
	for _, field := range owns {
		texts = append(texts, `"`+field+`":"`+id+`"`)
	}
	op.wipeAnswers(wasErased(what, id, nil), texts...)
}

// erased leaves a tombstone in the place of an object.
func erased[T any](op *operator, t *table[T], what, id string, now time.Time) *stack.Tombstone {
	t.delete(id)
	tomb := &stack.Tombstone{ID: id, OperatorID: op.id, Object: what, ErasedAt: now}
	op.authority.tombstones.put(id, tomb)
	op.recordAuthority(now, what+"_erase", id, "")
	return tomb
}

// newest copies the newest objects of a table, as far as a list may be long.
func newest[T, V any](t *table[T], view func(*T) V) []V {
	list := make([]V, 0, min(t.len(), maxAuthorityList))
	for v := range t.newest() {
		if len(list) == maxAuthorityList {
			break
		}
		list = append(list, view(v))
	}
	return list
}

// itself is the view of an object that is shown as it is kept.
func itself[T any](v *T) T { return *v }

// keep puts a record into a table that forgets the oldest beyond a bound.
func keep[T any](t *table[T], id string, v *T) {
	if t.len() >= maxAuthorityRecords {
		t.delete(t.order[0])
	}
	t.put(id, v)
}

// recordAuthority writes the audit row of a change; its trace is the id of what was changed.
func (op *operator) recordAuthority(now time.Time, step, id, reason string) {
	op.record(now, stack.AuditEntry{Action: "authority." + step, TraceID: id, ErrorMessage: reason})
}

// wrongState refuses what an object's state does not allow.
func wrongState[S ~string](what, id string, status S, allowed string) error {
	return refuse(http.StatusConflict, "AUTHORITY_STATE", fmt.Sprintf("the %s is %s; this needs %s", what, status, allowed),
		map[string]any{"check": "authority_state", "object": what, "sent": clip(id), "status": status, "allowed": allowed})
}

var reasonCode = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// checkReason refuses what is no reason code. Free text might be personal.
func checkReason(code string) error {
	if reasonCode.MatchString(code) {
		return nil
	}
	return invalid("body.reason_code", code,
		"a lower-case letter, and then up to 63 lower-case letters, digits and underscores, such as principal_request")
}

// ahead refuses a time that is not in the future, or more than most from now; the zero time stands for "not given".
func ahead(field string, at, now time.Time, most time.Duration) *apiError {
	if at.IsZero() || at.After(now) && !at.After(now.Add(most)) {
		return nil
	}
	return invalid(field, at.Format(time.RFC3339), fmt.Sprintf("after %s and no later than %s", now.Format(time.RFC3339),
		now.Add(most).Format(time.RFC3339)))
}

// inVersion chooses a version by its number from 1; nil is the fallback.
func inVersion[T any](what, id string, versions []*T, number *int, fallback *T) (*T, error) {
	if number == nil {
		return fallback, nil
	}
	if err := firstError(within("query.version", *number, 1, 1<<31)); err != nil {
		return nil, err
	}
	if *number > len(versions) {
		return nil, notFound(what, fmt.Sprintf("%s, version %d", clip(id), *number))
	}
	return versions[*number-1], nil
}
