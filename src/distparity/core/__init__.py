"""Modules that both sides use: records and rules that need neither torch nor pytest.

=========================== ========================================================================
``case``, ``outcome``       one case, and its outcome
``known_limit``             something that torch may refuse, declared by a strategy or an operation
``participation``           which ranks take part in which steps
``wire``                    frames between processes: a JSON object and raw bytes, on a socket
``collective_call``         the collective that a rank is in, as its stack reporter saw it
``processes``               Linux's view of processes
``device_kinds``            the names of all kinds of device
``registry``                names and families of scenarios, strategies and operations
``redact``                  keeps secrets out of everything that is written
``version``                 the version of distparity
=========================== ========================================================================
"""
