"""The metadata with every table of both packages."""

import newsletter.accounts.models
import newsletter.database_identity
import newsletter.db.webhook_queue
import newsletter.imports.models
import newsletter.issues.models
import newsletter.scheduling.models
import newsletter.sending.models
import newsletter.settings.models
import newsletter.tracking.models
import subscribers.models
from newsletter.db.orm import metadata as metadata

#: Imported so that their tables are in ``metadata``.
MODELS = (
    newsletter.accounts.models,
    newsletter.database_identity,
    newsletter.db.webhook_queue,
    newsletter.imports.models,
    newsletter.issues.models,
    newsletter.scheduling.models,
    newsletter.sending.models,
    newsletter.settings.models,
    newsletter.tracking.models,
    subscribers.models,
)
