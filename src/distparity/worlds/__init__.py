"""Where cases run: rank processes on one kind of device, started once and kept warm.

A world knows nothing about the tasks that it runs: it starts ranks, sends each of them the same named
task with JSON arguments, and returns their answers, or a report of how they failed.

================= ==================================================================================
``start``         starts the fork server: the process that imports torch once and forks the ranks
``launcher``      the controller's end of the fork server
``rank_handle``   the controller's end of one rank
``world``         the controller's end of one world
``scheduler``     many worlds and many tasks, in one thread
``device_pool``   which devices each world may use
``output``        reads what a rank wrote to its files
``post_mortem``   collects what the ranks of a failed task can still tell
``native_stacks`` reads the C++ stacks that a dying rank wrote
``failure``       which rank failed first, and the message that says so
================= ==================================================================================
"""
