"""Plain Python: no shell, no drgn prompt."""

import os

import drgn_pmem

prog = drgn_pmem.open(os.environ["VMCORE"], [os.environ["VMLINUX"]])
for namespace in drgn_pmem.for_each_namespace(prog):
    if namespace.enabled:
        print(namespace.dev, namespace.mode, namespace.map)
