"""The service's HTTP: public pages, console, webhooks."""

from newsletter import route_numbers

# Must run before any module of this package declares a route.
route_numbers.register()
