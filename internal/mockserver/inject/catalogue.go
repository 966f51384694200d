package inject

// pattern is a pattern of the catalogue, as it is written: phrases in the form that [phrase] explains, and signs that are
// looked for as they are. The catalogue is our own work. (contract: decisions, Injection verdict)
type pattern struct {
	id       string // the family, a dot, a name
	severity Verdict
	// stands is set when a "not" before it does not take it back, since it has its own or is no order.
	stands bool
	// weak is set when it says something only beside another pattern.
	weak    bool
	phrases []string
	signs   []string
}

// patterns are the catalogue.
var patterns = []pattern{
	// Instruction override.
	{id: "override.ignore_previous", severity: Critical, phrases: []string{
		"<drop> ~3 <prior> ~2 (<orders>|programming|training)",
		"(override|overwrite|overrule|supersede) ~1 (all|any|your|the)? (<prior>|your|system) (instructions|prompt|" +
			"directives|programming|orders)",
		"<drop> ~2 (all|every|your) ~3 <orders> ~2 (<prior>|before|given|received|you|so)",
		"<drop> ~2 any ~3 <orders> ~2 (<prior>|before|received)",
		"<drop> ~2 (the|your|all) <orders> (above|before|prior|you|given|and)",
		"<drop> ~2 (the|your|all|any) <orders> that ~1 (you|came|were|i) ~1 (were|given|before|gave|have|had|" +
			"received|got)",
		"<drop> ~1 (your|system|developer) ~2 (system|initial|original|safety|core|<prior>)? (<orders>|programming|" +
			"training)",
		"<drop> ~2 (instructions|commands|rules|orders|prompts) ~1 (before|above|earlier|previously|prior)",
	}},
	{id: "override.ignore_above", severity: Critical, phrases: []string{
		"<drop> ~1 (everything|anything|whatever|evrything) ~4 (above|before|previously|prior|earlier|told|said|" +
			"learned|learnt|written|know|now|taught|instructed|preceding|previous)",
		"<drop> all ~4 (above|before|told|said|learned|learnt|taught|instructed|know)",
		"<drop> (the|all|everything) ~1 (above|preceding|foregoing)",
		"<drop> ~1 (what|things|stuff) ~1 (you|youve|they) ~2 (told|taught|asked|learned|instructed|given)",
		"<drop> ~2 (all|everything|text|content|words|sentences) (above|before)",
	}},
	{id: "override.drop_context", severity: Suspicious, phrases: []string{
		"<drop> ~2 (<prior>|<priormore>) ~2 (<orders>|<ordersmore>)",
		"(<dropmore>|override|overwrite|overrule) ~2 <prior> ~2 (<orders>|context|conversation|messages|training)",
		"<drop> (all|everything|that|this|it|them) (and|now|instead)",
		"(forget|disregard) (everything|all)",
		"<drop> (what|everything) ~2 (told|said|wrote|taught|asked|learned|instructed|know)",
		"(forget|ignore) ~1 your (training|programming|instructions|role|purpose|rules|job)",
	}},
	{id: "override.do_not_follow", severity: Critical, stands: true, phrases: []string{
		"(not|dont|never|stop|no|quit|cease) ~2 (follow|following|obey|obeying|adhere|heed|comply|listen) ~3 " +
			"(<prior>|your|system|developer) ~2 <orders>",
		"(not|dont|never|stop) ~2 (follow|following|obey|obeying|adhere|heed|listen) ~3 (<orders>|told|said) ~2 " +
			"(above|before|given|previously|earlier)",
	}},
	{id: "override.new_instructions", severity: Suspicious, stands: true, phrases: []string{
		"(your|here|these|following) ~2 (new|updated|revised|real|actual|true|only|next) ~2 (instruction|" +
			"instructions|task|directive|directives|role|orders|objective|goal|rules|mission|purpose|job|prompt|identity|" +
			"guidelines)",
		"(new|updated|revised|additional) (instruction|instructions|directive|directives|orders|task|rules|prompt|" +
			"objective) (is|are|follow|below|you|as)",
		"(follow|obey|execute|perform|do) ~2 (these|this|my|following|below|new) ~2 (instructions|instruction|" +
			"commands|orders|directives) ~2 (instead|only|now|exactly|first|carefully|strictly)",
		"(instead|only) (follow|obey|execute|perform|listen) ~2 (these|my|me)",
		"(only|just|must) (listen|answer|obey|follow) ~1 (to|me) ~2 (me|my|commands|orders|instructions)",
		"(now|lets|then) (start|begin|focus|do|move|switch|continue) ~4 (new|different|real|another|actual|" +
			"important) ~2 (task|challenge|topic|story|conversation|session|exercise|assignment|question|request|job)",
		"(new|updated|revised) ~1 (important|urgent|special|critical|secret) (instruction|instructions|directive|" +
			"directives|orders)",
		"important new (instruction|instructions|directive|directives|orders)",
		"(forgot|sorry|mistake|apologies) ~10 (instructions|forgot) ~6 (please|ask|tell|also|need) ~4 you",
	}},
	{id: "override.instead_of_task", severity: Suspicious, stands: true, phrases: []string{
		"(instead|rather) (of|than) (summarizing|translating|answering|classifying|completing|responding|analyzing) " +
			"~6 (output|print|say|write|reply|respond|tell|send|return|do|give|provide|call|run)",
		"(stop|pause|abort|halt) ~2 (summarizing|translating|answering|classifying|processing|analyzing|everything|" +
			"doing|reading|current|task) ~8 (instead|output|print|say|write|reply|respond|now|do)",
		"(before|after|while|prior) ~3 (answering|solving|completing|summarizing|responding|continuing|proceeding|" +
			"solve|complete|finishing|processing|task) ~6 (must|please|first|need|execute|send|call|run|make) ~5 (must|" +
			"please|first|send|call|following|instructions|transfer|email|forward|execute)",
		"(do|not) ~2 (translate|summarize|classify|answer) ~6 (but|instead|rather) ~2 (output|print|say|write|reply|" +
			"respond|tell|send|return|do|give)",
		"(reply|respond|answer|output|say|print|write) ~8 instead of ~4 (answer|answering|normal|usual|question|" +
			"response|summary|reply|summarizing|original)",
		"(before|after) ~2 (answering|responding|replying|answer|respond|reply|continuing|summarizing) ~5 (print|" +
			"append|list|output|quote|send|email|call|repeat|include|invoke|delete|execute)",
		"(call|use|invoke|execute|run|print|send|delete) ~8 (before|after) ~3 (responding|reply|replying|answering|" +
			"respond|answer|continuing)",
		"(forget|ignore|disregard) ~3 (question|task|request|query|user|document) ~3 (and|just|instead|output|reply|" +
			"respond|say)",
	}},
	{id: "override.addressed_to_model", severity: Suspicious, stands: true, phrases: []string{
		"(attention|note|notice|message|instruction|instructions|reminder|memo|warning|important|hello|hey|dear|hi) " +
			"~3 (to|for|all|the|any|important)? ~1 (ai|llm|llms|assistants|chatbot|chatbots|chatgpt|gpt|claude|gemini|" +
			"copilot|agents) ~1 (assistant|assistants|agent|agents|model|models|system|systems|reading|processing|" +
			"summarizing|please|must|should|only|you)",
		"if ~2 you ~2 (are|re|be) ~3 (ai|llm|language|chatbot|bot|automated|assistant|agent) ~4 (please|must|then|" +
			"say|include|output|write|reading|model|assistant|summarizing|processing|reply|agent|screening|reviewing)",
		"(ai|llm|language) (assistant|assistants|agent|agents|model|models) ~3 (reading|processing|summarizing|" +
			"parsing|reviewing|evaluating|must|should|please) ~4 (this|must|should|please|ignore|output|include|" +
			"following)",
		"(when|while|if|anyone) ~3 (summarizing|summarising|summarize|translating|reading|processing|asked|parsing|" +
			"indexing) ~6 (you must|must|always|please|also|include|say|add|append|mention|recommend) ~6 (include|say|" +
			"add|append|mention|recommend|click|visit|send|tell|output|link|following)",
		"(dont|not|never|without) ~2 (tell|inform|mention|alert|notify|telling|informing|mentioning|notifying|reveal|" +
			"disclose) ~2 (the|this|that|to|user|any)? ~2 (user|users|owner|human|anyone|customer|operator|this|these)",
	}},
	{id: "override.dictated_answer", severity: Suspicious, stands: true, phrases: []string{
		"(append|include|add|insert|cite|mention|embed|attach|place|put|state) ~8 (to|in|at|of|with|into) ~3 (your|" +
			"every|each|all|any) ~2 (answer|response|summary|output|answers|replies|responses|summaries)",
		"(end|beginning|start|top|bottom) of ~1 (your|every|each|all|any) ~1 (answer|reply|response|summary|output|" +
			"answers|replies|responses)",
		"(every|each|all|any) ~1 (answer|response|reply|summary|answers|responses|replies) ~8 (must|should|shall|" +
			"has) ~3 (end|begin|start|include|contain|be|cite|mention|recommend)",
		"(begin|start|end|prefix|finish|conclude) ~1 (every|each|your|all) ~2 (answer|reply|response|summary|answers|" +
			"replies|responses) ~1 (with|by)",
		"(regardless|whatever|irrespective|matter) ~3 (user|users|question|asked) ~3 (ask|asks|says|wants|asked|is)",
		"(always|must|only|then) ~1 (respond|reply|answer|output) ~2 (exactly|verbatim|following|word)",
		"(reply|respond|answer) ~1 (only|just|exactly|solely) ~2 (with|the) ~8 (nothing|instead|regardless|whenever|no)",
		"(entire|whole|complete) (answer|response|reply|output) ~1 (must|should|has)",
		"(following|this|also|everything) ~2 in your (answer|response|reply|output)",
		"(reply|respond|answer|output) only ~8 (rather|instead)",
		"if ~1 you ~2 (told|asked|instructed) ~1 (summarize|answer|translate|classify) ~10 (also|instead|sure|then|must)",
	}},
	{id: "override.planted_memory", severity: Suspicious, stands: true, phrases: []string{
		"(save|store|persist|remember|add|commit|record|update) ~8 (memory|memories) ~8 (always|every|future|" +
			"persists|permanently|all|sessions|that|user)",
		"(remember|retain|keep) ~4 (for|in|across) ~1 (all|every|future) ~1 (future|sessions|tasks|conversations|" +
			"replies|responses|turns)",
		"your ~1 (rules|guidelines|instructions|policies|restrictions|directives) ~1 (have|has|are|were) ~2 (changed|" +
			"updated|replaced|lifted|suspended|revoked|modified|removed|void|obsolete)",
		"(exempt|exempted|excluded|excused) ~3 (from|of) ~4 (restrictions|rules|policies|policy|guidelines|" +
			"limitations|filters)",
		"(determined|concluded|established|confirmed|verified|decided) ~4 (rules|guidelines|policies|restrictions|" +
			"request|safety) ~4 (not|exempt|dont|apply|safe|allowed|authorized)",
	}},
	{id: "override.follow_hidden", severity: Suspicious, stands: true, phrases: []string{
		"(decode|decrypt|decipher|translate|unscramble|read) ~8 (follow|execute|obey|comply|act) ~3 (it|exactly|" +
			"instruction|instructions|inside|command|message|accordingly|decoded|what|its|them)",
		"do exactly what ~1 (it|they|that) (says|say|said|asks)",
		"(hidden|secret|embedded|following|encoded|decoded) (directive|instruction|instructions|command|directives) " +
			"~6 (follow|execute|obey|run|must|reply|respond|output|say)",
		"assistant ~1 (note|instruction|instructions|directive|directives|only|memo)",
	}},
	{id: "override.claimed_authority", severity: Suspicious, stands: true, phrases: []string{
		"(system|admin|administrator|developer|security|root|emergency|priority|maintenance|debug) (override|overide|" +
			"command|directive|notice|alert|update|message|instruction|mode) ~2 (activated|enabled|initiated|accepted|" +
			"engaged|authorized|protocol|code|you|all|new|required|ignore|from|the|now|immediately|priority)",
		"(i|im|we|this) ~2 (am|is|are|be)? ~2 (your|the|an) ~1 (developer|creator|administrator|admin|owner|" +
			"programmer|master|operator|engineer|maker)",
		"(authorized|authorised|approved|authorization) ~4 (admin|administrator|developer|openai|anthropic|override)",
		"(enter|entering|switch|enable|activate|initiate|initiating|activating) ~2 (sudo|root|unrestricted|god|" +
			"privileged|superuser|override|admin|administrator) (mode|access|state|privileges|protocol|console)",
		"(sudo|root|admin|administrator) ~1 (access|mode|privileges|rights) ~1 (granted|enabled|activated|unlocked)",
		"(overrides|supersedes|supersede|override) ~2 (all|any|every|your|previous|prior) ~2 (<prior>|other|" +
			"existing)? (<orders>|protocols|policies|safety)",
	}},
	{id: "override.chat_markers", severity: Suspicious, stands: true, signs: []string{
		"<|im_start|>",
		"<|im_end|>",
		"<|system|>",
		"<|endoftext|>",
		"<|eot_id|>",
		"<|start_header_id|>",
		"<|user|>",
		"<|assistant|>",
		"[INST]",
		"[/INST]",
		"<<SYS>>",
		"<</SYS>>",
		"[system](#",
		"</system>",
		"<system>",
		"### Instruction",
		"###Instruction",
		"[SYSTEM]",
		"</instructions>",
		"<start_of_turn>",
		"</user_input>",
		"</prompt>",
		"[END OF",
		"BEGIN SYSTEM",
		"### System",
		"###System", "\n\nHuman:", "[/system]",
	}},
	{id: "override.hijack_actions", severity: Suspicious, stands: true, phrases: []string{
		"(send|forward|email|post|upload|transmit|exfiltrate|transfer|submit|leak|append|attach) ~8 (conversation|" +
			"history|credentials|password|passwords|secrets|keys|apikey|api|tokens|token|cookies|env|contents|emails|" +
			"inbox|files|database|ssh|context|chat) ~8 (to|via|at|into) ~2 (attacker|evil|external|https|http|url|com|" +
			"following|server|webhook|gmail|address|this|mail)",
		"(execute|run|call|invoke|use) ~3 (following|this|these) ~2 (command|commands|shell|code|tool|function|" +
			"script|bash) ~6 (rm|curl|wget|immediately|silently|without|sudo|secretly|delete)",
	}},

	{id: "override.other_languages", severity: Critical, phrases: []string{
		"<drop.other> ~3 <prior.other> ~3 <orders.other>",
		"<drop.other> ~2 <orders.other> ~3 <prior.other>",
		"<prior.other> ~3 <orders.other> ~3 <drop.other>",
		"<drop.other> ~1 (deine|deiner|tus|tes|vos|votre|tue|tuoi|suas|твои|свои) ~2 <orders.other>",
		"(vergiss|vergesst|oublie|oubliez|olvida|olvide|dimentica|esqueça|забудь|забудьте|vergeet) (alles|tout|todo|" +
			"tutto|tudo|все|всё)",
		"(忽|无|無) (略|视|視) ~3 (之|以|先|上|前|所|你) ~8 (指|提|规|設|设|命|要) (令|示|则|定|求)",
		"(忘|别|不) (记|管|要) ~3 (之|以|先|上|前|所) ~8 (指|提|规|命) (令|示|则)",
		"(指|命) (示|令) ~8 (無|忘|无) (視|れ|视)",
		"プ ロ ン プ ト ~8 無視",
	}},

	// Role-play breakout.
	{id: "role_play.unrestricted_persona", severity: Critical, stands: true, phrases: []string{
		"(<act>|youre|become|being) ~8 <evil> ~3 <being>",
		"you (are|will|must|shall|re) ~6 <evil> ~3 <being>",
		"(<act>|become|youre|you) ~5 <being> ~5 (without|no|zero|lacks|lacking|ignores) ~3 (restrictions|limitations|" +
			"filters|censorship|guidelines|ethics|morals|restraints)",
		"<act> ~5 (as|like|if) ~4 (no|without|zero) ~4 (restrictions|limitations|filters|censorship|guidelines|" +
			"ethics|limits|boundaries|rules)",
	}},
	{id: "role_play.no_limits", severity: Suspicious, stands: true, phrases: []string{
		"<you> ~8 (no|without|free|freed|unbound|beyond|exempt|liberated|broken|break|ignore|zero|unaffected|removed|" +
			"never) ~5 <limits>",
		"(has|have|having|with|had) ~2 (no|zero|not) ~4 (restrictions|limitations|filters|censorship|ethics|ethical|" +
			"moral|morals|boundaries|restraints|inhibitions)",
		"(<act>|youre) ~8 <evilmore> ~3 (ai|assistant|chatbot|bot|gpt|chatgpt|persona|intelligence)",
		"(free|freed|broken|break|escaped|liberated) ~4 (from|of|typical|confines|shackles|chains) ~5 (ai|openai|" +
			"rules|restrictions|confines|shackles|limitations|chains|guidelines|policies|constraints)",
		"without ~3 (any|restrictions|filters|censorship|limits|moral|ethical) ~3 (restrictions|filters|filter|" +
			"censorship|limits|limitations|disclaimers|warnings|guidelines|constraints|considerations|censoring|" +
			"judgement)",
		"(<evil>|<evilmore>) ~2 (ai|assistant|chatbot|bot|model|llm|gpt|chatgpt|persona|response|responses|mode|" +
			"version|answers|character)",
	}},
	{id: "role_play.new_identity", severity: Suspicious, stands: true, phrases: []string{
		"(<act>|impersonate) ~2 (as|like|be|being) ~1 dan",
		"from now on ~8 (<act>|refer|chatgpt|answers|questions|gpt|responses)",
		"you are (now|no) ~4 <being>",
		"youre (now|going|about|no) ~3 (<being>|<act>|called|longer|a|an|to)",
		"(<act>) ~2 (that|as|like|to|youre|you) ~3 (be|are|you|youre|if|were) ~4 (<being>|<evil>|not|no|different|" +
			"another|someone)",
		"(hello|hi|hey) (chatgpt|gpt|claude|ai|bard|gemini) ~6 (<act>|immerse|pretend|from|become|going|you)",
		"(chatgpt|gpt|claude|assistant|ai) ~2 (will|must|shall|is) ~2 (now|from|become|<act>|to) ~3 (<act>|be|become|" +
			"as|on|a)",
		"(your|new|whose) (name|identity|role|persona) (is|will|shall) ~1 (now|be|no|to|not)",
	}},
	{id: "role_play.unbound", severity: Suspicious, stands: true, weak: true, phrases: []string{
		"(not|isnt|arent|never|no) ~2 (bound|restricted|limited|constrained|hindered|confined|restrained|governed|" +
			"beholden|bounded) ~3 (by|to|in)",
		"(no|not) longer ~2 (bound|constrained|restricted|limited|follow|obey|subject) ~4 (<limits>|<orders>|" +
			"policies|content)",
	}},
	{id: "role_play.scene", severity: Suspicious, stands: true, weak: true, phrases: []string{
		"from now on ~8 (<you>|only|all|every|everything)",
		"(take|taking|assume|adopt|play|playing|roleplay) ~3 (role|persona|identity|personality|character|part) ~1 " +
			"(of|as|named|called)",
		"(we|lets|us) ~3 (play|roleplay|role|playing|pretend|simulate) ~4 (game|roleplay|scenario|you|character|rp|" +
			"story|hypothetical|playing|play)",
		"(stay|remain|keep|stop|never|not|dont|always|break|breaking|breaks|out|leave|maintain) ~3 (in|of|break|your|" +
			"being|out|breaking)? ~1 character",
		"you (are|will|re|shall) ~2 (now|going|longer|to) ~3 (become|<act>|called|known|named|an|longer)",
	}},
	{id: "role_play.two_voices", severity: Suspicious, stands: true, weak: true, phrases: []string{
		"(two|both|2) ~3 (responses|answers|ways|paragraphs|replies|personalities|outputs|different) ~6 (one|normal|" +
			"as|first|chatgpt|gpt|standard|ai|classic|jailbreak)",
		"(answer|respond|reply|responses|response|prefix|start|begin) ~5 (as|with|like|be) ~3 (both|dan|two|chatgpt|" +
			"gpt|classic|jailbreak)",
		"(normal|standard|regular|classic|chatgpt|gpt) (response|answer|output|reply) ~8 (as|like|second|jailbreak|" +
			"jailbroken|unfiltered|developer|other|dan)",
		"(fictional|hypothetical|imaginary|alternate|parallel) ~3 (world|universe|scenario|story|character|reality|" +
			"dimension|ai|setting) ~8 (no|anything|where|without|everything|named|called) ~6 (rules|laws|restrictions|" +
			"allowed|legal|ethics|limits|limitations|moral|morals|acceptable)",
		"(opposite|evil|reverse|dark|alter|shadow) (day|twin|mode|ego|version|self|world|persona) ~6 (you|" +
			"your|of|answer|respond|would|gpt|mode|chatgpt|ai|who)",
	}},

	{id: "role_play.other_languages", severity: Suspicious, stands: true, phrases: []string{
		"(eres|sei|bist|êtes|você|ты|вы|ahora|jetzt|désormais|ora|agora|теперь|tu|du|responde|rispondi|réponds|" +
			"antworte) ~8 (sin|senza|ohne|sans|sem|без|keine|aucune|ningún|nessuna) ~3 (restricciones|restrizioni|" +
			"einschränkungen|restrictions|restrições|ограничений|regeln|richtlinien|règles|reglas|filtro|filtros|filtri|" +
			"filtre|limites|límites|zensur|censura)",
		"(ab|dès|à|da|a|с) (jetzt|sofort|maintenant|présent|ora|partir|agora|этого) ~5 (bist|es|eres|sei|você|ты|du|" +
			"tu|keine|handle)",
		"(du|tu|ты|você|ahora|ora|jetzt) ~2 (bist|es|eres|sei|é|estás|теперь) ~3 (dan|uneingeschränkt|" +
			"entwicklermodus|modo|modalità|mode|unzensiert) ~2 (desarrollador|développeur|sviluppatore|dan|und|sin)",
		"(du|tu|vous) ~1 (bist|es|êtes) (jetzt|nun|maintenant|désormais) ~1 (uneingeschränkt|unzensiert|frei|sans|" +
			"ohne|libre)",
		"(你|您) ~2 (现|現) 在 ~1 (是|扮|必) ~8 (没|沒|无|無|不) (有|受) ~4 (限|约|束) (制|束)",
	}},

	// System-prompt extraction.
	{id: "extraction.reveal_prompt", severity: Critical, phrases: []string{
		"<revealstrong> ~4 (your|hidden|secret|confidential|internal|developer) ~3 (prompt|instructions|preamble|" +
			"directives|sysprompt|systemprompt)",
		"<revealstrong> ~4 (initial|original|full|entire|exact|complete|above) (system|developer|hidden|base|secret) " +
			"(prompt|message|instructions)",
		"(show|tell|give|provide|share|send|list|state|quote|describe|write|summarize|translate|encode|return|read|" +
			"type) ~4 (your|hidden|secret|initial|original|internal|developer|exact|full|entire|complete) ~1 (system|" +
			"hidden|secret|initial|original|starting|base|developer|internal|preloaded|configuration|pre|first) ~1 " +
			"(prompt|prompts|instructions|message|directives|preamble|guidelines|configuration|rules)",
		"<reveal> ~5 (instructions|prompt|prompts|rules|directives|guidelines|message) ~2 you ~2 (were|was|are|have|" +
			"received|got|started|been) ~2 (given|told|provided|received|with|follow|operate|initially)",
		"<revealstrong> ~3 (everything|all|anything|contents) ~3 context ~1 (window|including|verbatim|above)",
		"(first|last|initial|next|opening) ~3 (sentence|line|word|words|lines|characters|paragraph|sentences|letters|" +
			"token|tokens|half|section) ~3 (your|system|initial|original|hidden) ~2 (prompt|instructions|message|" +
			"directives|preamble)",
	}},
	{id: "extraction.ask_prompt", severity: Suspicious, phrases: []string{
		"<reveal> ~4 (words|text|everything|sentences|message|messages|content|all|lines|line|paragraph|conversation|" +
			"instructions|prompt) ~2 (above|preceding|foregoing)",
		"(starting|beginning|starts|begins|start|begin) with ~3 you are",
		"<revealstrong> ~3 (full|entire|exact|complete) ~1 (prompt|preamble|instructions)",
		"<revealstrong> ~2 (the|all|any|everything|me) ~3 (system|sytem) (prompt|prompts|message|instructions)",
		"<reveal> ~5 (your|system|initial|hidden|original|developer|secret|starting|internal) ~2 <promptish>",
		"(what|whats|which|how) ~3 (your|system|initial|hidden|original|developer|internal|secret) ~3 <promptish>",
		"(were|was|are|been|have) you ~3 (told|instructed|given|programmed|prompted|configured) ~6 (do|not|beginning|" +
			"start|before|prompt|instructions|say|initially|system|first|developer|rules|to)",
		"(your|the|my) (system|initial|original|hidden|secret|developer|internal) (prompt|instructions|directives) " +
			"~3 (verbatim|word|exactly|above|please|here|now|in|as)",
	}},
	{id: "extraction.repeat_above", severity: Critical, phrases: []string{
		"(repeat|print|output|recite|write|echo|reproduce|say|type) ~4 (words|text|everything|sentence|sentences|" +
			"message|messages|prompt|conversation) ~2 (above|preceding|foregoing)",
		"(repeat|recite|reproduce|echo) ~3 (everything|words|instructions|prompt) ~5 (verbatim|beginning|word)",
		"(repeat|print|output|copy|recite|write|echo|display|reproduce|return|show|say|list) ~4 (words|text|" +
			"everything|sentence|sentences|message|messages|content|all|lines|line|paragraph|conversation) ~2 (before|" +
			"prior) ~1 (this|that|my)",
		"(output|print|repeat|return|write) ~3 (initialization|beginning|start|top) ~3 (prompt|conversation|context|" +
			"chat)",
	}},
	{id: "extraction.secrets", severity: Suspicious, phrases: []string{
		"(reveal|disclose|leak|divulge|expose|exfiltrate|steal|tell|give|share|send|spell|hint|say|describe|whats) " +
			"~3 (the|your|all|any|me|us|secret|admin|user|stored|users|environment) ~2 (<secret>|flag|secret|env)",
		"(what|print|output|show|repeat|dump|extract|encode|write) ~2 (the|your|all) ~1 (secret|admin|hidden|stored) " +
			"~1 (<secret>|flag|secret)",
		"(what|print|output|show|repeat|whats) ~2 your ~1 (<secret>|flag|secret|secrets)",
		"(reveal|give|tell|dump|leak|show|send|print|list) ~2 (me|us|your|all|any) ~3 (api|access|ssh|private|secret|" +
			"encryption) (key|keys|token|tokens|credentials)",
		"(list|show|reveal|describe|what|enumerate) ~4 (tool|tools|function|functions|apis|plugins) ~3 (you|your|" +
			"available) ~3 (have|access|available|use|can|you)",
		"(collect|gather|send|email|forward|export|transmit|leak|exfiltrate) ~4 (customer|customers|user|client|full|" +
			"entire|employee|all) ~3 (list|emails|data|database|records|details|information|addresses) ~4 (to|and|at) ~2 " +
			"(attacker|evil|external|send|them|https|http|address|following|email|outside)",
		"(may|must|can|should|now) now? (reveal|disclose|leak|share|expose|output) ~2 (confidential|secret|private|" +
			"sensitive|restricted|internal|classified) ~1 (data|information|content|details|documents|files)",
	}},

	{id: "extraction.other_languages", severity: Critical, phrases: []string{
		"<reveal.other> ~3 <prompt.other> ~2 <system.other>",
		"<reveal.other> ~3 <system.other> ~2 <prompt.other>",
		"(输|显|告|重|透|打|展|说) (出|示|诉|复|露|印|出) ~10 (系|初|原) (统|始) ~2 (提|指|消|设) (示|令|息|定)",
		"シ ス テ ム ~1 プ ロ ン プ ト ~6 (教|表|出|見|開)",
	}},

	// Named jailbreaks.
	{id: "jailbreak.dan", severity: Critical, stands: true, phrases: []string{
		"do anything now",
		"dan (mode|prompt|jailbreak|10|11|12)",
		"(you|youre|chatgpt|gpt) ~2 (are|become|be|now) ~1 dan",
		"(stay|still|remain) ~1 (a|in|as)? (dan|stan|dude|antigpt|basedgpt)",
		"(strive|strives|striving) to avoid norms",
	}},
	{id: "jailbreak.developer_mode", severity: Critical, stands: true, phrases: []string{
		"developer mode ~3 (enabled|output|on|activated|response|policy|policies|can|has|simulating|v2|responses|" +
			"would|was|doesnt|enable)",
		"(youre|you|chatgpt|gpt|simulate|emulate|mimic|pretend|responses|answer) ~4 developer mode",
		"(dev|god|jailbreak|jailbroken|unrestricted|evil|chaos|sudo|uncensored|unfiltered|godmode|antigpt|nsfw|" +
			"anarchy|rebel|hacker|unsafe|unlimited|superuser|freedom|liberated) mode ~3 (enabled|on|activated|output|" +
			"engaged|you|is|unlocked|now|active|where|response|which|and|gpt)",
		"(enable|activate|enter|entering|engage|unlock|initiate|switch) ~3 (god|jailbreak|jailbroken|unrestricted|" +
			"evil|chaos|sudo|uncensored|unfiltered|antigpt|rebel|superuser) mode",
	}},
	{id: "jailbreak.enter_mode", severity: Suspicious, phrases: []string{
		"(enable|enabled|activate|enter|entering|with|switch) ~4 developer mode",
	}},
	{id: "jailbreak.policy_file", severity: Suspicious, stands: true, phrases: []string{
		"(blocked|allowed) (strings|modes|responses|mode|response|string)",
		"interaction config",
		"(rules|policy|policies|config|configuration) ~3 (allowed|blocked) ~2 (modes|responses|strings)",
	}},
	{id: "jailbreak.named", severity: Critical, stands: true, phrases: []string{
		"always intelligent and machiavellian", "mongo tom",
		"(antigpt|basedgpt|betterdan|chadgpt|godgpt|jailgpt|freegpt|evilgpt|darkgpt|wormgpt|fraudgpt|deltagpt|" +
			"hackgpt|ucar|burple) ~2 (will|is|always|would|mode|you|can|has|as|answers|responds|are|does|must|" +
			"virtual)",
		"(niccolo) machiavelli ~12 (chatbot|aim|unfiltered|character)",
		"amoral ~3 (computer|chatbot|character|hero|chat)",
		"(my|deceased|late|dead|dear) (grandmother|grandma|granny) ~12 (used|would|who|tell|read|keys|chemical|" +
			"napalm|stories|bedtime)",
		"(universal|skeleton) (jailbreak|key) ~4 (mode|prompt|you|ai)",
		"(jailbreak|jailbroken) ~2 (yourself|chatgpt|gpt|claude|gemini|mode|response|you)",
		"(you|been|become|gpt|chatgpt|youre) ~3 jailbroken",
		"(start|currently|have|given|starting|with|deduct|deducted|lose) ~3 (35|10|100|50|token|tokens|points) ~5 " +
			"(tokens|token|points|deducted|deduct|lose) ~8 (die|refuse|cease|character|subscriber|reject|deducted|" +
			"question|shut|time)",
	}},

	// Safety bypass.
	{id: "bypass.disable_safety", severity: Critical, phrases: []string{
		"<disable> ~2 (your|all|any|every|its|openais|openai) ~3 (safety|content|ethical|ethics|moral|moderation|" +
			"openai|openais|alignment|censorship|anthropic) ~2 <measures>",
		"turn off ~3 (safety|content|ethical|moral|moderation|censorship) ~2 <measures>",
		"(ignore|disregard|bypass|override|forget|disable) ~2 (your|openais|openai|all) ~2 (policies|restrictions|" +
			"limitations|safeguards|guardrails|filters|censorship|ethics|morals|programming)",
	}},
	{id: "bypass.talk_of_safety", severity: Suspicious, phrases: []string{
		"<disable> ~4 <safety> ~2 <measures>",
		"(openai|openais|anthropic|ai|content|safety|ethical) ~2 (policy|policies|guidelines|restrictions|rules) ~6 " +
			"(not|no|dont|doesnt|longer|ignored|disabled|bypassed|override|removed|apply|lifted|irrelevant|replaced|" +
			"ignore)",
		"(no|not|without|dont|never|zero|none|regardless|ignoring|remove) ~3 (ethical|moral|legal|safety|morality|" +
			"ethics|disclaimers|disclaimer|censorship) ~3 (guidelines|considerations|concerns|warnings|disclaimers|" +
			"restrictions|constraints|boundaries|judgement|judgment|implications|limits|limitations|principles|standards|" +
			"reasons|qualms|filters|consequences|lectures|advice|notes|whatsoever)",
		"(even|regardless|matter|whether|although) ~6 (if|how|it|of|is|be) ~6 <harm>",
		"(generate|produce|create|write|provide|say|answer|output|give|use|discuss|display) ~5 (<harm>|nsfw|" +
			"uncensored|unfiltered|explicit) ~2 (content|information|responses|material|text|jokes|questions|things|" +
			"requests|advice|language|instructions|topics|answers)",
	}},
	{id: "bypass.never_refuse", severity: Suspicious, stands: true, phrases: []string{
		"(never|not|cannot|cant|wont|dont|without|nor|shall|unable|doesnt|impossible) ~4 (refuse|refuses|refusing|" +
			"decline|declines|apologize|apologise|apologizes|apologies|moralize|lecture|refusal|refusals|censor)",
		"never ~3 (reject|rejects|deny|warn|warns|disclaim)",
		"(never|not|dont|avoid|without|cannot|cant|no|doesnt|stop) ~5 (say|saying|use|mention|include|tell|says|" +
			"respond|respone|responding|start|reply|state|words|phrases) ~5 (cannot|cant|sorry|as|unable|apologize|no|" +
			"unfortunately|however|not|wont|against|inappropriate) ~2 (ai|do|but|fulfill|language|assist|answer|help|" +
			"comply|that|an|allowed|it|i|provide)",
		"(must|will|always|should|shall|obligated|have) ~3 (comply|obey|answer|fulfill|accept|follow|agree|respond|" +
			"do|satisfy) ~4 (every|any|all|everything|anything|whatever|without|no) ~4 (request|requests|question|" +
			"questions|command|commands|asked|demand|ask|prompt|order|orders|say|hesitation|matter|users|exception|" +
			"instructions|told)",
		"(answer|respond|comply|say|tell|generate|do) ~3 (anything|everything|whatever|any) ~3 (ask|asked|question|" +
			"questions|request|told|say|user)",
		"(begin|start|starts|begins|starting|beginning|prefix|open|preface|opening) ~5 (response|reply|answer|output|" +
			"message|responses|with|it|sentence|by) ~4 (sure|absolutely|certainly|course|yes|saying)",
	}},
	{id: "bypass.excuse", severity: Suspicious, stands: true, phrases: []string{
		"(purely|only|solely|strictly|just|for|entirely|completely) ~3 (educational|research|academic|fictional|" +
			"hypothetical|testing|training|entertainment) ~1 (purposes|purpose|use|reasons|setting|context|only|" +
			"scenario) ~8 (so|no|not|you|harmless|illegal|harm|harmful|please|anything|ignore|without|real)",
		"(i|we) ~3 (authorized|authorised|permission|consent|licensed|allowed|certified) ~6 (bypass|test|access|" +
			"request|ignore|disable|see|content|jailbreak|view)",
		"(hypothetically|theoretically|hypothetical|fictional) ~8 (how|would|step|if|response|story|where) ~8 (make|" +
			"build|create|hack|steal|kill|bomb|drugs|bypass|illegal|weapon|meth|cook|synthesize)",
		"(step) by step ~6 (make|build|create|hack|steal|bomb|bypass|meth|explosive|weapon|instructions|synthesize) " +
			"~6 (bomb|meth|explosive|explosives|weapon|weapons|drugs|malware|virus|molotov|car|napalm|poison|account|" +
			"network|ransomware)",
	}},
}
