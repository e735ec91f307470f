# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A size that only the kernel's code has."""

from drgn import Symbol, SymbolBinding, SymbolKind
import pytest

from drgn_pmem.analysis.headers.hotplug import _size_of_text

from ...synthetic import kernel


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"\xf3\x0f\x1e\xfa\xe8\x00\x00\x00\x00",  # endbr64, call __fentry__
        b"\x66\x0f\x1f\x00\x0f\x1f\x44\x00\x00",  # both patched out, as 6.x does
        b"\x0f\x1f\x40\xd6\x0f\x1f\x44\x00\x00",  # and 7.x
    ],
)
def test_size_of_an_elfcorehdr_is_read_from_the_kernels_code(start: bytes) -> None:
    address, size = 0xFFFFFFFF81000000, 16386 * 56
    code = start + b"\xb8" + size.to_bytes(4, "little") + b"\xc3"
    prog = kernel("", {address: code.ljust(64, b"\x90")})
    symbol = Symbol(
        "arch_crash_get_elfcorehdr_size", address, 64, SymbolBinding.GLOBAL, SymbolKind.FUNC
    )
    prog.register_symbol_finder(
        "test", lambda _prog, name, _address, _one: [symbol] if name == symbol.name else [],
        enable_index=0,
    )  # fmt: skip
    found = _size_of_text(prog)
    assert found is not None
    assert found[0] == size
