"""Bulk synthesis on engines that exist: callables that take a dict of columns and give one back.

That is the batch format of Ray Data's `map_batches`, of `datasets.Dataset.map(batched=True)`, and, by way of a pandas
frame, of Spark's `mapInPandas` (docs/bulk.md). None of them is needed here. Each callable is plain and picklable; a row
that goes wrong becomes a sentence in the column `error` ("" for good rows), a mistake that concerns every row (a column
that is not there, a vocoder that does not load) is raised.
"""

from melvoc.batch.files import write_audio
from melvoc.batch.mels import Mel
from melvoc.batch.vocode import Vocode

__all__ = ["Mel", "Vocode", "write_audio"]
