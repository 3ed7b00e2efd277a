"""Some ranks run out of batches before the others; the mean is over the rows that exist.

The gradient is divided by as many ranks as there are left.
"""

from distparity.scenarios.gradient.uneven_batches import UnevenBatches


class UnevenBatchesMean(UnevenBatches):
    missing_rows_count = False
