"""After two steps everything is saved, and training goes on in a new model from what was saved.

Momentum is part of what was saved: without it the next step is another one.
"""

from distparity.scenarios.calls.basic import Basic


class Resume(Basic):
    anchor = True
    steps = 4
    reload_after = 1
