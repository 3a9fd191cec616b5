"""The words of column names and cells that say who may be emailed, in many languages.

Exports write the same few facts in many ways: ``subscribed_to_emails=false``, ``EMAIL
BLACKLISTED=true``, ``Abgemeldet am``, ``status=cleaned``. This module turns a column name into a
``Sense``, and a cell into a status, or yes or no. A name that is about leaving but unclear gets
``ASK``: a guess could send emails to people who unsubscribed.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from subscribers.models import SuppressionReason

SUBSCRIBED = "subscribed"
UNCONFIRMED = "unconfirmed"
LEAVING = frozenset(reason.value for reason in SuppressionReason)
#: From emailed to excluded: if a row says two things, the later one counts.
STRENGTH = {
    state: place
    for place, state in enumerate(
        (SUBSCRIBED, UNCONFIRMED, *(one.value for one in SuppressionReason))
    )
}

#: Characters of a name or cell that are searched for words: no status is longer.
_LONGEST = 120
_LETTERS = str.maketrans(
    {
        "ß": "ss",
        "ł": "l",
        "ø": "o",
        "đ": "d",
        "æ": "ae",
        "œ": "oe",
        "ı": "i",
        "+": "plus",
        "#": "sharp",
    }
)


def fold(text: str) -> str:
    """The text without case, accents, spaces and punctuation, to compare names.

    ``+`` and ``#`` are kept, since C, C++ and C# are three topics.
    """
    spelt = unicodedata.normalize("NFKD", text.casefold().translate(_LETTERS))
    return "".join(c for c in spelt.translate(_LETTERS) if c.isalnum())


def tokens(name: str) -> list[str]:
    """The words of a column's name: ``isExcludedFrom`` and ``is_excluded from`` have three."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name[:_LONGEST])
    return [word for part in re.split(r"[\W_]+", spaced) if (word := fold(part))]


# Cells.

