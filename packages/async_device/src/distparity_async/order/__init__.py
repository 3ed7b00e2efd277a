"""Mutants of order: each wait and each keep-alive of torch's wrappers left out, one by one.

``python -m distparity_async.order`` finds them in the sources of the torch that is here
(:mod:`.statements`), trains without each (:mod:`.trainings`), and says which of them the checker or
the numbers notice. ``docs/order.md`` has the result.
"""
