"""One run, on the controller's side: options, cells, cases, and the outcome of each case.

Neither torch nor pytest is imported here.
"""
