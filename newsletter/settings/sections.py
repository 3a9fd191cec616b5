"""The sections of the settings: their keys, and what a value of each may be."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from newsletter.settings.kinds import (
    Amount,
    Count,
    Day,
    Duration,
    FormField,
    Host,
    Hours,
    Kept,
    Key,
    Lasting,
    Line,
    ListSetting,
    Mailbox,
    Network,
    Origin,
    PathText,
    Period,
    Port,
    SiteAddress,
    Token,
    WebAddress,
    Zone,
)


class Section(BaseModel):
    """What is not known is an error; nothing changes while the service runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Site(Section):
    """What the publication is called and where it is reached."""

    name: Line
    base_url: SiteAddress
    postal_address: Line
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
    timezone: Zone
    logo_url: Annotated[Line, Field(pattern=r"^(https://\S+)?$")]


class Sender(Section):
    """From whom mails come."""

    email: Annotated[Mailbox, Field(min_length=3)]
    name: Line
    reply_to: Mailbox


class SendGrid(Section):
    """How the provider is reached, and how its events are told from forgeries."""

    host: WebAddress
    api_key: Token
    timeout: Lasting
    webhook_public_keys: Annotated[list[Line], ListSetting]
    webhook_max_age: Lasting


class LinkKeys(Section):
    """Keys of the links in mails."""

    keys: Annotated[list[Key], ListSetting]


class AudienceSection(Section):
    """What the audience is kept with."""

    address_key: Key


class Inbound(Section):
    """How mail to us comes in: SendGrid's Inbound Parse posts it to a secret URL."""

    address: Mailbox
    key: Key


class SignupSection(Section):
    """How people come in, and what keeps abusers out."""

    origins: Annotated[list[Origin], ListSetting]
    fields: Annotated[list[FormField], ListSetting, Field(max_length=20)]
    double_opt_in: bool
    confirm_within: Lasting
    wording: Line
    fill_time: Duration
    per_ip: Count
    per_address: Count
    per_domain: Count
    challenge: Literal["none", "altcha"]
    refuse_disposable: bool
    check_mx: bool
    keep_ip: Duration


class ReviewSection(Section):
    """Who has to have read an issue before it is sent."""

    required: bool
    second_person: bool


class Checks(Section):
    """What is looked at before an issue is sent."""

    file: PathText


class PublicArchive(Section):
    """Sent issues on the web, for everybody."""

    enabled: bool


class Sending(Section):
    """Size and pace of requests, and what happens in doubt."""

    batch_size: Annotated[Count, Field(le=1000)]
    concurrency: Annotated[Count, Field(le=64)]
    late_limit: Duration
    doubt_grace: Duration
    doubt_policy: Literal["hold", "resend"]
    retry_for: Duration
    journal: PathText
    quiet_hours: Hours
    warm_up: Annotated[list[Amount], ListSetting, Field(max_length=1000)]
    warm_up_from: Day
    alerts: PathText


class Tracking(Section):
    """What is measured, what events come to, and how suppressions are kept the same."""

    clicks: bool
    opens: bool
    soft_bounces: Count
    soft_bounce_days: Duration
    scanner_links: Annotated[Count, Field(ge=2)]
    scanner_seconds: Duration
    reconcile_every: Period
    push_suppressions: bool
    keep_events: Kept
    keep_deliveries: Kept


class Console(Section):
    """Who gets into the operators' pages, and for how long."""

    idle_time: Lasting
    absolute_time: Lasting
    require_second_factor: bool
    max_owners: Count
    reset_within: Lasting
    invite_within: Lasting
    per_account: Count
    per_network: Count
    hash_memory: Annotated[Count, Field(ge=8, le=4_194_304)]
    hash_rounds: Annotated[Count, Field(le=100)]


class Imports(Section):
    """Lists that operators upload."""

    folder: Annotated[PathText, Field(min_length=1)]
    max_megabytes: Count
    keep: Lasting


class Web(Section):
    """Where the service listens, to how many, and which proxies in front of it are believed."""

    host: Host
    port: Port
    max_connections: Annotated[int, Field(ge=10, le=50_000)]
    trusted_proxies: Annotated[list[Network], ListSetting]
    proxy_hops: Annotated[Count, Field(le=10)]
    forwarded_header: Literal["x-forwarded-for", "forwarded"]


class Templates(Section):
    """Where the email templates are."""

    directory: PathText
