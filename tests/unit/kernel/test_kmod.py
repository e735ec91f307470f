# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debug info that is not there: which package has it, and what an answer says of it."""

import argparse
import io
import sys
from typing import Any

from drgn import Program
import pytest

from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel import debuginfo
from drgn_pmem.kernel.debuginfo import find_type, no_debug_info
from drgn_pmem.kernel.kmod import debug_package, how_to_get_kernel, lacking_modules
from drgn_pmem.partial import Cause, Partial, Problem
from drgn_pmem.spec import Answer, Spec, ask, run

from ...synthetic import kernel

NFIT = {"nfit": "handles of DIMMs", "xfs": "realtime devices"}


def with_modules(*names: str) -> Program:
    """A kernel that had these modules loaded; nothing has debug info."""
    prog = kernel("", {})
    prog.cache["drgn_pmem.kernel.modules"] = Partial(frozenset(names))
    return prog


@pytest.mark.parametrize(
    ("release", "package"),
    [
        ("5.10.0-32-cloud-amd64", "linux-image-5.10.0-32-cloud-amd64-dbg"),
        ("6.12.117+deb13-amd64", "linux-image-6.12.117+deb13-amd64-dbg"),
        ("6.12.117+deb13-arm64-16k", "linux-image-6.12.117+deb13-arm64-16k-dbg"),
        ("6.1.0-50-powerpc64le", "linux-image-6.1.0-50-powerpc64le-dbg"),
        ("6.8.0-31-generic", "linux-image-6.8.0-31-generic-dbgsym"),
        ("6.17.4-200.fc42.x86_64", "kernel-debuginfo-6.17.4-200.fc42.x86_64"),
        ("5.14.0-427.13.1.el9_4.x86_64", "kernel-debuginfo-5.14.0-427.13.1.el9_4.x86_64"),
        ("4.18.0-553.el8_10.ppc64le", "kernel-debuginfo-4.18.0-553.el8_10.ppc64le"),
        ("5.15.0-206.el9uek.x86_64", "kernel-uek-debuginfo-5.15.0-206.el9uek.x86_64"),
        ("6.4.0-150600.21-default", "kernel-default-debuginfo"),
        ("6.1.192-pmem", None),
        ("", None),
        # It comes out of the dump.
        ("1.0; rm -rf x-amd64", None),
        ("1.0\x1b[31m-amd64", None),
    ],
)
def test_package_follows_from_the_release(release: str, package: str | None) -> None:
    assert debug_package(release) == package


def test_only_what_was_loaded_can_lack_its_debug_info() -> None:
    prog = with_modules("nfit", "virtio_blk")
    assert lacking_modules(prog, ("xfs", "nfit", "libnvdimm")) == ["nfit"]
    assert lacking_modules(with_modules(), ("nfit",)) == []


def test_without_the_kernels_own_the_package_is_named_whatever_is_asked() -> None:
    prog = kernel("OSRELEASE=6.12.1-cloud-amd64\n", {})
    assert "give its vmlinux with -s" in how_to_get_kernel(prog)
    for what, module in (("struct inode", "vmlinux"), ("struct nd_region", "libnvdimm")):
        with pytest.raises(MissingDebugInfo, match=f"{what} .* give its vmlinux with -s") as found:
            find_type(prog, what, module)
        assert found.value.module == "vmlinux"


def spec_of(answer: Any) -> Spec:
    def function(prog: Program, args: argparse.Namespace) -> Answer:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Spec("pmem-test", "a test", function, modules=NFIT)


def ask_of(answer: Answer, prog: Program) -> Answer:
    spec = spec_of(answer)
    args = spec.parser().parse_args([])
    return ask(spec, prog, args)


def test_an_answer_ends_with_one_line_about_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    missing = Problem(
        cause=Cause.NO_DEBUG_INFO, why=no_debug_info("nfit"), what="DIMMs", module="nfit"
    )
    answer = Answer([], text="answer", notes=["something else"], problems=[missing])
    run(spec_of(answer), with_modules("nfit"), [])
    assert not answer.whole
    first, last = errors.getvalue().splitlines()
    assert first == "note: something else"
    assert "no debug info of the kernel module nfit: unknown are handles of DIMMs (" in last
    assert "-s" in last
    assert "xfs" not in last


def test_a_module_that_a_command_does_not_declare_is_named_with_the_way_to_get_it() -> None:
    missing = Problem(
        cause=Cause.NO_DEBUG_INFO, why=no_debug_info("dm_mod"), what="device mapper",
        module="dm_mod",
    )  # fmt: skip
    prog = with_modules("nfit", "dm_mod")
    answer = ask_of(Answer([], problems=[missing]), prog)
    walk, last = answer.all_lacks()
    assert walk == "device mapper: no debug info of the kernel module dm_mod"
    assert "modules dm_mod, nfit: unknown are handles of DIMMs (" in last
    undeclared = ask_of(Answer([], problems=[missing]), with_modules("dm_mod"))
    assert "no debug info of the kernel module dm_mod (" in undeclared.all_lacks()[-1]
    assert "with -s" in undeclared.all_lacks()[-1]


def test_an_answer_that_lacks_nothing_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer([], text="answer")
    run(spec_of(answer), with_modules("virtio_blk"), [])
    assert answer.whole
    assert capsys.readouterr().err == ""


def test_a_command_that_cannot_do_without_is_one_line() -> None:
    error = MissingDebugInfo(no_debug_info("nfit"), "nfit")
    with pytest.raises(MissingDebugInfo, match=r"^pmem-test: no debug info .* handles of DIMMs"):
        run(spec_of(error), with_modules("nfit"), [])


def test_help_says_what_is_unknown_without_each_module() -> None:
    text = spec_of(Answer([])).parser().format_help()
    for module, what in NFIT.items():
        assert f"{module:<4}  {what}" in text


def test_a_module_is_not_denied_where_the_list_of_modules_ends_in_nowhere() -> None:
    lost = Problem(cause=Cause.NOT_SAVED, why="modules: stopped after 3 entries")
    prog = with_modules("nfit")
    prog.cache["drgn_pmem.kernel.modules"] = Partial(frozenset(("nfit",)), (lost,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(debuginfo, "has_kernel_debug_info", lambda _: True)
        with pytest.raises(MissingDebugInfo, match="may have been loaded") as caught:
            find_type(prog, "struct nd_region", "libnvdimm")
    assert caught.value.module == "libnvdimm"
