package mockserver

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/getstack-go/stack"
)

// catalogEntry is a service that can be connected, and what connecting it takes beside the token.
type catalogEntry struct {
	stack.Service
	fields []stack.CredentialField
}

// Fields that some services need. Their values are no secrets: they fill the {{placeholders}} of proxied URLs.
const (
	fieldToken    = "oauth_token"
	fieldInstance = "instance_url"
	fieldAccount  = "account_id"
	fieldUsername = "username"
)

// anyScope is the scope of services whose credentials know none.
const anyScope = "api"

// catalog is what is built in. Who is in it is the contract's; hosts, scopes and the choice of injection are ours.
// (contract: decisions, Catalogue)
var catalog = makeCatalog()

func makeCatalog() []catalogEntry {
	bearer, basic := stack.Injection{Kind: stack.InjectBearer}, stack.Injection{Kind: stack.InjectBasic}
	header := func(name, prefix string) stack.Injection {
		return stack.Injection{Kind: stack.InjectHeader, Header: name, Prefix: prefix}
	}
	instance := func(example string) []stack.CredentialField {
		return []stack.CredentialField{{Name: fieldInstance, Required: true,
			Description: "the account's own origin, such as " + example}}
	}
	oauth, apiKey := stack.AuthKindOAuth, stack.AuthKindAPIKey
	return []catalogEntry{
		entry("slack", "Slack", "Messages, channels and files", oauth, bearer, "slack.com files.slack.com",
			"channels:history channels:read channels:join chat:write files:read files:write groups:read im:write reactions:write "+
				"users:read users:read.email"),
		entry("github", "GitHub", "Repositories, issues and pull requests", oauth, bearer, "api.github.com uploads.github.com",
			"repo public_repo read:org read:user user:email workflow gist"),
		entry("google", "Google Workspace", "Gmail, Drive and Calendar", oauth, bearer, "gmail.googleapis.com www.googleapis.com",
			"https://www.googleapis.com/auth/gmail.readonly https://www.googleapis.com/auth/gmail.send "+
				"https://www.googleapis.com/auth/drive.readonly https://www.googleapis.com/auth/drive.file "+
				"https://www.googleapis.com/auth/calendar.readonly https://www.googleapis.com/auth/calendar.events"),
		entry("notion", "Notion", "Pages and databases", oauth, bearer, "api.notion.com",
			"read_content update_content insert_content"),
		entry("linear", "Linear", "Issues and projects", oauth, bearer, "api.linear.app",
			"read write issues:create comments:create"),
		entry("jira", "Jira", "Issues and projects", oauth, bearer, "api.atlassian.com",
			"read:jira-work write:jira-work read:jira-user offline_access"),
		entry("hubspot", "HubSpot", "Contacts, companies and deals", oauth, bearer, "api.hubapi.com",
			"crm.objects.contacts.read crm.objects.contacts.write crm.objects.companies.read crm.objects.deals.read"),
		entry("stripe", "Stripe", "Payments and customers", apiKey, bearer, "api.stripe.com files.stripe.com",
			"read_only read_write"),
		entry("openai", "OpenAI", "Language models", apiKey, bearer, "api.openai.com", anyScope),
		entry("anthropic", "Anthropic", "Language models", apiKey, header("x-api-key", ""), "api.anthropic.com", anyScope),
		entry("openrouter", "OpenRouter", "Language models of many makers", apiKey, bearer, "openrouter.ai", anyScope),
		entry("supabase", "Supabase", "Database, storage and functions of a project", apiKey, header("apikey", ""),
			"*.supabase.co", anyScope, instance("https://abcdefgh.supabase.co")...),
		entry("discord", "Discord", "Messages of a bot", apiKey, header("Authorization", "Bot "), "discord.com", "bot"),
		entry("twilio", "Twilio", "Calls and text messages", stack.AuthKindBasic, basic, "api.twilio.com", anyScope,
			stack.CredentialField{Name: fieldAccount, Required: true, Description: "the account SID, which is also the user name"}),
		entry("sendgrid", "SendGrid", "Email", apiKey, bearer, "api.sendgrid.com", "mail.send templates.read"),
		entry("resend", "Resend", "Email", apiKey, bearer, "api.resend.com", "sending_access full_access"),
		entry("agentmail", "AgentMail", "Inboxes for agents", apiKey, bearer, "api.agentmail.to", anyScope),
		entry("zendesk", "Zendesk", "Tickets", oauth, bearer, "*.zendesk.com", "read write tickets:read tickets:write",
			instance("https://acme.zendesk.com")...),
		entry("intercom", "Intercom", "Conversations and contacts", oauth, bearer, "api.intercom.io",
			"read_conversations write_conversations read_users"),
		entry("salesforce", "Salesforce", "Accounts, contacts and cases", oauth, bearer, "*.salesforce.com", "api refresh_token",
			instance("https://acme.my.salesforce.com")...),
		entry("s3", "S3-compatible storage", "Object storage behind a gateway that takes the key pair as basic authentication; "+
			"requests are not signed", stack.AuthKindCustom, basic, "*", anyScope,
			append(instance("https://storage.example.com"),
				stack.CredentialField{Name: fieldUsername, Required: true, Description: "the access key id"})...),
	}
}