#: Words of exports for a status → the status.
_STATES = {
    word: state
    for state, words in {
        SUBSCRIBED: (
            "subscribed active activated enabled confirmed optedin optin regular sub subscriber "
            "explicit express implied marketingcontact abonniert angemeldet aktiv bestatigt "
            "bestaetigt abonne abonnee inscrit inscrite actif active suscrito suscrita activo "
            "inscrito inscrita ativo iscritto iscritta attivo ingeschreven geabonneerd actief "
            "zapisany zapisana aktywny aktywna"
        ),
        UNCONFIRMED: (
            "unconfirmed pending nonsubscribed notsubscribed neversubscribed transactional "
            "unactivated validating awaitingconfirmation awaitingoptin notconfirmed "
            "needsattention nopermissionsset nopermission noconsent notoptedin noncontact "
            "nonmarketingcontact temphold onhold paused unbestatigt unbestaetigt ausstehend "
            "enattente nonconfirme pendiente sinconfirmar pendente inattesa nonconfermato "
            "inafwachting onbevestigd oczekujacy niepotwierdzony"
        ),
        SuppressionReason.UNSUBSCRIBED.value: (
            "unsubscribed unsub unsubscribe inactive optedout optout cancelled canceled removed "
            "deleted archived left churned blocklisted blacklisted donotemail donotmail "
            "donotcontact abgemeldet ausgetragen gekundigt gekuendigt inaktiv desabonne desabonnee "
            "desinscrit desinscrite inactif inactive debaja dadodebaja dadadebaja baja cancelado "
            "cancelada desuscrito inactivo descadastrado descadastrada inativo desinscrito "
            "disiscritto disiscritta cancellato cancellata inattivo afgemeld uitgeschreven "
            "inactief wypisany wypisana nieaktywny nieaktywna"
        ),
        SuppressionReason.BOUNCED.value: (
            "bounced bounce cleaned hardbounce hardbounced softbounce softbounced undeliverable "
            "undelivered invalid invalidemail unreachable nonexistent unzustellbar ungultig "
            "ungueltig rebond npai rebotado rebote invalido rimbalzato nonvalido onbestelbaar "
            "odbity"
        ),
        SuppressionReason.COMPLAINED.value: (
            "complained complaint spam abuse junk spammy spamreport markedasspam reportedspam "
            "spamcomplaint reportedasspam beschwerde plainte queja reclamacao reclamo klacht skarga"
        ),
        SuppressionReason.MANUAL.value: (
            "manual disabled blocked suppressed quarantined banned excluded gesperrt blockiert "
            "deaktiviert bloque bloquee desactive bloqueado bloqueada bloccato disabilitato "
            "geblokkeerd zablokowany"
        ),
        SuppressionReason.ERASED.value: "erased",
    }.items()
    for word in words.split()
}
#: SMTP reply codes (RFC 5321, section 4.2) and enhanced status codes (RFC 3463) in bounce lists.
_REPLY = re.compile(r"[45](?:\d\d|\.\d{1,3}\.\d{1,3})")
#: Words that mean that somebody left, whatever the column's name is.
_LEAVING_WORDS = frozenset(
    word
    for word, state in _STATES.items()
    if state in LEAVING
    and re.search(
        r"unsub|opted?out|bounce|complain|cleaned|black|blocklisted|suppressed|donot", word
    )
) | frozenset(
    "undeliverable abgemeldet desabonne desabonnee desinscrit desinscrite dadodebaja dadadebaja "
    "descadastrado descadastrada disiscritto disiscritta afgemeld uitgeschreven wypisany wypisana "
    "markedasspam reportedspam spamreport nonsubscribed notsubscribed neversubscribed".split()
)
#: Words that show that a column is a status column, if its name may mean something else.
_STATUS_WORDS = _LEAVING_WORDS | frozenset(
    "subscribed active inactive unconfirmed pending cancelled canceled optedin optin "
    "abonniert aktiv inaktiv abonne inscrit actif inactif suscrito activo inactivo inscrito "
    "ativo inativo iscritto attivo actief zapisany aktywny".split()
)
_LEAVING_PARTS = re.compile(
    r"unsub|opt(?:ed|ing)?out|bounce|complain|blacklist|blocklist|donot(?:e?mail|contact)"
    r"|abgemeld|abgemeldet|desabonn|desinscri|debaja|descadast|disiscri|afgemeld|uitgeschrev|wypisan"
)

_YES = frozenset(
    "true t yes y 1 on x ok checked ja j oui o si s sim tak wahr vrai verdadero verdadeiro vero "
    "waar prawda istniny igen evet kylla ano".split()
)
_NO = frozenset(
    "false f no n 0 off unchecked nein non nee nie nao falsch faux falso onwaar falsz nej nem "
    "hayir ei ne".split()
)
_TICKS = {
    "✓": True,
    "✔": True,
    "☑": True,
    "✅": True,
    "☐": False,
    "❌": False,
    "да": True,
    "нет": False,
}
#: Cells that mean empty.
_NOTHING = frozenset(
    {"", "-", "–", "—", "null", "none", "nil", "n/a", "na", "nan", "[]", "{}", "\\n"}
)
_NUMBER = re.compile(r"([01])(?:\.0+)?")


def is_nothing(text: str) -> bool:
    """Whether a cell is empty, or has a word for empty."""
    return not text or text.strip().lower() in _NOTHING


@lru_cache(maxsize=10_000)
def state_of(text: str) -> str | None:
    """The status in a cell of a status column; None for an unknown word."""
    word = text.strip()
    if _REPLY.fullmatch(word):
        return SuppressionReason.BOUNCED.value
    return _STATES.get(fold(word[:_LONGEST]))


