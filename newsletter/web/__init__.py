"""The service's HTTP: public pages, console, webhooks."""

from newsletter import path_numbers

# Must run before any module of this package declares a route.
path_numbers.register()
