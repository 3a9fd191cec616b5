"""The sandbox: a local stand-in for SendGrid, for the demo and for tests."""

from newsletter import route_numbers

# Before any module of this package declares a route.
route_numbers.register()
