"""Where cases run: rank processes on one kind of device, started once and kept warm.

A world knows nothing of what it runs: it starts ranks, hands each of them the same named task with
JSON arguments, and brings back what they answered, or what became of them.

=============== ====================================================================================
``wire``        frames: a JSON object and raw bytes, on a socket
``fork server``      the process that has torch imported and forks ranks; ``start``, how it is started
``rank``        the loop in a rank process
``launcher``    the controller's end of the fork server
``world``       the controller's end of one world
``handle``      the controller's end of one rank
``post_mortem``     what became of the ranks whose task failed, in ``report``'s words
``stack reporter``     tells from within a rank in which ``call`` it is; ``native``, where its threads are
``leak_check``     what a task leaves behind in its process
``scheduler``   many worlds, many tasks, one thread
=============== ====================================================================================
"""