@lru_cache(maxsize=10_000)
def yes_or_no(text: str) -> bool | None:
    """The value of a yes-or-no cell; None for anything else."""
    word = text.strip().replace("\ufe0f", "")
    if word.lower() in _TICKS:
        return _TICKS[word.lower()]
    if found := _NUMBER.fullmatch(word):
        return found[1] == "1"
    if len(word) > _LONGEST:
        return None
    folded = fold(word)
    return True if folded in _YES else False if folded in _NO else None


def says_left(text: str) -> bool:
    """Whether a cell plainly says that somebody left, bounced or complained."""
    if len(text) > 40:
        return False
    folded = fold(text)
    return folded in _LEAVING_WORDS or bool(_LEAVING_PARTS.search(folded))


def is_status_word(text: str) -> bool:
    """Whether a cell alone shows that its column is a status column."""
    return len(text) <= 40 and fold(text) in _STATUS_WORDS


#: Usual spellings of the words for leaving, for a quick search in columns of free text.
LEAVING_SPELLINGS = frozenset(
    spelt
    for word in _LEAVING_WORDS
    for spelt in (word, word.capitalize(), word.upper(), word.title())
) | frozenset(
    f"{first}{mark}{second}"
    for one, two in (("opted", "out"), ("opt", "out"), ("non", "subscribed"), ("not", "subscribed"))
    for mark in (" ", "-", "_")
    for first, second in (
        (one, two),
        (one.capitalize(), two),
        (one.capitalize(), two.capitalize()),
        (one.upper(), two.upper()),
    )
)


# Column names.


class Hint(Enum):
    """How clearly a column's name is about leaving, bouncing, blocking or consent."""

    #: Clear, if the cells can be read accordingly.
    MEANS = auto()
    #: About it, but the operator has to say what it means.
    ASK = auto()
    #: Perhaps; the cells show it.
    MAYBE = auto()
    #: About another channel than email, or about tracking.
    ELSEWHERE = auto()


@dataclass(frozen=True, slots=True)
class Sense:
    """The meaning of a column name: a role of column_mapping.py, or None for a question."""

    hint: Hint
    role: str | None = None


def _any(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(words))


