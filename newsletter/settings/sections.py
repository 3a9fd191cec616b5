"""The sections of the settings: their keys and types. config/default.toml explains each."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from newsletter.settings.kinds import (
    Amount,
    Count,
    Day,
    Duration,
    FormField,
    Host,
    HostName,
    Hours,
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
    Retention,
    SiteAddress,
    Token,
    WebAddress,
    Zone,
)

#: The settings of the publication, which can be in the database (settings/publication.py).
PUBLICATION_KEYS: Final = (
    "site.name",
    "site.postal_address",
    "site.language",
    "site.timezone",
    "site.logo_url",
    "sender.name",
    "sender.email",
    "sender.reply_to",
    "tracking.clicks",
    "tracking.opens",
    "sending.quiet_hours",
    "signup.double_opt_in",
)


class Section(BaseModel):
    """Unknown keys are errors, and values never change while the service runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Site(Section):
    """The publication's name, URL, address, language and time zone."""

    name: Line
    base_url: SiteAddress
    postal_address: Line
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
    timezone: Zone
    logo_url: Annotated[Line, Field(pattern=r"^(https://\S+)?$")]


class Sender(Section):
    """The sender of emails."""

    email: Annotated[Mailbox, Field(min_length=3)]
    name: Line
    reply_to: Mailbox


class SendGrid(Section):
    """Access to the provider, and verification of its events."""

    host: WebAddress
    api_key: Token
    timeout: Lasting
    webhook_public_keys: Annotated[list[Line], ListSetting]
    webhook_max_age: Lasting


class LinkKeys(Section):
    """Keys that sign the links in emails."""

    keys: Annotated[list[Key], ListSetting]


class AudienceSection(Section):
    """The key of address hashes."""

    address_key: Key


class Inbound(Section):
    """Incoming email, which SendGrid's Inbound Parse posts to a secret URL."""

    address: Mailbox
    key: Key


class SignupSection(Section):
    """Signup forms and their protection against abuse."""

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
    """Whether issues need approval before they are sent."""

    required: bool
    second_person: bool


class Checks(Section):
    """The checks before an issue is sent."""

    file: PathText


class PublicArchive(Section):
    """The public archive of sent issues."""

    enabled: bool


class Sending(Section):
    """Size and pace of requests, retries, and uncertain batches."""

    batch_size: Annotated[Count, Field(le=1000)]
    concurrency: Annotated[Count, Field(le=64)]
    late_limit: Duration
    uncertain_grace: Duration
    uncertain_policy: Literal["hold", "resend"]
    retry_for: Duration
    departure_log: PathText
    quiet_hours: Hours
    warm_up: Annotated[list[Amount], ListSetting, Field(max_length=1000)]
    warm_up_from: Day
    alerts: PathText


class Tracking(Section):
    """Click and open tracking, effects of events, reconciling suppressions, and retention."""

    clicks: bool
    opens: bool
    soft_bounces: Count
    soft_bounce_days: Duration
    scanner_links: Annotated[Count, Field(ge=2)]
    scanner_seconds: Duration
    event_silence: Period
    reconcile_every: Period
    push_suppressions: bool
    keep_events: Retention
    keep_deliveries: Retention


class Console(Section):
    """Sign-in to the console."""

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
    """Uploaded lists of subscribers."""

    folder: Annotated[PathText, Field(min_length=1)]
    max_megabytes: Count
    keep: Lasting


class Backups(Section):
    """Backups that the service makes."""

    folder: PathText
    every: Period
    keep: Count
    hook: Annotated[list[Line], ListSetting]

    @model_validator(mode="after")
    def _has_folder(self) -> "Backups":
        if self.every and not self.folder:
            raise ValueError("every needs a folder for the backups, and backup.folder is empty")
        return self


class Web(Section):
    """Where the service listens, its connections, and the trusted proxies."""

    host: Host
    port: Port
    max_connections: Annotated[int, Field(ge=10, le=50_000)]
    trusted_proxies: Annotated[list[Network], ListSetting]
    proxy_hops: Annotated[Count, Field(le=10)]
    forwarded_header: Literal["x-forwarded-for", "forwarded"]


class Metrics(Section):
    """Where the metrics can be read."""

    token: Key
    host: Host
    port: Port


class Webhooks(Section):
    """What is sent to other programs."""

    allow_hosts: Annotated[list[HostName], ListSetting]


class Logging(Section):
    """The log of the long-running commands."""

    format: Literal["text", "json"]


class Templates(Section):
    """The folder of the email templates."""

    directory: PathText
