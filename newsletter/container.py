"""Builds every client and service of a process from its settings; nothing else builds clients.

Lower layers receive values and never read settings. Modules are imported on first use, so that a
command loads only what it uses.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from newsletter import database_identity, readiness, tracing
from newsletter.db.dialect import is_postgresql
from newsletter.db.engine import (
    beside,
    open_database,
    reading,
    require_current,
    retry_on_deadlock,
    transaction,
)
from newsletter.db.orm import Session
from newsletter.errors import AddressError, MachineError, UserError
from newsletter.settings.load import Settings, resource
from subscribers.email_address import address_key, hash_address, parse

if TYPE_CHECKING:
    from pydantic import SecretStr
    from sqlalchemy import Engine

    from newsletter.accounts.audit import Actor
    from newsletter.accounts.passwords import Passwords
    from newsletter.backups.scheduled import ScheduledBackups
    from newsletter.checking import rules as checks
    from newsletter.checking.checker import Checker
    from newsletter.checking.context import AskDns
    from newsletter.imports.import_worker import ImportWorker
    from newsletter.imports.upload_store import UploadStore
    from newsletter.issues.parsing.tracking_flags import Tracked
    from newsletter.links import Links
    from newsletter.provider.events import Event
    from newsletter.provider.sendgrid import SendGridGateway, WebhookVerifier
    from newsletter.rendering.rendered import Publication
    from newsletter.scheduling.leader_clock import Clock
    from newsletter.scheduling.prepared_issue import IssueRenderer
    from newsletter.scheduling.tasks import TaskContext
    from newsletter.sending.delivery.dispatcher import Dispatcher, SenderIdentity
    from newsletter.sending.heartbeat import Heartbeat
    from newsletter.sending.pacing.quotas import WarmUp
    from newsletter.sending.recovery.departure_log import DepartureLogFile
    from newsletter.sending.recovery.restore_replay import ReplayReport
    from newsletter.sending.workers.thread_pool import WorkerPool, Workers
    from newsletter.settings.publication import CurrentSettings
    from newsletter.text_workers import TextWorkers
    from newsletter.tracking.breaker_rules import Rule
    from newsletter.tracking.events.ingest import IngestReport
    from newsletter.tracking.events.suppression_policy import Thresholds
    from newsletter.tracking.retention.prune import RetentionPolicy
    from newsletter.tracking.suppression_sync import Reconciler
    from newsletter.wakeups import Wakeups
    from newsletter.webhooks.sender import WebhookSender


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Container:
    """The clients and services of one process, each built on first use."""

    #: The settings of the file and the environment, which belong to this machine.
    loaded: Settings
    #: Whether a child process works on authors' texts, as in long-running processes.
    text_process: bool = False

    @property
    def settings(self) -> Settings:
        """The settings in force, with those of the publication that are in the database.

        They follow changes within a second, so read them at each use.
        """
        return self.current_settings.get()

    @cached_property
    def current_settings(self) -> CurrentSettings:
        """Looks up the settings in force."""
        from newsletter.settings.publication import CurrentSettings

        return CurrentSettings(self.loaded, lambda: self.database)

    @cached_property
    def text_workers(self) -> TextWorkers:
        """Runs functions that parse, render or check authors' texts."""
        from newsletter.text_workers import TextWorkers

        return TextWorkers(processes=1 if self.text_process else 0)

    @cached_property
    def database(self) -> Engine:
        """The database, on this code's version of the schema.

        Raises SettingsError if the database was made with another address key. A process without
        an address key cannot hash addresses.
        """
        engine = open_database(
            self.loaded.database_url, connections=self.loaded.sending.concurrency + 10
        )
        try:
            require_current(engine)
            if self.loaded.subscribers.address_key.get_secret_value():
                # Checked here, because a transaction cannot begin inside another.
                _require_address_key(engine, self.address_key)
            if self.loaded.initial:
                from newsletter.settings import publication

                # What prevents sending stays in the file, where it can be corrected.
                unfit = {problem.key for problem in readiness.unfit(self.loaded)}
                publication.take_over_initial(engine, self.loaded, but=unfit, now=datetime.now(UTC))
        except UserError:
            engine.dispose()
            raise
        return engine

    @cached_property
    def gateway(self) -> SendGridGateway:
        """The gateway that sends emails; SettingsError when the settings do not allow sending.

        Everything that sends uses it, so no email has links that do not work.
        """
        readiness.require_fit(self.settings)
        return self.provider

    @cached_property
    def provider(self) -> SendGridGateway:
        """The client of SendGrid, or of a sandbox at ``sendgrid.host``, for requests that send no
        email, such as those about the account."""
        from newsletter.provider.sendgrid import SendGridGateway

        sendgrid = self.loaded.sendgrid
        key = self._secret(sendgrid.api_key, "sendgrid.api_key")
        return SendGridGateway(api_key=key, host=sendgrid.host, timeout=sendgrid.timeout)

    @cached_property
    def links(self) -> Links:
        """Makes and verifies the tokens in emails."""
        from newsletter.links import Links

        return Links(self._link_keys)

    @cached_property
    def form_keys(self) -> list[bytes]:
        """Keys that sign hidden form fields, derived from the link keys; the first one signs."""
        return [
            hashlib.sha256(b"newsletter.form\0" + key.encode()).digest() for key in self._link_keys
        ]

    @property
    def _link_keys(self) -> list[str]:
        keys = [key.get_secret_value() for key in self.loaded.links.keys]
        if not keys:
            raise readiness.lacking_key(self.loaded, "links.keys")
        return keys

    @cached_property
    def address_key(self) -> bytes:
        """The key of address hashes."""
        secret = self.loaded.subscribers.address_key
        return address_key(self._secret(secret, "subscribers.address_key"))

    def _secret(self, value: SecretStr, key: str) -> str:
        if not (secret := value.get_secret_value()):
            raise readiness.lacking_key(self.loaded, key)
        return secret

    @cached_property
    def passwords(self) -> Passwords:
        """Makes and checks the hashes of users' passwords."""
        from newsletter.accounts.passwords import Passwords

        console = self.loaded.console
        return Passwords(memory=console.hash_memory, rounds=console.hash_rounds)

    @cached_property
    def verifier(self) -> WebhookVerifier:
        """Verifies SendGrid's posts; without a key it accepts none."""
        from newsletter.provider.sendgrid import WebhookVerifier

        sendgrid = self.loaded.sendgrid
        return WebhookVerifier(sendgrid.webhook_public_keys, max_age=sendgrid.webhook_max_age)

    @property
    def publication(self) -> Publication:
        """The values that all issues share."""
        return self.publication_of(self.settings)

    @staticmethod
    def publication_of(settings: Settings) -> Publication:
        """The values that all issues would share with these settings."""
        from newsletter.rendering.rendered import Publication

        site, sender = settings.site, settings.sender
        return Publication(
            name=site.name,
            base_url=site.base_url,
            postal_address=site.postal_address,
            from_email=sender.email,
            from_name=sender.name,
            reply_to=sender.reply_to or None,
            language=site.language,
            logo_url=site.logo_url or None,
        )

    @cached_property
    def check_rules(self) -> checks.CheckRules:
        """The levels and limits of the checks."""
        from newsletter.checking import rules as checks

        own = self.loaded.checks.file
        return checks.load_rules(resource("config") / "checks.toml", Path(own) if own else None)

    @property
    def checker(self) -> Checker:
        """Checks issues before they are sent."""
        from newsletter.checking.checker import Checker

        return Checker(
            self.publication,
            self.loaded.templates_directory,
            self.check_rules,
            sends_real_email=not self.is_local,
            unfit=tuple(readiness.unfit(self.settings)),
        )

    @property
    def dns(self) -> AskDns | None:
        """DNS access for checks of the sender's domain; None with a sandbox on this machine."""
        from newsletter.checking.network.sender_dns import asking
        from newsletter.provider.dns_lookups import resolver

        return None if self.is_local else asking(resolver(), lambda: self.provider.ask)

    @property
    def is_local(self) -> bool:
        """Whether the provider is a sandbox on this machine."""
        return readiness.is_local(self.loaded)

    def approver(self, actor: Actor) -> Actor | None:
        """The actor, if sending a file approves it; None if the settings require a review."""
        review = self.loaded.review
        return None if review.required or review.second_person else actor

    @cached_property
    def departure_log(self) -> DepartureLogFile | None:
        """The departure log of this machine; None when it is turned off."""
        from newsletter.sending.recovery.departure_log import DepartureLogFile

        folder = self.loaded.sending.departure_log
        return DepartureLogFile(beside(self.loaded.database_url, folder)) if folder else None

    @contextmanager
    def writing_departure_log(self, *, required: bool = True) -> Iterator[None]:
        """Record in the departure log what a command suppresses, pauses, resumes or cancels.

        Sending processes record this anyway. If the log cannot be opened, this raises MachineError.
        With ``required=False`` it only logs an error, because a full disk must not prevent an
        operator from stopping a send.
        """
        try:
            departure_log = self.departure_log
        except MachineError as error:
            if required:
                raise
            _log.error("cannot write the departure log: %s: %s", error.place, error.message)
            departure_log = None
        if departure_log is None:
            yield
            return
        departure_log.follow(self.database)
        try:
            yield
        finally:
            departure_log.unfollow()

    def compare_departures(self) -> ReplayReport:
        """Compare this machine's departure log with the database, as each process does before it
        sends."""
        from newsletter.sending.recovery import known_logs

        return known_logs.compare_logs(self.database, self.departure_log, now=datetime.now(UTC))

    @property
    def uploads(self) -> UploadStore:
        """The store of uploaded lists on this machine."""
        from newsletter.imports.upload_store import UploadStore

        return UploadStore(str(beside(self.loaded.database_url, self.loaded.imports.folder)))

    def import_worker(self) -> ImportWorker:
        """The worker that imports uploaded lists in this process."""
        from newsletter.imports.import_worker import ImportWorker

        imports = self.loaded.imports
        return ImportWorker(
            self.database, self.uploads, lambda: self.address_key, self.wakeups, keep=imports.keep
        )

    @property
    def warm_up(self) -> WarmUp | None:
        """The warm-up plan of a new IP address or domain; None without one."""
        from newsletter.sending.pacing.quotas import WarmUp

        sending = self.loaded.sending
        if not sending.warm_up or sending.warm_up_from is None:
            return None
        return WarmUp(begins=sending.warm_up_from, volumes=tuple(sending.warm_up))

    @property
    def breaker_file(self) -> Path:
        """The file with the rules of the circuit breaker."""
        own = self.loaded.sending.alerts
        return Path(own) if own else resource("config") / "alerts.toml"

    @cached_property
    def breaker_rules(self) -> tuple[Rule, ...]:
        """The rules of the circuit breaker."""
        from newsletter.tracking.breaker_rules import load_rules

        return load_rules(self.breaker_file)

    @property
    def task_context(self) -> TaskContext:
        """The dependencies of the clock's tasks."""
        from newsletter.doctor.service import written_folders
        from newsletter.scheduling.tasks import TaskContext

        sending = self.loaded.sending
        return TaskContext(
            self.database,
            batch_size=sending.batch_size,
            late_limit=sending.late_limit,
            uncertain_grace=sending.uncertain_grace,
            uncertain_policy=sending.uncertain_policy,
            keep_network_data=self.loaded.signup.keep_ip,
            warm_up=self.warm_up,
            breaker_rules=self.breaker_rules,
            reconciler=self.reconciler if self._can_reconcile else None,
            retention=self.retention,
            make_issue_renderer=self.make_issue_renderer,
            tell_operators=self._tell_operators,
            digest_is_due=self._digest_is_due,
            event_silence=self.loaded.tracking.event_silence,
            written_folders=written_folders(self.loaded),
            back_up=self._scheduled_backups.run_if_due if self.loaded.backup.every else None,
        )

    @cached_property
    def _scheduled_backups(self) -> ScheduledBackups:
        from newsletter.backups.scheduled import ScheduledBackups

        backup = self.loaded.backup
        return ScheduledBackups(
            self.database,
            beside(self.loaded.database_url, backup.folder),
            self.uploads,
            every=backup.every,
            keep=backup.keep,
            hook=backup.hook,
        )

    def _tell_operators(self, session: Session, now: datetime) -> int:
        from newsletter.scheduling import operator_emails

        publication, templates = self.publication, self.loaded.templates_directory
        waiting = operator_emails.send_waiting(
            session, publication=publication, templates=templates, now=now
        )
        return waiting + operator_emails.send_digests(
            session, publication=publication, templates=templates, zone=self._zone, now=now
        )

    def _digest_is_due(self, session: Session, now: datetime) -> bool:
        from newsletter.scheduling import operator_emails

        return operator_emails.digest_is_due(session, zone=self._zone, now=now)

    @property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.settings.site.timezone)

    @property
    def make_issue_renderer(self) -> Callable[[], IssueRenderer]:
        """Makes the renderer of scheduled issues; raises SettingsError now if the rules of the
        checks are invalid."""
        _, sending = self.check_rules, self.loaded.sending

        def make() -> IssueRenderer:
            from newsletter.scheduling.prepared_issue import IssueRenderer

            return IssueRenderer(
                self.checker,
                sending.late_limit,
                sending.batch_size,
                self.warm_up,
                self.tracked,
                self.text_workers,
            )

        return make

    @property
    def tracked(self) -> Tracked:
        """The default tracking, which an issue or a send can override."""
        from newsletter.issues.parsing.tracking_flags import Tracked

        tracking = self.settings.tracking
        return Tracked(clicks=tracking.clicks, opens=tracking.opens)

    @property
    def retention(self) -> RetentionPolicy:
        """The retention times of events and deliveries."""
        from newsletter.tracking.retention.prune import RetentionPolicy

        tracking = self.loaded.tracking
        return RetentionPolicy(
            tracking.keep_events, tracking.keep_deliveries, tracking.soft_bounce_days
        )

    @property
    def reconciler(self) -> Reconciler:
        """Compares our suppressions with the provider's lists."""
        from newsletter.tracking.suppression_sync import Reconciler

        tracking = self.loaded.tracking
        return Reconciler(
            self.database,
            self.provider.ask,
            self.hash_of,
            every=tracking.reconcile_every,
            push_suppressions=tracking.push_suppressions,
        )

    @property
    def _can_reconcile(self) -> bool:
        key, address_key = self.loaded.sendgrid.api_key, self.loaded.subscribers.address_key
        return bool(key.get_secret_value() and address_key.get_secret_value())

    @cached_property
    def wakeups(self) -> Wakeups:
        """Tells the threads of this process when to look for work."""
        from newsletter.scheduling import due
        from newsletter.wakeups import Wakeups

        next_due = partial(due.next_due, grace=self.loaded.sending.uncertain_grace)
        return Wakeups(self.database, next_due)

    def sender(self) -> SenderIdentity:
        """Whose emails these are, by the settings in force."""
        from newsletter.sending.delivery.dispatcher import SenderIdentity

        settings = self.settings
        sender = settings.sender
        return SenderIdentity(sender.email, sender.name, sender.reply_to, settings.site.name)

    def dispatcher(self, worker: Heartbeat) -> Dispatcher:
        """The dispatcher of one worker thread."""
        from newsletter.sending.delivery.dispatcher import Dispatcher

        return Dispatcher(
            self.database,
            self.gateway,
            self.links,
            worker=worker,
            base_url=self.loaded.site.base_url,
            sender=self.sender,
            mailbox=self.loaded.inbound.address,
            request_timeout=self.loaded.sendgrid.timeout,
            log_file=self.departure_log,
            patience=self.loaded.sending.retry_for,
            warm_up=self.warm_up,
        )

    def workers(self, *, alone: bool = False) -> WorkerPool:
        """The sending workers of this process; with ``alone``, without the queue that processes
        share."""
        from newsletter.sending.heartbeat import Heartbeat
        from newsletter.sending.workers.thread_pool import ThreadPool, WorkerPool

        heartbeat = Heartbeat(self.database)
        threads = self.loaded.sending.concurrency

        def dispatcher() -> Dispatcher:
            return self.dispatcher(heartbeat)

        workers: Workers
        if is_postgresql(self.database) and not alone:
            # Imported here: its libraries take 10 MB, and SQLite does not need them.
            from newsletter.sending.workers.procrastinate_queue import DistributedWorkers

            workers = DistributedWorkers(
                self.database, self.wakeups, dispatcher, concurrency=threads
            )
        else:
            workers = ThreadPool(self.wakeups, dispatcher, concurrency=threads)
        return WorkerPool(self.database, workers, heartbeat, self.departure_log)

    def webhook_sender(self) -> WebhookSender:
        """Sends webhooks from this process."""
        from newsletter.webhooks.sender import WebhookSender

        return WebhookSender(
            self.database,
            self.wakeups,
            allow_hosts=self.loaded.webhooks.allow_hosts,
            version=version("newsletter"),
        )

    def clock(self) -> Clock:
        """The clock of this process."""
        from newsletter.scheduling.leader_clock import Clock

        return Clock(self.database, self.task_context, self.wakeups)

    def ingest(self, events: list[Event]) -> IngestReport:
        """Store and apply events; they are committed when this returns."""
        from newsletter.tracking.events.ingest import ingest

        rules, now, begun = self.thresholds, datetime.now(UTC), tracing.now()
        done = retry_on_deadlock(
            self.database,
            lambda session: ingest(session, events, now=now, hash_of=self.hash_of, rules=rules),
        )
        if tracing.is_on():
            from newsletter.tracking.events import event_traces

            event_traces.record(self.database, done.added, begun=begun)
        return done

    @contextmanager
    def writing_traces(self) -> Iterator[None]:
        """Write traces within the block, if the variables of OpenTelemetry ask for them."""
        if tracing.is_wanted():
            from newsletter.sending import traces

            with transaction(self.database) as session:
                database = database_identity.database_id(session, now=datetime.now(UTC))
                unfinished = traces.unfinished(session)
            tracing.start(database)
            tracing.remember(unfinished)
        try:
            yield
        finally:
            tracing.stop()

    @property
    def thresholds(self) -> Thresholds:
        """The limits for soft bounces and for clicks of scanners."""
        from newsletter.tracking.events.suppression_policy import Thresholds

        tracking = self.loaded.tracking
        return Thresholds(
            soft_bounces=tracking.soft_bounces,
            soft_bounce_days=tracking.soft_bounce_days,
            scanner_links=tracking.scanner_links,
            scanner_seconds=tracking.scanner_seconds,
        )

    @cached_property
    def hash_of(self) -> Callable[[str], bytes | None]:
        """Hashes an address in any spelling; returns None for an invalid address."""
        key = self.address_key

        def hashed(text: str) -> bytes | None:
            try:
                return hash_address(key, parse(text))
            except AddressError:
                return None

        return hashed


def _require_address_key(engine: Engine, key: bytes) -> None:
    with reading(engine) as session:
        if database_identity.is_address_key(session, key):
            return
    with transaction(engine) as session:
        database_identity.require_address_key(session, key, now=datetime.now(UTC))
