# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Strings of the kernel
---------------------

Text at a pointer, which in a damaged dump may lead to gigabytes without a null byte.
"""

from drgn import Object, TypeKind

from drgn_pmem.kernel.walk import pointer_text
from drgn_pmem.partial import WalkError

__all__ = ("kernel_string",)

_MOST = 1 << 16
"""bytes; a path has 4096 at most (``PATH_MAX``), a name less"""


def kernel_string(text: Object) -> str:
    """
    Text of a kernel string, as in the dump (not escaped).

    :param text: ``char *`` or ``char []``
    :raises WalkError: if it does not end
    """
    if text.type_.kind is not TypeKind.POINTER:
        return text.string_().decode("utf-8", "backslashreplace")
    address = text.value_()
    data = text.prog_.read_c_string(address, max_size=_MOST)
    if len(data) == _MOST:
        raise WalkError(f"the text at {pointer_text(address)} does not end")
    return data.decode("utf-8", "backslashreplace")