_UNSUBSCRIBED = _any(
    r"unsubscri unsub optedout optingout optout optsout blacklist blocklist emaildisabled "
    r"maildisabled disabledemail donote?mail donotcontact donotsend donotmarket dontmail dontemail "
    r"abgemeld abmeld abbestell ausgetragen austragung widerruf widersproch gekundigt gekuendigt "
    r"desabonn desinscri desinscrev resili desuscri desubscri debaja fechabaja descadastr disiscri "
    r"disdett afgemeld afmeld uitgeschrev uitschrij opgezegd wypisan wypisz rezygn odsubskryb "
    r"avregistr avprenum avanmal avmeld frameld peruut odhlas leiratkoz dezabon listenoire "
    r"listanegra listanera schwarzeliste отпис відпис 退訂 退订 取消订阅 配信停止 配信解除".split()
)
_BOUNCED = _any(
    r"bounce bouncing undeliver unzustell zustellfehler rebond npai rebot devuelt rimbalz "
    r"onbestelbaar "
    r"odbit odbic cleantime cleaned invalidemail emailinvalid mailinvalid ungultig ungueltig "
    r"unreachable nichtzustellbar".split()
)
_COMPLAINED = _any(
    r"complain complaint spam abuse junk beschwerde plainte indesirable queja denuncia reclam "
    r"klacht skarg segnala".split()
)
_SUPPRESSED = _any(
    r"suppress blocked blocking isblock quarantin banned gesperrt sperrliste blockiert bloque "
    r"bloquead bloccat geblokkeerd zablokow isexcluded excludedfrom".split()
)
_CONFIRMED = _any(
    r"doubleopt ^doi$ ^isdoi confirm verified verifi activated bestatig bestaetig "
    r"conferma bevestigd "
    r"potwierdz".split()
)
_CONSENT = _any(
    r"subscri optin optedin consent permission accept akkoord akzept einverst einwillig "
    r"zustimm angemeldet abonn consentement inscrit inscripti suscri "
    r"consentimiento consentimento aceit acept accett iscritt iscrizion consens "
    r"ingeschrev inschrijv "
    r"toestemming zgod zapisan subskry samtyck samtykk gdpr rgpd dsgvo lopd rodo emailenabled "
    r"mailenabled canemail canmail mailable allowemail allowsemail allowedemail erlaubnis "
    r"receiveemail receivesemail wantsemail подпис підпис согласие 購読 订阅 訂閱 同意".split()
)
_MAYBE = _any(
    r"newsletter mailing mailings marketing ^active ^isactive ^aktiv ^actif ^activo ^ativo ^attivo "
    r"^actief ^aktywn enabled disabled inactive inaktiv inactif inactiv inativ inattiv nieaktywn "
    r"cancel churn removed deleted archived expired revoked withdrawn ^left ^hasleft "
    r"leftat leftdate "
    r"leftlist stopped ^stop status ^state$ "
    r"zustand statut ^estado$ ^stato$ situac ^stan$ emailing mailliste deaktiv desactiv kundigung "
    r"kuendigung cancellat revocat removid noemail nomail nonewsletter valid nomarketing excluded "
    r"rejected denied ^baja unerwunscht "
    r"^dnc sperre? contactable reachable emailable canbee?mailed canbecontacted enviar envoyer "
    r"nepasenvoyer noninviare verzenden nietsturen versand".split()
)
#: Words that negate a name.
_NEGATIONS = frozenset(
    "not no non never without nicht kein keine nie pas sans sin niet geen senza nao sem bez dont "
    "isnt isnot hasnt didnt un".split()
)
#: Words that make a name mean a detail of the fact instead of the fact.
_ABOUT = frozenset(
    "id ids uuid key hash url link source sources form type types tier plan campaign title name ip "
    "address interval price amount notes note page referrer period number user agent country city "
    "browser device method wording text version by via quelle lien fuente bron zrodlo metadata "
    "owner page tags tag list lists group groups".split()
)
_COUNTS = frozenset(
    "count counts total totals score rate ratio percent percentage probability anzahl "
    "nombre numero "
    "aantal liczba filter".split()
)
_REASONS = frozenset(
    "reason reasons grund motif motivo raison reden powod cause category comment comments error "
    "message details description code".split()
)
_DATES = frozenset(
    "at on date datetime time timestamp datum fecha data dato am le since updated last "
    "first".split()
)
#: Other channels than email: they say nothing about email.
_CHANNELS = frozenset(
    "sms whatsapp phone push mobile mobiltelefon telefon telephone telefono call calls "
    "voice postal "
    "post fax viber messenger track tracking cookies cookie mms rcs".split()
)
_EMAIL = frozenset("email emails mail mails newsletter newsletters courriel correo".split())
#: Statistics of sent emails; they decide nothing.
_FIGURES = frozenset(
    "opened opens open clicked clicks click delivered sent received sends replied views".split()
)
#: Names of some exporters that the rules below would misread.
_KNOWN = {
    **dict.fromkeys(
        "status emailstatus subscriberstatus subscriptionstatus contactstatus "
        "memberstatus liststatus "
        "mailstatus mailingstatus newsletterstatus emailsubscriptionstatus emailmarketingstatus "
        "marketingcontactstatus emailpermissionstatus permissionstatus consentstatus optinstatus "
        "subscribertype subscriberstate subscriptionstate emailstate statutabonne statutabonnement "
        "abonnementstatus newsletterabonnement marketingemailstatus".split(),
        Sense(Hint.MEANS, "status"),
    ),
    **dict.fromkeys(
        "active isactive enabled emailenabled subscribed issubscribed subscribedtoemails".split(),
        Sense(Hint.MEANS, "consent"),
    ),
    **dict.fromkeys(
        "donotemail donotmail donotcontact donotsend dontemail dontmail emailoptout "
        "confirmedoptoutdate portalunsubscribe globalunsubscribe".split(),
        Sense(Hint.MEANS, "unsubscribed"),
    ),
    **dict.fromkeys("portalbounce globalbounce".split(), Sense(Hint.MEANS, "bounced text")),
    **dict.fromkeys(
        "confirmedoptoutreason confirmedoptoutsource".split(),
        Sense(Hint.MEANS, "unsubscribed text"),
    ),
    **dict.fromkeys(
        "pending ispending isoptinpending optinpending unconfirmed isunconfirmed "
        "awaitingconfirmation".split(),
        Sense(Hint.MEANS, "pending"),
    ),
}
_EXCLUDING = (
    (_UNSUBSCRIBED, "unsubscribed"),
    (_BOUNCED, "bounced"),
    (_COMPLAINED, "complained"),
    (_SUPPRESSED, "suppressed"),
)


