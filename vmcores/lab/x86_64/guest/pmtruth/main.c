// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * pmtruth: makes the DAX files and the processes of the lab's guest, and records what is true about
 * them before the guest crashes.  One static binary, so that it also runs in the capture kernel.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pmtruth.h"

static const struct {
	const char *name;
	int arguments;
	int (*run)(int argc, char **argv);
	const char *usage;
} commands[] = {
	{ "make", 2, make_file, "FILE BYTES: allocate, then write a pattern to each page" },
	{ "hole", 2, make_hole, "FILE BYTES: a file that has no block" },
	{ "allocate", 2, allocate_file, "FILE BYTES: blocks, but nothing written" },
	{ "clone", 2, clone_file, "FROM TO: reflink" },
	{ "copy-sparse", 2, copy_sparse, "FROM TO: leave pages of zeroes out" },
	{ "sector", 2, print_sector, "FILE OFFSET: the 512-byte sector on its device" },
	{ "sync-fs", 1, sync_filesystem, "PATH: write back one file system only" },
	{ "map", 2, map_files, "COMM FILE:OFFSET:BYTES:FLAGS...: see map.c" },
	{ "punch", 4, punch_hole, "COMM FILE OFFSET BYTES" },
	{ "truncate", 3, truncate_file, "COMM FILE BYTES" },
	{ "direct", 3, direct_write, "COMM FILE DEVICE: O_DIRECT from a mapped page to a device" },
	{ "record", 1, record_mappings, "DIRECTORY: the pages of every DAX mapping" },
	{ "tree", 2, print_tree, "DIRECTORY DEPTH: name=value of the files, for sysfs" },
};

int main(int argc, char **argv)
{
	size_t count = sizeof(commands) / sizeof(commands[0]);

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; argc > 1 && i < count; i++)
		if (!strcmp(argv[1], commands[i].name) && argc - 2 >= commands[i].arguments)
			return commands[i].run(argc - 2, argv + 2);

	for (size_t i = 0; i < count; i++)
		fprintf(stderr, "pmtruth %s %s\n", commands[i].name, commands[i].usage);
	return 2;
}
