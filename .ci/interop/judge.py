"""What is checked of every call, whatever the test is about.

Each answer is held against the contract: its headers, its error shape, the keys that the route must answer with. And each
call of the SDK is noted with its parameters, so that the last test can say what the suite has not exercised.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

import httpx
from getstack import Stack
from getstack.agents import AgentService
from getstack.audit import AuditService
from getstack.authority import AuthorityService
from getstack.credentials import CredentialService
from getstack.delivery_methods import DeliveryMethodService
from getstack.detector_config import DetectorConfigService
from getstack.dropoffs import DropoffService
from getstack.fleets import FleetsService
from getstack.evidence_packs import EvidencePacksService
from getstack.identity import IdentityService
from getstack.intents import IntentsService
from getstack.llm import (
    LlmService,
    _AnthropicMessages,
    _LlmUsageQuery,
    _OpenAIChatCompletions,
    _OpenRouterChatCompletions,
)
from getstack.inbound_webhooks import InboundWebhookService
from getstack.missions import MissionsService
from getstack.notifications import NotificationService
from getstack.partner_connect import PartnerConnectService
from getstack.partner_tenants import PartnerTenantsService
from getstack.passports import Mission, PassportService
from getstack.pii_config import PiiConfigService
from getstack.proxy import ProxyService
from getstack.reviews import ReviewService
from getstack.scan import ScanService
from getstack.security_events import SecurityEventService
from getstack.services import ServiceService
from getstack.skills import SkillService
from getstack.team import TeamService
from getstack.usage import UsageService

JUDGED = (
    AgentService,
    ServiceService,
    CredentialService,
    PassportService,
    MissionsService,
    ProxyService,
    AuditService,
    SecurityEventService,
    ReviewService,
    UsageService,
    IdentityService,
    DropoffService,
    LlmService,
    _AnthropicMessages,
    _OpenAIChatCompletions,
    _OpenRouterChatCompletions,
    _LlmUsageQuery,
    PiiConfigService,
    ScanService,
    DetectorConfigService,
    IntentsService,
    SkillService,
    FleetsService,
    EvidencePacksService,
    TeamService,
    NotificationService,
    DeliveryMethodService,
    AuthorityService,
    InboundWebhookService,
    PartnerTenantsService,
    PartnerConnectService,
)

AGENT = (
    "id operator_id name status accountability_mode on_warning on_critical passport_blocked created_at updated_at "
    "credential_access key_mode llm_inject_system_prompt llm_redact_pii"
)
PASSPORT = "token jti expires_at"
CONNECTION = "id provider name status scopes verified connected_at"
CLAIM = "id operator_id provider_key layer claim_type claim_ref assurance_level verified_at expires_at"
SETTINGS = "identity_claim_ttl identity_claim_inheritance identity_auto_revoke"
REQUIREMENT = (
    "id operator_id service_id layer requires_claim minimum_assurance accepted_providers required_scopes requires_pii "
    "lawful_basis"
)
DROPOFF = "id operator_id from_agent_id to_agent_id status schema on_expire created_at expires_at deposited_bytes"
SKILL = (
    "id operator_id name description version tags trust_level_required status execution_mode price_per_invocation "
    "invocation_count created_at updated_at average_rating"
)
INVOCATION = (
    "id skill_id status output error expires_at created_at started_at completed_at llm_tokens_input llm_tokens_output "
    "execution_duration_ms"
)
SKILL_REQUEST = "id operator_id description desired_input_schema desired_output_schema max_price_cents tags status created_at"
PACK = "pack_id claim_id pack_claim"
PACK_CLAIM = "type claim_id pack_id operator_id issued_at_ms scope manifest_sha256"
MEMBER = "id operator_id email name role status allowed_connections invited_at"
METER = "tier limit used remaining period"
DETECTOR = "detector_key enabled custom_patterns whitelist_patterns severity_overrides created_at updated_at"
SIMULATION = "allowed denial_reasons simulated_cost predicted_detector_fires simulated_at diagnostics"
APPROVAL = "id operator_id agent_id passport_jti status intent intent_claim_id created_at expires_at"
CHANNEL = "id operator_id channel_type destination destination_id events min_severity active verified created_at"
DESTINATION = "id operator_id channel_type destination verified webhook_secret created_at"
CODE_SENT = "destination_id channel_type sent expires_at"
TEST_DELIVERY = "destination_id delivery_id delivered"
FLEET = "id operator_id status revision definition member_count live_missions created_at updated_at"
FLEET_MEMBER = "agent_id fleet_policy_id name kind status public_key enrolled_at"
FLEET_REVOCATION = "fleet_policy_id status revoked_at revoked_members revoked_missions revoked_passports"
PRINCIPAL = "id operator_id kind display_name status created_at"
PROOF = "id operator_id principal_id kind version status source created_at"
PROOF_SESSION = "id operator_id principal_id kind purpose collection_url status created_at expires_at"
OIDC_REQUEST = "id operator_id principal_id purpose approval_url status created_at expires_at"
BINDING = (
    "id operator_id version status principal_id agent_id receiver_id receiver_profile_version_id services proofs purpose "
    "uses digest created_at expires_at"
)
SIGN_OFF = "id operator_id binding_id binding_version approver approval_url status created_at expires_at"
RECEIVER = "id operator_id name hosts status keys created_at"
RECEIVER_KEY = "id receiver_id algorithm public_key status created_at"
CHALLENGE = "id receiver_id challenge response_url expires_at"
PROFILE = "id operator_id profile_kind version status rules created_at"
USE = (
    "id operator_id binding_id binding_version agent_id passport_jti mission_id receiver_id service method host outcome "
    "used_at"
)
PRESENTATION = (
    "id operator_id use_id binding_id binding_version binding_claim_id binding_digest receiver_id "
    "receiver_profile_version_id passport_jti host presented_at"
)
TOMBSTONE = "id operator_id object erased_at"
INBOUND = "id provider slug webhook_url agent_id status created_at"
TENANT = "operator_id tier billing created_at"
PARTNER_GRANT = "grant_id status"
SECURITY_EVENT = "id operator_id agent_id passport_jti signal_type severity message metadata resolved created_at"
LLM_USAGE = (
    "id provider model passport_jti mission_id agent_id input_tokens output_tokens cache_read_tokens cache_write_tokens "
    "stream status outcome complete cost_cents duration_ms created_at"
)
LLM_TOTALS = "calls incomplete_calls input_tokens output_tokens cache_read_tokens cache_write_tokens cost_cents"
PII_CONFIG = "configured enabled threshold countries"

# (method, route, keys of the answer, {key of the answer: keys of its object or of each of its items}).
# "[]" as the key of the answer means that the answer itself is an array.
SHAPES: list[tuple[str, str, str, dict[str, str]]] = [
    ("POST", "/v1/agents/register", AGENT, {}),
    ("GET", "/v1/agents", "[]", {"[]": AGENT}),
    ("GET", "/v1/agents/{}", AGENT, {}),
    ("PATCH", "/v1/agents/{}", AGENT, {}),
    ("POST", "/v1/agents/{}/enrollment-challenge", "challenge_id challenge", {}),
    ("POST", "/v1/agents/{}/enroll", "agent_id enrolled_at", {"public_key": "kty crv x"}),
    ("POST", "/v1/passports/issue", PASSPORT + " accountability", {}),
    ("POST", "/v1/passports/delegate", PASSPORT, {}),
    ("POST", "/v1/passports/refresh", PASSPORT, {}),
    ("POST", "/v1/passports/verify", "valid", {}),
    ("GET", "/v1/passports/active", "[]", {"[]": "jti agent_id session_id expires_at"}),
    ("POST", "/v1/passports/{}/checkpoint", "checkpoint_id passport_jti", {}),
    (
        "POST",
        "/v1/passports/{}/checkout",
        "checkout_id passport_jti review_status",
        {"flags": "type severity message"},
    ),
    ("GET", "/v1/passports/{}/report", "passport intent checkpoints checkout review", {}),
    (
        "GET",
        "/v1/passports/reviews",
        "items total",
        {"items": "checkout_id passport_jti agent_id agent_name intent_summary review_status flags submitted_at"},
    ),
    ("POST", "/v1/passports/reviews/{}/decide", "review_id agent_id decision passport_blocked", {}),
    ("GET", "/v1/credentials/{}", "provider", {}),
    ("GET", "/v1/credentials/by-connection/{}", "provider", {}),
    ("GET", "/v1/services", "[]", {"[]": "id provider name description auth_kind allowed_hosts scopes"}),
    ("GET", "/v1/services/connected", "[]", {"[]": CONNECTION}),
    ("GET", "/v1/services/templates", "[]", {}),
    ("POST", "/v1/services/connect", CONNECTION, {}),
    ("POST", "/v1/services/custom", CONNECTION, {}),
    (
        "GET",
        "/v1/audit",
        "entries max_timestamp",
        {
            "entries": "entry_id timestamp operator_id agent_id layer action outcome prev_entry_hash entry_hash",
        },
    ),
    ("POST", "/v1/proxy", "status headers body", {}),
    (
        "POST",
        "/v1/proxy/operations/get",
        "operation_id delivery_state replay_state accounting_state provider method created_at provider_outcome",
        {},
    ),
    ("GET", "/v1/proxy/usage", METER, {}),
    (
        "GET",
        "/v1/usage",
        "tier period_start period_end period_label account_since consumption passthrough spend_cents wallet_cents "
        "earnings_cents",
        {
            "consumption": "activity actions",
            "spend_cents": "skills llm_compute identity overage total",
            "wallet_cents": "balance",
            "earnings_cents": "unpaid lifetime",
        },
    ),
    ("GET", "/v1/security-events", "events unresolved_count page limit", {"events": SECURITY_EVENT}),
    ("GET", "/v1/security-events/{}", SECURITY_EVENT, {}),
    ("POST", "/v1/missions", "mission_id claim_id expires_at", {}),
    ("POST", "/v1/missions/start", "mission_id claim_id expires_at passport", {"passport": PASSPORT}),
    ("POST", "/v1/missions/{}/renew", "mission_id passport", {"passport": PASSPORT}),
    ("POST", "/v1/missions/{}/complete", "mission_id claim_id terminal_state completed_at transitioned", {}),
    ("GET", "/v1/missions", "items", {"items": "mission_id status"}),
    ("GET", "/v1/missions/{}", "mission_id status", {}),
    ("GET", "/v1/missions/{}/operator-reviews", "items", {"items": "claim_id operator_id issued_at_ms claim"}),
    ("POST", "/v1/evidence-packs", PACK + " manifest", {"pack_claim": PACK_CLAIM}),
    ("GET", "/v1/evidence-packs", "items", {"items": PACK}),
    ("GET", "/v1/evidence-packs/{}", PACK + " envelope_cose", {"pack_claim": PACK_CLAIM}),
    ("GET", "/v1/operators/me/identity-settings", SETTINGS, {}),
    ("PATCH", "/v1/operators/me/identity-settings", SETTINGS, {}),
    ("GET", "/v1/identity/providers", "[]", {"[]": "key name layers assurance description"}),
    ("POST", "/v1/identity/verify/initiate", "session_ref authorization_url status", {}),
    ("POST", "/v1/identity/verify/complete", "session_ref status claims", {"claims": CLAIM}),
    ("POST", "/v1/identity/delegate", CLAIM, {}),
    ("GET", "/v1/identity/claims", "[]", {"[]": CLAIM}),
    ("DELETE", "/v1/identity/claims/{}", "type claim_id revoked_count cascaded_count cascaded revoked_at", {}),
    ("GET", "/v1/services/{}/requirements", "[]", {"[]": REQUIREMENT}),
    ("POST", "/v1/intents/simulate", SIMULATION, {}),
    ("POST", "/v1/intents/submit", "approval_id intent_claim_id status expires_at", {}),
    ("GET", "/v1/intents/pending", "items total page limit", {"items": APPROVAL}),
    ("GET", "/v1/intents/{}", APPROVAL, {}),
    ("POST", "/v1/intents/{}/approve", APPROVAL, {}),
    ("POST", "/v1/intents/{}/reject", APPROVAL, {}),
    ("POST", "/v1/services/{}/requirements", REQUIREMENT, {}),
    ("PUT", "/v1/services/{}/requirements", "requirements", {"requirements": REQUIREMENT}),
    ("DELETE", "/v1/services/{}/requirements/{}", "requirements", {"requirements": REQUIREMENT}),
    ("POST", "/v1/dropoffs", DROPOFF, {}),
    ("GET", "/v1/dropoffs", "[]", {"[]": DROPOFF}),
    ("GET", "/v1/dropoffs/{}", DROPOFF, {}),
    ("POST", "/v1/dropoffs/{}/deposit", DROPOFF, {}),
    ("POST", "/v1/dropoffs/{}/collect", "id status payload", {}),
    ("POST", "/v1/dropoffs/{}/expire", DROPOFF, {}),
    ("POST", "/v1/skills", SKILL, {}),
    ("GET", "/v1/skills", "[]", {"[]": SKILL}),
    ("GET", "/v1/skills/mine", "[]", {"[]": SKILL}),
    ("GET", "/v1/skills/{}", SKILL, {}),
    ("PATCH", "/v1/skills/{}", SKILL, {}),
    ("POST", "/v1/skills/{}/suspend", SKILL, {}),
    ("POST", "/v1/skills/{}/activate", SKILL, {}),
    ("POST", "/v1/skills/{}/check-trust", "skill_id required level satisfied", {}),
    ("POST", "/v1/skills/{}/invoke", INVOCATION, {}),
    ("GET", "/v1/skills/invocations/mine", "[]", {"[]": INVOCATION}),
    ("GET", "/v1/skills/invocations/pending", "[]", {"[]": INVOCATION}),
    ("GET", "/v1/skills/invocations/{}", INVOCATION, {}),
    ("POST", "/v1/skills/invocations/{}/claim", INVOCATION, {}),
    ("POST", "/v1/skills/invocations/{}/complete", INVOCATION, {}),
    ("POST", "/v1/skills/invocations/{}/fail", INVOCATION, {}),
    ("POST", "/v1/skill-requests", SKILL_REQUEST, {}),
    ("GET", "/v1/skill-requests", "[]", {"[]": SKILL_REQUEST}),
    ("GET", "/v1/skill-requests/{}", SKILL_REQUEST, {}),
    ("GET", "/v1/skill-requests/{}/matches", "request_id matches", {"matches": "skill_id name price_cents score"}),
    ("GET", "/v1/skill-requests/{}/suggest", "request_id compositions", {}),
    ("POST", "/v1/fleets/session", "session_id fleet_policy_id revision started_at expires_at", {}),
    ("POST", "/v1/fleets", FLEET, {}),
    ("GET", "/v1/fleets/{}", FLEET, {}),
    ("PUT", "/v1/fleets/{}", FLEET, {}),
    ("POST", "/v1/fleets/{}/members/{}/revoke", FLEET_REVOCATION + " agent_id", {}),
    ("POST", "/v1/fleets/{}/revoke", FLEET_REVOCATION, {}),
    ("POST", "/v1/fleets/{}/enrollment-challenges", "challenge_id challenge expires_at", {}),
    ("POST", "/v1/fleets/{}/enroll", FLEET_MEMBER, {}),
    ("POST", "/v1/fleets/{}/workload/enrollment-challenges", "challenge_id challenge expires_at", {}),
    ("POST", "/v1/fleets/{}/workload/enroll", FLEET_MEMBER, {}),
    ("POST", "/v1/team/members", MEMBER + " invitation_url", {}),
    ("GET", "/v1/team/members", "[]", {"[]": MEMBER}),
    ("PATCH", "/v1/team/members/{}", MEMBER, {}),
    ("DELETE", "/v1/team/members/{}", MEMBER, {}),
    ("POST", "/v1/scan", "verdict scan_id duration_ms match", {}),
    ("GET", "/v1/scan/usage", METER, {}),
    ("GET", "/v1/detectors/config", "configs", {"configs": DETECTOR}),
    ("GET", "/v1/detectors/{}/config", DETECTOR, {}),
    ("PUT", "/v1/detectors/{}/config", DETECTOR, {}),
    ("POST", "/v1/llm/anthropic/messages", "model content usage", {}),
    ("POST", "/v1/llm/openai/chat/completions", "model choices usage", {}),
    ("POST", "/v1/llm/openrouter/chat/completions", "model choices usage", {}),
    ("GET", "/v1/llm/usage", "items next_cursor", {"items": LLM_USAGE}),
    ("GET", "/v1/llm/usage/summary", "totals buckets", {"totals": LLM_TOTALS, "buckets": "provider " + LLM_TOTALS}),
    ("GET", "/v1/pii/config", PII_CONFIG, {}),
    ("PUT", "/v1/pii/config", PII_CONFIG + " updated_at", {}),
    ("DELETE", "/v1/pii/config", PII_CONFIG, {}),
    ("GET", "/v1/notifications/channels", "[]", {"[]": CHANNEL}),
    ("POST", "/v1/notifications/channels", CHANNEL, {}),
    ("PATCH", "/v1/notifications/channels/{}", CHANNEL, {}),
    ("DELETE", "/v1/notifications/channels/{}", "id deleted", {}),
    ("POST", "/v1/notifications/channels/{}/send-code", CODE_SENT, {}),
    ("POST", "/v1/notifications/channels/{}/verify", CHANNEL, {}),
    ("POST", "/v1/notifications/channels/{}/test", TEST_DELIVERY + " channel_id", {}),
    ("GET", "/v1/notifications/destinations", "[]", {"[]": DESTINATION}),
    ("POST", "/v1/notifications/destinations", DESTINATION, {}),
    ("DELETE", "/v1/notifications/destinations/{}", "id deleted", {}),
    ("POST", "/v1/notifications/destinations/{}/rotate-secret", DESTINATION, {}),
    ("POST", "/v1/notifications/destinations/{}/send-code", CODE_SENT, {}),
    ("POST", "/v1/notifications/destinations/{}/verify", DESTINATION, {}),
    ("POST", "/v1/notifications/destinations/{}/test", TEST_DELIVERY, {}),
    ("POST", "/v1/authority/enterprise-oidc/requests", OIDC_REQUEST, {}),
    ("GET", "/v1/authority/enterprise-oidc/requests/{}", OIDC_REQUEST, {}),
    ("POST", "/v1/authority/principals", "principal", {"principal": PRINCIPAL}),
    ("GET", "/v1/authority/principals", "principals", {"principals": PRINCIPAL}),
    ("GET", "/v1/authority/principals/{}", "principal", {"principal": PRINCIPAL}),
    ("POST", "/v1/authority/principals/{}/archive", "principal", {"principal": PRINCIPAL}),
    ("POST", "/v1/authority/principals/{}/erase", "tombstone", {"tombstone": TOMBSTONE}),
    ("POST", "/v1/authority/proofs/import", "proof", {"proof": PROOF}),
    ("POST", "/v1/authority/proof-collection-sessions", "session", {"session": PROOF_SESSION}),
    ("GET", "/v1/authority/proof-collection-sessions/{}", "session", {"session": PROOF_SESSION}),
    ("GET", "/v1/authority/proofs", "proofs", {"proofs": PROOF}),
    ("GET", "/v1/authority/proofs/{}", "proof", {"proof": PROOF}),
    ("POST", "/v1/authority/proofs/{}/revoke", "proof", {"proof": PROOF}),
    ("POST", "/v1/authority/proofs/{}/erase", "proof", {"proof": PROOF}),
    ("POST", "/v1/authority/bindings", "binding", {"binding": BINDING}),
    ("GET", "/v1/authority/bindings", "bindings", {"bindings": BINDING}),
    ("GET", "/v1/authority/bindings/{}", "binding", {"binding": BINDING}),
    ("POST", "/v1/authority/bindings/{}/approval-requests", "approval_requests", {"approval_requests": SIGN_OFF}),
    ("GET", "/v1/authority/bindings/{}/approval-requests", "approval_requests", {"approval_requests": SIGN_OFF}),
    ("POST", "/v1/authority/bindings/{}/activate", "binding", {"binding": BINDING}),
    ("POST", "/v1/authority/bindings/{}/delegate", "binding", {"binding": BINDING}),
    ("POST", "/v1/authority/bindings/{}/revoke", "binding", {"binding": BINDING}),
    ("POST", "/v1/authority/bindings/{}/erase", "tombstone", {"tombstone": TOMBSTONE}),
    ("POST", "/v1/authority/receivers", "receiver", {"receiver": RECEIVER}),
    ("GET", "/v1/authority/receivers", "receivers", {"receivers": RECEIVER}),
    ("GET", "/v1/authority/receivers/{}", "receiver", {"receiver": RECEIVER}),
    ("POST", "/v1/authority/receivers/{}/verification-challenges", "challenge", {"challenge": CHALLENGE}),
    ("POST", "/v1/authority/receivers/{}/verify", "receiver", {"receiver": RECEIVER}),
    ("POST", "/v1/authority/receivers/{}/keys", "key", {"key": RECEIVER_KEY}),
    ("POST", "/v1/authority/receivers/{}/keys/{}/revoke", "key", {"key": RECEIVER_KEY}),
    ("POST", "/v1/authority/profile-versions", "profile", {"profile": PROFILE}),
    ("POST", "/v1/authority/profile-versions/{}/activate", "profile", {"profile": PROFILE}),
    ("GET", "/v1/authority/uses", "uses", {"uses": USE}),
    ("GET", "/v1/authority/uses/{}", "use", {"use": USE}),
    ("GET", "/v1/authority/presentations", "presentations", {"presentations": PRESENTATION}),
    ("GET", "/v1/authority/presentations/{}", "presentation", {"presentation": PRESENTATION}),
    ("POST", "/v1/authority/presentations/{}/erase", "tombstone", {"tombstone": TOMBSTONE}),
    ("POST", "/v1/operator/inbound-webhooks", INBOUND + " webhook_secret", {}),
    ("GET", "/v1/operator/inbound-webhooks", "webhooks", {"webhooks": INBOUND}),
    ("GET", "/v1/operator/inbound-webhooks/{}", INBOUND, {}),
    ("DELETE", "/v1/operator/inbound-webhooks/{}", INBOUND, {}),
    ("PUT", "/v1/operator/inbound-webhooks/{}/provider-signing-secret", INBOUND, {}),
    ("POST", "/v1/partner/tenants", TENANT + " api_key", {}),
    ("GET", "/v1/partner/tenants", "tenants", {"tenants": TENANT + " usage"}),
    ("GET", "/v1/partner/tenants/{}", TENANT, {"usage": "period actions"}),
    ("DELETE", "/v1/partner/tenants/{}", "transitioned webhooks_revoked passports_revoked", {}),
    ("POST", "/v1/partner/tenants/{}/inbound-webhooks", INBOUND + " webhook_secret", {}),
    ("PUT", "/v1/partner/tenants/{}/inbound-webhooks/{}/provider-signing-secret", "status", {}),
    ("POST", "/v1/partner/tenants/{}/passports/issue", PASSPORT, {}),
    ("POST", "/v1/partner/connect", PARTNER_GRANT, {}),
    ("GET", "/v1/partner/connections", "connections", {"connections": PARTNER_GRANT}),
    ("GET", "/v1/partner/connections/{}", PARTNER_GRANT, {}),
    ("DELETE", "/v1/partner/connections/{}", PARTNER_GRANT, {}),
    ("POST", "/v1/partner/connections/{}/rotate-token", "grant_id grant_token", {}),
]


# Where the contract saw 201. Everything else that succeeds is 200, or 204 without a body.
CREATED = {("POST", "/v1/notifications/destinations")}


def _pattern(route: str) -> re.Pattern[str]:
    return re.compile(re.escape(route).replace(re.escape("{}"), "[^/]+") + "$")


# Routes without an id first, so that /v1/passports/reviews is not taken for an id.
_ROUTES = sorted(
    ((method, _pattern(route), route, keys, inner) for method, route, keys, inner in SHAPES),
    key=lambda row: row[2].count("{}"),
)


class Judge:
    """Holds every answer against the contract. `calls` are the answers in their order, for tests that look at the wire."""

    seen_routes: set[tuple[str, str]] = set()

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.violations: list[str] = []

    def judge(self, response: httpx.Response) -> None:
        request = response.request
        where = f"{request.method} {request.url.path} -> {response.status_code}"
        if not response.headers.get("x-request-id"):
            self.violations.append(f"{where}: no X-Request-Id")
        body: Any = None
        if response.status_code != 204:
            kind = response.headers.get("content-type", "")
            if kind == "text/event-stream" and request.url.path.startswith("/v1/llm/"):
                return
            if kind.startswith("application/cose") and request.url.path.endswith("/download"):
                return
            if kind.split(";")[0].strip() != "application/json":
                self.violations.append(f"{where}: content type {kind!r}")
                return
            body = response.json()
        self.calls.append(
            {
                "method": request.method,
                "path": request.url.path,
                "status": response.status_code,
                "headers": response.headers,
                "body": body,
            }
        )
        if "x-stack-upstream-status" in response.headers and response.status_code >= 400:
            return  # a provider's own error, in the provider's shape
        if response.status_code >= 400:
            self._judge_error(where, response.status_code, body)
        elif (response.status_code == 201) != ((request.method, request.url.path) in CREATED):
            self.violations.append(f"{where}: 201 is for {CREATED}, and for nothing else")
        elif response.status_code not in (200, 201, 204):
            self.violations.append(f"{where}: the contract saw 200, 201 and 204 only")
        else:
            self._judge_shape(where, request.method, request.url.path, body)

    def _judge_error(self, where: str, status: int, body: Any) -> None:
        error = body.get("error") if isinstance(body, dict) else None
        if not isinstance(error, dict) or set(body) != {"error"}:
            self.violations.append(f"{where}: not the error shape: {body}")
            return
        if not set(error) <= {"code", "message", "details"}:
            self.violations.append(f"{where}: keys of the error: {sorted(error)}")
        code, message, details = error.get("code"), error.get("message"), error.get("details", {})
        if not isinstance(code, str) or not re.fullmatch(r"[A-Z][A-Z0-9_]+", code):
            self.violations.append(f"{where}: code {code!r}")
        if not isinstance(message, str) or not message:
            self.violations.append(f"{where}: message {message!r}")
        if not isinstance(details, dict):
            self.violations.append(f"{where}: details {details!r}")
        elif status in (400, 403, 409) and not {"check", "allowed"} <= set(details):
            self.violations.append(f"{where}: details that do not explain {code}: {details}")

    def _judge_shape(self, where: str, method: str, path: str, body: Any) -> None:
        for row_method, pattern, route, keys, inner in _ROUTES:
            if row_method != method or not pattern.match(path):
                continue
            self.seen_routes.add((row_method, route))
            if keys == "[]":
                if not isinstance(body, list):
                    self.violations.append(f"{where}: not an array")
                    return
                body = {"[]": body}
            self._require(where, body, keys)
            for key, wanted in inner.items():
                value = body.get(key, []) if isinstance(body, dict) else None  # that it must be there is said by keys
                for item in value if isinstance(value, list) else [value]:
                    self._require(f"{where}, {key}", item, wanted)
            return

    def _require(self, where: str, value: Any, keys: str) -> None:
        if not isinstance(value, dict):
            self.violations.append(f"{where}: not an object: {value!r}")
            return
        missing = [key for key in keys.split() if key not in value]
        if missing:
            self.violations.append(f"{where}: missing {missing}, has {sorted(value)}")

    def wire(self, since: int = 0) -> list[str]:
        """The calls as "METHOD path" with ids left out."""
        return [
            f"{call['method']} {re.sub(r'/(ms|pp|agt|co|scon)_[^/]+', '/{}', call['path'])}" for call in self.calls[since:]
        ]


class Coverage:
    """Which parameters of which methods were passed by a test."""

    def __init__(self) -> None:
        self.seen: dict[str, set[str]] = {}
        self.wanted: dict[str, set[str]] = {}

    def watch(self, owner: type, names: list[str]) -> None:
        for name in names:
            method = vars(owner)[name]
            label = f"{owner.__name__}.{name}"
            signature = inspect.signature(method)
            self.wanted[label] = {parameter for parameter in signature.parameters if not parameter.startswith(("self", "_"))}
            setattr(owner, name, self._wrap(label, signature, method))

    def _wrap(self, label: str, signature: inspect.Signature, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.seen.setdefault(label, set()).update(signature.bind(*args, **kwargs).arguments)
            return method(*args, **kwargs)

        return call

    def missing(self) -> list[str]:
        gaps = []
        for label, wanted in sorted(self.wanted.items()):
            if label not in self.seen:
                gaps.append(f"{label} was never called")
            else:
                gaps.extend(f"{label}: {name} was never passed" for name in sorted(wanted - self.seen[label]))
        gaps.extend(
            f"{method} {route} was never answered"
            for method, route, _, _ in SHAPES
            if (method, route) not in Judge.seen_routes
        )
        return gaps


def public(service: type) -> list[str]:
    return [name for name, value in list(vars(service).items()) if not name.startswith("_") and callable(value)]


def async_of(service: type) -> type:
    """The service of AsyncStack that stands for one of Stack."""
    module = importlib.import_module(service.__module__.replace("getstack.", "getstack._async."))
    name = service.__name__
    found: type = getattr(module, f"_Async{name[1:]}" if name.startswith("_") else f"Async{name}")
    return found


COVERAGE, ASYNC_COVERAGE = Coverage(), Coverage()
for service in JUDGED:
    COVERAGE.watch(service, public(service))
    ASYNC_COVERAGE.watch(async_of(service), public(async_of(service)))
COVERAGE.watch(Mission, ["log", "delegate", "proxy"])
COVERAGE.watch(Stack, ["issue_passport"])
