"""The engine behind the Protocols of `estiba.api.ports`: one adapter a noun, no decisions."""
