"""Checks that ask the network: links, images, DNS."""