// entry makes a catalogue entry; hosts and scopes are separated by spaces.
func entry(provider, name, description string, kind stack.AuthKind, how stack.Injection, hosts, scopes string,
	fields ...stack.CredentialField) catalogEntry {
	return catalogEntry{fields: fields, Service: stack.Service{ID: "svc_" + provider, Provider: provider, Name: name,
		Description: description, AuthKind: kind, Injection: how, AllowedHosts: strings.Fields(hosts),
		Scopes: strings.Fields(scopes)}}
}

// catalogued finds an entry by its id or its provider key.
func catalogued(idOrProvider string) (*catalogEntry, bool) {
	for i := range catalog {
		if e := &catalog[i]; e.ID == idOrProvider || e.Provider == idOrProvider {
			return e, true
		}
	}
	return nil, false
}

func (s *Server) listCatalog(context.Context, *caller, none) (*[]stack.Service, error) {
	list := make([]stack.Service, len(catalog))
	for i, e := range catalog {
		list[i] = e.Service
	}
	return &list, nil
}

// customFields are those of a custom credential. A string instead of an object is a bearer token.
var customFields = []stack.CredentialField{
	{Name: fieldUsername, Description: "user name of basic authentication, with a password"},
	{Name: fieldPassword, Description: "password of basic authentication, with a username", Secret: true},
	{Name: headerField + "<Name>", Description: "a header of that name", Secret: true},
}

func (s *Server) listTemplates(context.Context, *caller, none) (*[]stack.ServiceTemplate, error) {
	list := make([]stack.ServiceTemplate, 0, len(catalog)+1)
	for _, e := range catalog {
		secret := stack.CredentialField{Name: fieldToken, Description: "the " + tokenNames[e.AuthKind], Secret: true, Required: true}
		if e.AuthKind == stack.AuthKindOAuth {
			secret.Description, secret.Required = secret.Description+"; left out, somebody is asked for their consent", false
		}
		list = append(list, stack.ServiceTemplate{Provider: e.Provider, Name: e.Name, AuthKind: e.AuthKind,
			Fields: append([]stack.CredentialField{secret}, e.fields...)})
	}
	list = append(list, stack.ServiceTemplate{Provider: "custom", Name: "Custom service", AuthKind: stack.AuthKindCustom,
		Fields: customFields})
	return &list, nil
}

var tokenNames = map[stack.AuthKind]string{stack.AuthKindOAuth: "access token", stack.AuthKindAPIKey: "API key",
	stack.AuthKindBasic: "password", stack.AuthKindCustom: "secret key"}

var placeholderValue = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,256}$`)

// checkFields holds the rules for what is given beside the token, and returns the hosts that the credential may go to.
func (e *catalogEntry) checkFields(given map[string]string) (hosts []string, err error) {
	var names []string
	for _, f := range e.fields {
		names = append(names, f.Name)
		if given[f.Name] == "" {
			return nil, invalid("body.fields."+f.Name, nil, f.Description)
		}
	}
	hosts = e.AllowedHosts
	for _, name := range sortedKeys(given) {
		value, at := given[name], "body.fields."+clip(name)
		if !slices.Contains(names, name) {
			allowed := "left out: " + e.Name + " needs no fields beside the token"
			if names != nil {
				allowed = "one of " + strings.Join(names, ", ")
			}
			return nil, invalid(at, "an unknown field", allowed)
		}
		if name == fieldInstance {
			host, err := e.instanceHost(value)
			if err != nil {
				return nil, err
			}
			hosts = []string{host}
			continue
		}
		if !placeholderValue.MatchString(value) {
			return nil, invalid(at, value, "1 to 256 letters, digits, dots, hyphens, underscores and tildes")
		}
	}
	return hosts, nil
}

// instanceHost takes the host out of an account's own origin, which must be one of the entry's.
func (e *catalogEntry) instanceHost(origin string) (string, error) {
	allowed := "an origin, https://host, without user information, path and query"
	if pattern := e.AllowedHosts[0]; pattern != "*" {
		allowed += ", whose host is " + pattern
	}
	host, ok := strings.CutPrefix(origin, "https://")
	suffix := strings.TrimPrefix(e.AllowedHosts[0], "*")
	if !ok || checkHost("", host) != nil || !strings.HasSuffix(host, suffix) {
		if strings.ContainsAny(origin, "@?") { // user information or a query may hold a secret
			origin = "[REDACTED]"
		}
		return "", invalid("body.fields."+fieldInstance, origin, allowed)
	}
	return host, nil
}
