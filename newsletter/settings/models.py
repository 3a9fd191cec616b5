"""The table of the settings that are changed in the console."""

from datetime import datetime

from newsletter.db.orm import Field, Id, Json, Model


class PublicationSetting(Model, table=True):
    """One change of a setting. Rows are never changed: the latest row of a key counts."""

    __tablename__ = "publication_setting"

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    key: str = Field(max_length=60)
    #: Null where the setting was removed, and its default applies again.
    value: bool | str | None = Field(default=None, sa_type=Json)
    set_at: datetime
    set_by: str = Field(max_length=320)
