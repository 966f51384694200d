package mockserver

import (
	"maps"
	"reflect"

	"github.com/getstack-go/stack"
)

// enums are the values of the string types of the API, by type. A test reads the constants of package stack and holds the
// list to them. Events of notifications are none: a channel may name any by a part of it.
var enums = joined(
	values(stack.Enforced, stack.Logged, stack.Standard),
	values(stack.AccountingReserved, stack.AccountingCommitted, stack.AccountingReleased),
	values(stack.AgentActive, stack.AgentSuspended),
	values(stack.AssuranceLow, stack.AssuranceSubstantial, stack.AssuranceHigh),
	values(stack.AuditJSON, stack.AuditNDJSON, stack.AuditCSV),
	values(stack.OutcomeSuccess, stack.OutcomeFailure, stack.OutcomePending, stack.OutcomeBlocked),
	values(stack.AuthKindOAuth, stack.AuthKindAPIKey, stack.AuthKindBasic, stack.AuthKindCustom),
	values(stack.BindingDraft, stack.BindingPending, stack.BindingApproved, stack.BindingActive,
		stack.BindingSuperseded, stack.BindingRejected, stack.BindingRevoked, stack.BindingExpired),
	values(stack.CapBlock, stack.CapWarn),
	values(stack.ChainEntryHash, stack.ChainPrevHash, stack.ChainOutOfOrder, stack.ChainPinMissing, stack.ChainHeadMissing),
	values(stack.ChannelEmail, stack.ChannelSMS, stack.ChannelWebhook),
	values(stack.CheckPassed, stack.CheckRefused, stack.CheckSkipped),
	values(stack.InheritAuto, stack.InheritOptIn),
	values(stack.ClaimTTL30Days, stack.ClaimTTL90Days, stack.ClaimTTL180Days, stack.ClaimTTL1Year),
	values(stack.ScopeAgentsRead, stack.ScopeAgentsWrite, stack.ScopeServicesRead, stack.ScopeServicesConnect,
		stack.ScopeCredentialsRead, stack.ScopePassportsRead, stack.ScopePassportsWrite, stack.ScopeProxyRead,
		stack.ScopeProxyWrite, stack.ScopeWebhooksRead, stack.ScopeWebhooksWrite),
	values(stack.ConnectionConnected, stack.ConnectionDisconnected, stack.ConnectionPending,
		stack.ConnectionReauthRequired),
	values(stack.OpEq, stack.OpNotEq, stack.OpIn, stack.OpNotIn, stack.OpMatches, stack.OpStartsWith),
	values(stack.CredentialDirect, stack.CredentialProxyPreferred, stack.CredentialProxyOnly),
	values(stack.CredentialsNone, stack.CredentialsBuyer, stack.CredentialsSeller, stack.CredentialsBoth),
	values(stack.DeliveryAdmitted, stack.DeliveryDispatching, stack.DeliveryResponseReceived,
		stack.DeliveryOutcomeUnknown),
	values(stack.DetectorCredentialOutsideScope, stack.DetectorScopeDrift, stack.DetectorCredentialBurst,
		stack.DetectorCheckpointSilence, stack.DetectorPostCheckoutAccess, stack.DetectorRevokedPassportUse,
		stack.DetectorExpiredPassportUse, stack.DetectorConstraintViolation, stack.DetectorDataFlowViolation,
		stack.DetectorPromptInjection, stack.DetectorMissionCapExceeded, stack.DetectorDelegationViolation,
		stack.DetectorAuthFailureBurst, stack.DetectorUndeclaredService, stack.DetectorUnreportedAction,
		stack.DetectorPhantomAction, stack.DetectorActionCountMismatch, stack.DetectorUndeclaredDelegation,
		stack.DetectorDurationOverrun, stack.DetectorMissedCheckpoints, stack.DetectorHighFailureRate,
		stack.DetectorVolumeAnomaly, stack.DetectorIdleMission),
	values(stack.OnExpireNotify),
	values(stack.DropoffCreated, stack.DropoffDeposited, stack.DropoffCollected, stack.DropoffExpired,
		stack.DropoffFailed),
	values(stack.EscalateNotify, stack.EscalateBlock),
	values(stack.EvidenceMission, stack.EvidenceSession, stack.EvidenceIncident, stack.EvidencePeriod),
	values(stack.ExecuteOpen, stack.ExecuteSealed, stack.ExecuteSource),
	values(stack.FleetAgent, stack.FleetWorkload),
	values(stack.FleetActive, stack.FleetRevoked),
	values(stack.LayerHumanity, stack.LayerIdentity, stack.LayerDelegation),
	values(stack.ProviderAgentMail, stack.ProviderGeneric),
	values(stack.InboundActive, stack.InboundRevoked),
	values(stack.InjectBearer, stack.InjectHeader, stack.InjectBasic),
	values(stack.IntentPending, stack.IntentApproved, stack.IntentRejected, stack.IntentExpired),
	values(stack.IntentProxy, stack.IntentLLM, stack.IntentSkill),
	values(stack.InvocationPending, stack.InvocationRunning, stack.InvocationCompleted, stack.InvocationFailed,
		stack.InvocationExpired),
	values(stack.KeyStackManaged, stack.KeyCustomerManaged, stack.KeyCoSigned),
	values(stack.LLMCompleted, stack.LLMUpstreamError, stack.LLMIncomplete, stack.LLMClientClosed,
		stack.LLMNoAnswer),
	values(stack.LLMAnthropic, stack.LLMOpenAI, stack.LLMOpenRouter),
	values(stack.MemberInvited, stack.MemberActive, stack.MemberRevoked),
	values(stack.MissionLive, stack.MissionCompleted, stack.MissionRevoked, stack.MissionExpired,
		stack.MissionNotFound, stack.MissionMissing),
	values(stack.PIIEnabled, stack.PIIThreshold, stack.PIICountries),
	values(stack.ConnectActive, stack.ConnectPending, stack.ConnectDenied, stack.ConnectRevoked),
	values(stack.PrincipalPerson, stack.PrincipalOrganization),
	values(stack.PrincipalActive, stack.PrincipalArchived),
	values(stack.ProfileReceiver, stack.ProfileApproval, stack.ProfileProof),
	values(stack.ProfileDraft, stack.ProfileActive, stack.ProfileSuperseded),
	values(stack.ProofEncoding, stack.ProofHeader, stack.ProofKey, stack.ProofSignature, stack.ProofPayload,
		stack.ProofManifest, stack.ProofDigest, stack.ProofAudit),
	values(stack.ProofConsent, stack.ProofMandate, stack.ProofEnterpriseOIDC),
	values(stack.ProofImported, stack.ProofCollected, stack.ProofFromOIDC),
	values(stack.ProofActive, stack.ProofSuperseded, stack.ProofRevoked, stack.ProofExpired, stack.ProofErased),
	values(stack.ReceiverKeyActive, stack.ReceiverKeyRevoked),
	values(stack.ReceiverUnverified, stack.ReceiverVerified),
	values(stack.ReplayNone, stack.ReplayScreening, stack.ReplayAvailable, stack.ReplayExpired, stack.ReplayErased),
	values(stack.RequestPending, stack.RequestApproved, stack.RequestRejected, stack.RequestExpired,
		stack.RequestCancelled),
	values(stack.DecisionApproved, stack.DecisionBlocked),
	values(stack.ReviewClean, stack.ReviewFlagged, stack.ReviewBlocked),
	values(stack.ReasonAdversarial, stack.ReasonOperatorClean),
	values(stack.ScanEmail, stack.ScanDocument, stack.ScanWebpage, stack.ScanChatLog, stack.ScanAPIResponse,
		stack.ScanCalendar, stack.ScanOther),
	values(stack.VerdictClean, stack.VerdictSuspicious, stack.VerdictCritical),
	values(stack.SeverityInfo, stack.SeverityWarning, stack.SeverityCritical),
	values(stack.HMACSHA256, stack.HMACSHA1),
	values(stack.EncodingHex, stack.EncodingBase64),
	values(stack.SkillsAll, stack.SkillsListed, stack.SkillsNone),
	values(stack.SkillActive, stack.SkillSuspended),
	values(stack.StepLLM, stack.StepScript),
	values(stack.RoleReadonly, stack.RoleStandard, stack.RoleAdmin),
	values(stack.TenantActive, stack.TenantRevoked),
	values(stack.TierPartner, stack.TierFree, stack.TierDeveloper, stack.TierStudio, stack.TierEnterprise),
	values(stack.TransactionTopUp, stack.TransactionInvocation, stack.TransactionOverage, stack.TransactionIdentity,
		stack.TransactionRefund),
	values(stack.TrustL0, stack.TrustL1, stack.TrustL2),
	values(stack.UseAllowed, stack.UseRefused, stack.UseNotSent),
	values(stack.RefusedMissing, stack.RefusedMalformed, stack.RefusedAlgorithm, stack.RefusedUnknownKey, stack.RefusedSignature,
		stack.RefusedClaim, stack.RefusedExpired, stack.RefusedNotYetValid, stack.RefusedIssuedInFuture, stack.RefusedIssuer,
		stack.RefusedAudience, stack.RefusedRevoked, stack.RefusedMissionEnded, stack.RefusedByServer, stack.RefusedUnavailable),
	values(stack.VerificationPending, stack.VerificationVerified),
)

func values[T ~string](all ...T) map[reflect.Type][]any {
	texts := make([]any, len(all))
	for i, v := range all {
		texts[i] = string(v)
	}
	return map[reflect.Type][]any{reflect.TypeFor[T](): texts}
}

func joined(all ...map[reflect.Type][]any) map[reflect.Type][]any {
	out := map[reflect.Type][]any{}
	for _, m := range all {
		maps.Copy(out, m)
	}
	return out
}
