// SPDX-License-Identifier: LGPL-2.1-or-later
/* Files: made, cloned, copied, located. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/fiemap.h>
#include <linux/fs.h>

#include "pmtruth.h"

static int fail(const char *what, const char *path)
{
	fprintf(stderr, "pmtruth: %s %s: %s\n", what, path, strerror(errno));
	return 1;
}

static void print_made(int file, const char *path)
{
	struct stat status;

	if (!fstat(file, &status))
		printf("made %s ino=%lu size=%lld\n", path, (unsigned long)status.st_ino,
		       (long long)status.st_size);
}

int make_file(int argc, char **argv)
{
	long size = scaled(strtol(argv[1], NULL, 0));
	int file = open(argv[0], O_RDWR | O_CREAT, 0644);
	char page[PAGE_BYTES];

	(void)argc;
	if (file < 0)
		return fail("open", argv[0]);
	/* a block device has nothing to allocate */
	if (posix_fallocate(file, 0, size) && errno == ENOSPC)
		return fail("allocate", argv[0]);
	for (long offset = 0; offset < size; offset += PAGE_BYTES) {
		memset(page, 0, sizeof(page));
		snprintf(page, sizeof(page), "LABFILE %s offset=0x%lx\n", argv[0], offset);
		if (pwrite(file, page, sizeof(page), offset) != (ssize_t)sizeof(page))
			return fail("write", argv[0]);
	}
	if (fsync(file))
		return fail("fsync", argv[0]);
	print_made(file, argv[0]);
	return 0;
}

int make_hole(int argc, char **argv)
{
	int file = open(argv[0], O_RDWR | O_CREAT | O_TRUNC, 0644);

	(void)argc;
	if (file < 0 || ftruncate(file, scaled(strtol(argv[1], NULL, 0))))
		return fail("make", argv[0]);
	print_made(file, argv[0]);
	return 0;
}

int allocate_file(int argc, char **argv)
{
	int file = open(argv[0], O_RDWR | O_CREAT, 0644);

	(void)argc;
	if (file < 0 || (errno = posix_fallocate(file, 0, scaled(strtol(argv[1], NULL, 0)))) || fsync(file))
		return fail("allocate", argv[0]);
	print_made(file, argv[0]);
	return 0;
}

int clone_file(int argc, char **argv)
{
	int from = open(argv[0], O_RDONLY);
	int to = open(argv[1], O_RDWR | O_CREAT, 0644);

	(void)argc;
	if (from < 0 || to < 0 || ioctl(to, FICLONE, from))
		return fail("clone", argv[1]);
	print_made(to, argv[1]);
	return 0;
}

/* Read until the buffer is full or the file ends: /proc/vmcore gives a page at a time. */
static ssize_t read_full(int file, char *buffer, size_t size)
{
	size_t done = 0;
	ssize_t got;

	while (done < size) {
		got = read(file, buffer + done, size - done);
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		done += got;
	}
	return done;
}

int copy_sparse(int argc, char **argv)
{
	static char buffer[1 << 20];
	static const char zeroes[PAGE_BYTES];
	int from = open(argv[0], O_RDONLY);
	int to = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0644);
	long long total = 0, data = 0;
	ssize_t got;

	(void)argc;
	if (from < 0 || to < 0)
		return fail("open", argv[0]);
	while ((got = read_full(from, buffer, sizeof(buffer))) > 0) {
		for (ssize_t at = 0; at < got; at += PAGE_BYTES) {
			size_t left = got - at, length = left < PAGE_BYTES ? left : PAGE_BYTES;

			if (!memcmp(buffer + at, zeroes, length))
				continue;
			if (pwrite(to, buffer + at, length, total + at) != (ssize_t)length)
				return fail("write", argv[1]);
			data += length;
		}
		total += got;
	}
	if (got < 0)
		return fail("read", argv[0]);
	/* a disk has its size */
	if ((ftruncate(to, total) && errno != EINVAL) || fsync(to))
		return fail("finish", argv[1]);
	printf("copied %s: %lld bytes, %lld of them data\n", argv[0], total, data);
	return 0;
}

int print_sector(int argc, char **argv)
{
	struct {
		struct fiemap map;
		struct fiemap_extent extent;
	} request = { 0 };
	unsigned long long offset = scaled(strtoull(argv[1], NULL, 0));
	int file = open(argv[0], O_RDONLY);

	(void)argc;
	request.map.fm_start = offset;
	request.map.fm_length = PAGE_BYTES;
	request.map.fm_extent_count = 1;
	if (file < 0 || ioctl(file, FS_IOC_FIEMAP, &request.map) || !request.map.fm_mapped_extents)
		return fail("find a block of", argv[0]);
	printf("%llu\n", (request.extent.fe_physical + offset - request.extent.fe_logical) / 512);
	return 0;
}

int sync_filesystem(int argc, char **argv)
{
	int file = open(argv[0], O_RDONLY);

	(void)argc;
	if (file < 0 || syncfs(file))
		return fail("sync", argv[0]);
	return 0;
}
