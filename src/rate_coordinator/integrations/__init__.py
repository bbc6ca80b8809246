"""Plugs a coordinator into the libraries that people already use; one module each, none of which is imported here."""
