"""The model is on the meta device when it is wrapped, and is filled with numbers afterwards."""

from distparity.scenarios.calls.basic import Basic


class Deferred(Basic):
    deferred = True
