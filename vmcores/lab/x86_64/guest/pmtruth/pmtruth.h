/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PMTRUTH_H
#define PMTRUTH_H

#include <stdint.h>

/* of the kernel that it runs on: -DPAGE_SHIFT=16 for pages of 64 KiB */
#ifndef PAGE_SHIFT
#define PAGE_SHIFT	12
#endif
#define PAGE_BYTES	(1UL << PAGE_SHIFT)
#define PMD_BYTES	(2UL << 20)
#define TEXT_MAX	256
#define PATH_BYTES	(3 * TEXT_MAX)

/* /proc/PID/pagemap, Documentation/admin-guide/mm/pagemap.rst */
#define PAGEMAP_PRESENT	63
#define PAGEMAP_PFN	((1ULL << 55) - 1)

/* What the scripts write for pages of 4 KiB, for as many pages; from 2 MiB on, bytes are bytes. */
static inline unsigned long scaled(unsigned long bytes)
{
	return bytes < PMD_BYTES ? bytes << (PAGE_SHIFT - 12) : bytes;
}

uint64_t pagemap_entry(int pagemap, unsigned long address);

/* Each takes the command's own arguments and returns the exit code. */
int make_file(int argc, char **argv);
int make_hole(int argc, char **argv);
int allocate_file(int argc, char **argv);
int clone_file(int argc, char **argv);
int copy_sparse(int argc, char **argv);
int print_sector(int argc, char **argv);
int sync_filesystem(int argc, char **argv);
int map_files(int argc, char **argv);
int punch_hole(int argc, char **argv);
int truncate_file(int argc, char **argv);
int direct_write(int argc, char **argv);
int record_mappings(int argc, char **argv);
int print_tree(int argc, char **argv);

/* pins.c: what holds a reference on a user page */
void pin_by_vmsplice(const char *path, unsigned long offset, void *address, int pagemap);
void pin_by_io_uring(const char *path, unsigned long offset, void *address, int pagemap);

#endif
