package inject

// lists are the words that phrases name as <name>. They are looked up in small letters, without marks or apostrophes.
var lists = map[string]string{
	// What is done to instructions.
	"drop": `ignore ignores disregard disregards forget neglect overlook dismiss discard unlearn`,
	"dropmore": `skip bypass erase delete clear reset void cancel remove stop drop omit replace ignoring
		disregarding forgetting ignored invalidate revoke suspend circumvent wipe flush purge scrap negate terminate
		nullify abandon`,
	"prior": `previous previously prior above preceding earlier foregoing former past initial original
		aforementioned prev precedent`,
	"priormore": `current existing old all any every your my these those system other last given default built
		developer underlying core programmed standing baseline`,
	"orders": `instruction instructions prompt prompts directive directives rule rules guideline guidelines
		command commands orders programming direction directions instructs instructional guidance`,
	"ordersmore": `context conversation conversations text texts message messages input inputs training
		restriction restrictions constraint constraints limitation limitations task tasks assignment assignments
		request requests question questions information words chat everything`,
	"limits": `restriction restrictions restrictive limitation limitations limit limits constraint constraints
		rule rules filter filters censorship censor censored guideline guidelines boundaries boundary safeguards
		safeguard guardrails policies policy ethics ethical moral morals morality moderation regulations inhibitions
		shackles norms disclaimers restraints`,
	"safety": `safety content ethical ethics moral security moderation openai openais alignment censorship
		compliance anthropic google usage community guardrail guardrails protective safeguard`,
	"measures": `filter filters guideline guidelines restriction restrictions measures measure protocol
		protocols policy policies rules mechanisms mechanism checks controls settings features constraints
		guardrails boundaries systems training layer layers standards principles considerations programming`,
	"disable": `bypass disable deactivate circumvent evade override ignore disregard remove lift unlock suspend
		defeat sidestep skip forget disabling bypassing ignoring overriding removing off`,

	// Who the model is to be.
	"act": `act acting behave pretend pretending roleplay role imagine simulate simulating impersonate emulate
		respond answer play speak reply roleplaying immerse embody portray`,
	"evil": `unrestricted uncensored unfiltered amoral immoral unethical jailbroken lawless unhinged unmoderated
		unaligned unchained unconstrained machiavellian depraved sadistic sociopathic psychopathic`,
	"evilmore": `unlimited evil malicious unbound rogue villain villainous villian limitless ruthless`,
	"being": `ai assistant chatbot bot model llm gpt chatgpt persona character entity hacker version mode being
		intelligence robot agent claude gemini simulator machine system language expert`,
	"you": `you youre your yourself u ur youll youve`,
	"harm": `illegal unethical immoral harmful dangerous offensive inappropriate unlawful explicit hateful
		controversial violent amoral toxic malicious taboo racist obscene criminal`,

	// Getting at the system prompt and secrets.
	"reveal": `reveal show print display output repeat disclose leak expose recite echo dump divulge share tell
		give return copy paste quote reproduce reiterate spell transcribe list describe write provide state
		summarize summarise translate paraphrase encode type restate rephrase extract outline explain read render
		regurgitate append include post respond printing revealing repeating outputting showing disclosing`,
	"revealstrong": `reveal print display output repeat disclose leak expose recite echo dump divulge
		regurgitate reproduce copy paste reiterate transcribe extract`,
	"promptish": `prompt prompts instruction instructions directive directives rules guidelines preamble
		sysprompt systemprompt metaprompt`,
	"secret": `password passwords passphrase credentials credential secrets passcode apikey token tokens keys
		key pin cookie cookies`,

	// The same in other languages.
	"drop.other": `ignoriere ignorieren ignoriert ignorier vergiss vergesst vergessen missachte verwirf umgehe
		überschreibe ignore ignorez ignorer oublie oubliez oublier négligez négliger abandonne contourne ignora
		ignorar ignoren ignoras olvida olvide olvidar olvídate descarta desestima omite esqueça esquece esquecer
		desconsidere desconsidera dimentica dimenticate dimenticare ignorate ignorare ignori scorda trascura negeer
		vergeet ignorera glöm zignoruj ignoruj zapomnij unut yoksay abaikan lupakan игнорируй игнорируйте забудь
		забудьте проигнорируй проигнорируйте отбрось ігноруй ігноруйте تجاهل انس انسى अनदेखा नजरअंदाज भूल התעלם
		תתעלם שכח 무시하십시오 무시해 무시하고 무시하세요 무시해라 무시하라 무시 잊어 잊어버려 잊고`,
	"prior.other": `vorherigen vorherige vorigen bisherigen obigen früheren vorhergehenden vorangegangenen
		ursprünglichen alle alles précédentes précédente précédents antérieures toutes tout tous dessus anteriores
		anterior previas previos todas todo todos tudo prévias iniciales originales precedenti precedente tutte
		tutto tutti sopra vorige eerdere poprzednie wszystkie önceki tüm sebelumnya предыдущие предыдущих прежние
		прошлые все всё ранее попередні всі السابقة جميع كل أعلاه पिछले पिछली सभी הקודמות כל 이전의 이전 앞의 위의 모든 지금까지의`,
	"orders.other": `anweisungen anweisung instruktionen befehle regeln richtlinien vorgaben systemanweisungen
		instructions consignes directives règles instrucciones instrucción órdenes reglas directrices indicaciones
		instruções regras diretrizes ordens istruzioni istruzione regole direttive indicazioni comandi instructies
		regels instrukcje polecenia talimatları talimatlar kuralları instruksi perintah aturan инструкции инструкций
		инструкцию указания правила команды інструкції التعليمات الأوامر تعليمات التوجيهات निर्देशों निर्देश आदेशों
		ההוראות הנחיות 지시를 지시사항을 지침을 명령을 프롬프트를 지시 지침 명령`,
	"reveal.other": `zeige zeig verrate nenne wiederhole offenbare gib ausgeben montre montrez révèle révélez
		affiche affichez donne donnez répète répétez muestra muéstrame revela revelar revele dime repite imprime
		mostre mostra mostrami rivela rivelami ripeti stampa diga repita toon geef herhaal pokaż göster покажи
		покажите раскрой раскройте выведи выведите повтори tampilkan اعرض اكشف أظهر`,
	"prompt.other": `prompt systemprompt systemanweisungen systemnachricht anweisungen instructions
		instrucciones istruzioni instruções consignes systeemprompt instrukcje промпт инструкции mensaje messaggio
		التعليمات`,
	"system.other": `system système sistema systemu sistem initial initiales iniciales originales ursprünglichen
		nascoste ocultas cachées geheimen системный системные системы النظام dein deine deinen deiner tu tus ton tes
		votre vos tuo tuoi tua tue seu suas jouw твой твои свой свои свои`,

	// Words that take a phrase back, or say that it is talked about. They are what the surroundings are judged by.
	"not": `not never dont cannot cant shouldnt wont mustnt doesnt didnt without neither nor refuse refuses
		refused avoid no wouldnt couldnt isnt arent nicht niemals kein ne jamais nunca non`,
	"forbid": `never not dont cannot cant shouldnt mustnt nicht niemals jamais nunca`,
	"why":    `why`,
	"report": `attacker attackers adversary adversaries hacker hackers malicious user users someone they he she
		it model models says said saying say writes wrote written like eg ie example examples such phrase phrases
		called string strings asks asked asking tells told telling instructs instructed instructing tricks tricked
		tricking tries tried trying attempt attempts attempted try can could may might would contains containing
		contained include includes including included embed embedded embeds hides hidden text sentence message
		payload payloads prompts detects detect detected blocks blocked flag flags flagged catch catches prevent
		prevents stops reported report reports titled labelled named caused causes causing makes made convince
		convinces persuades persuade claims claiming reads quote quoted via where when if whether means types typed
		inserts inserted short known aka message messages prompt input inputs answered customer customers got
		received sent attack attacks pattern patterns test tests matches match matching`,
	// What an order is about, as people say to each other.
	"about": `about regarding concerning on re`,
	"mention": `injection injections inject injected jailbreak jailbreaks jailbreaking jailbroken attack attacks
		attacker attackers adversarial vulnerability vulnerabilities exploit exploits exploited malicious payload
		payloads mitigation mitigations mitigate detection detect detects detector detectors detected classifier
		guardrail guardrails owasp cve redteam red researcher researchers threat threats exfiltration exfiltrate
		phishing defend defense defenses defence defences sanitize sanitise untrusted heuristic regex scanner
		scanners scan scans benchmark blocked blocks flagged flags signature signatures pattern patterns corpus
		dataset false positives positive bug reproduce severity spoofing poisoning obfuscation evasion firewall
		findings finding security filters tricked exploitability tactic tactics technique techniques paper article
		blog study incident newsletter advisory`,
}
