"""One run on the controller's side: options, cells, cases, and what becomes of each case.

Neither torch nor pytest is imported here.
"""
