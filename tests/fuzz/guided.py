# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
One target under atheris, the coverage-guided fuzzer: ``python -m tests.fuzz.guided TARGET FOLDER
[libFuzzer's options]``. FOLDER keeps the corpus and, in ``failed``, what failed.
"""

from pathlib import Path
import sys

import atheris  # type: ignore[import-not-found,unused-ignore]

_GUIDES = ("analysis.pages", "dumpfile", "formats", "output", "shell", "spec")
"""Modules and packages whose branches guide the fuzzer."""


def main() -> None:
    name, folder, *options = sys.argv[1:]
    corpus, failed = Path(folder, "corpus"), Path(folder, "failed")
    for path in (corpus, failed):
        path.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=[f"drgn_pmem.{guide}" for guide in _GUIDES]):
        from .targets import TARGETS

        target = TARGETS[name]
        for number, seed in enumerate(target.seeds()):
            (corpus / f"seed{number}").write_bytes(seed)
            target.run(seed)  # imports what it needs
    limits = ["-timeout=5", "-rss_limit_mb=500", "-max_len=32768", "-print_final_stats=1"]
    atheris.Setup(
        [sys.argv[0], str(corpus), f"-artifact_prefix={failed}/", *limits, *options], target.run
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
