// SPDX-License-Identifier: LGPL-2.1-or-later
/* References on the pages of a mapping that outlive the mapping, and those who wait for them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/falloc.h>
#include <linux/io_uring.h>

#include "pmtruth.h"

static void print_pin(const char *how, const char *path, unsigned long offset, void *address,
		      int pagemap, long result)
{
	uint64_t entry = pagemap_entry(pagemap, (unsigned long)address);

	printf("%s pid=%d path=%s fileoff=0x%lx va=0x%lx pfn=0x%llx result=%ld %s\n", how, getpid(),
	       path, offset, (unsigned long)address, (unsigned long long)(entry & PAGEMAP_PFN),
	       result, result < 0 ? strerror(errno) : "ok");
}

/* The page stays in the pipe until someone reads it; nobody does. */
void pin_by_vmsplice(const char *path, unsigned long offset, void *address, int pagemap)
{
	struct iovec page = { .iov_base = address, .iov_len = PAGE_BYTES };
	int ends[2];
	long result = -1;

	if (!pipe(ends))
		result = vmsplice(ends[1], &page, 1, 0);
	print_pin("VMSPLICE", path, offset, address, pagemap, result);
}

/* A registered buffer is pinned for as long as the ring lives. */
void pin_by_io_uring(const char *path, unsigned long offset, void *address, int pagemap)
{
	struct io_uring_params parameters = { 0 };
	struct iovec page = { .iov_base = address, .iov_len = PAGE_BYTES };
	long result = syscall(SYS_io_uring_setup, 4, &parameters);

	if (result >= 0)
		result = syscall(SYS_io_uring_register, (int)result, IORING_REGISTER_BUFFERS, &page, 1);
	print_pin("IO_URING", path, offset, address, pagemap, result);
}

/* Announced before, so that the record shows who was still inside when the guest crashed. */
static void announce(const char *what, const char *comm, const char *path)
{
	prctl(PR_SET_NAME, comm);
	signal(SIGUSR1, SIG_IGN);	/* not for us, see map.c */
	printf("%s pid=%d comm=%s path=%s\n", what, getpid(), comm, path);
	printf("READY pid=%d comm=%s\n", getpid(), comm);
	fflush(stdout);
}

static _Noreturn void finish(const char *what, int result)
{
	printf("%s result=%d %s\n", what, result, result ? strerror(errno) : "ok");
	fflush(stdout);
	for (;;)
		pause();
}

int punch_hole(int argc, char **argv)
{
	int file = open(argv[1], O_RDWR);

	(void)argc;
	announce("PUNCH", argv[0], argv[1]);
	finish("PUNCHED", fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					   scaled(strtol(argv[2], NULL, 0)), scaled(strtol(argv[3], NULL, 0))));
}

int truncate_file(int argc, char **argv)
{
	(void)argc;
	announce("TRUNCATE", argv[0], argv[1]);
	finish("TRUNCATED", truncate(argv[1], strtol(argv[2], NULL, 0)));
}

/* DEVICE is a suspended device-mapper device: the write, and its page, wait there. */
int direct_write(int argc, char **argv)
{
	int file = open(argv[1], O_RDWR);
	int device = open(argv[2], O_RDWR | O_DIRECT);
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);

	(void)argc;
	if (file < 0 || device < 0 || page == MAP_FAILED) {
		printf("ERROR direct %s %s: %s\n", argv[1], argv[2], strerror(errno));
		return 1;
	}
	page[0]++;
	print_pin("DIRECT", argv[1], 0, page, pagemap, 0);
	announce("DIRECT_WRITE", argv[0], argv[2]);
	finish("DIRECT_WROTE", pwrite(device, page, PAGE_BYTES, 0) != (ssize_t)PAGE_BYTES);
}
