"""After two steps everything is saved, and training resumes from it in a new model.

Momentum is part of what was saved: without it the next step is another one.
"""

from distparity.scenarios.calls.basic import Basic


class Resume(Basic):
    anchor = True
    steps = 4
    reload_after = 1
