"""The publication: issues, rendering, sending, tracking, web and command line."""

import zoneinfo

# Governments move clocks several times a year. The data that the lock file names is preferred to
# what the operating system came with, which is often a year older, and differs between machines.
# Here, because every process of the program begins here.
zoneinfo.reset_tzpath(to=())
zoneinfo.ZoneInfo.clear_cache()