def sense_of(name: str) -> Sense | None:
    """What a column name says about who may be emailed; None if nothing."""
    words = tokens(name)
    joined = "".join(words)
    if joined in _KNOWN:
        return _KNOWN[joined]
    parts = set(words)
    if parts & _CHANNELS and not parts & _EMAIL:
        return Sense(Hint.ELSEWHERE)
    left = [role for pattern, role in _EXCLUDING if pattern.search(joined)]
    rest = joined
    for pattern, _ in _EXCLUDING:
        rest = pattern.sub(" ", rest)
    confirmed, agreed = _CONFIRMED.search(rest), _CONSENT.search(rest)
    if parts & _FIGURES and not left:
        return None
    if not (left or confirmed or agreed):
        return Sense(Hint.MAYBE) if _MAYBE.search(joined) else None
    negated = parts & _NEGATIONS or re.match(r"(?:non|not|never|kein|un)(?=[a-z])", rest)
    if negated or parts & _COUNTS or "pending" in joined or (left and (confirmed or agreed)):
        return Sense(Hint.ASK)
    if left:
        if parts & _ABOUT - {"list", "address"} and not parts & _REASONS:
            # Like "unsubscribed campaign id": a value means that the person unsubscribed.
            return Sense(Hint.MAYBE)
        strongest = max(left, key=("bounced unsubscribed complained suppressed".split()).index)
        return Sense(Hint.MEANS, f"{strongest} text" if parts & _REASONS else strongest)
    if parts & (_ABOUT | _REASONS):
        return Sense(Hint.MAYBE)
    return Sense(Hint.MEANS, "confirmed_at" if confirmed else "consent")


_FILE_NAMES = {
    UNCONFIRMED: r"non[\W_]*subscri|not[\W_]*subscri|unconfirm|pending",
    SuppressionReason.BOUNCED.value: r"bounce|cleaned|undeliver|invalid|unzustell|rebond|rebot",
    SuppressionReason.COMPLAINED.value: r"complain|spam|abuse|junk|beschwerde|plainte|queja",
    SuppressionReason.MANUAL.value: r"suppress|blocked|gesperrt|sperrliste|excluded|do[\W_]*not",
    SuppressionReason.UNSUBSCRIBED.value: (
        r"unsub|opt(?:ed)?[\W_]*outs?|black[\W_]*list|block[\W_]*list|cancel|inactive|removed|left"
        r"(?![a-z])|churn|abgemeld|abmeld|desabonn|desinscri|bajas?(?![a-z])|descadast|disiscri"
        r"|cancellat|afgemeld|uitgeschrev|wypisan"
    ),
}


def state_of_file(name: str) -> str | None:
    """The status of all people in a file, by its name, like ``unsubscribed_members.csv``."""
    plain = unicodedata.normalize("NFKD", name[:300].casefold())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return next((state for state, words in _FILE_NAMES.items() if re.search(words, plain)), None)
