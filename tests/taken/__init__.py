# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Taken away one at a time
------------------------

Unknown is never nothing. Each page of memory that an answer was read from is made unreadable in
turn, and the question is asked again: the answer is the same, or it says that it is not complete
and contradicts nothing of the full one. :mod:`~tests.taken.memory` records reads and takes pages
away, :mod:`~tests.taken.compare` compares answers, :mod:`~tests.taken.trial` does both for one
dump.

By hand, every page that ``pmem-list`` read on one dump::

    python -m tests.taken 6.1-fileload:elf pmem-list
"""
