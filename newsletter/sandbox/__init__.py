"""The sandbox: a local stand-in for SendGrid, for the demo and for tests."""

from newsletter import path_numbers

# Before any module of this package declares a route.
path_numbers.register()
