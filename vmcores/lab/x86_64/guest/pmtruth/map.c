// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * "pmtruth map COMM FILE:OFFSET:BYTES:FLAGS...": map files, touch them, keep them.
 *
 * FLAGS, one letter each:
 *	w  write to each page			r  map read-only and read each page
 *	s  MAP_SYNC				p  MAP_PRIVATE
 *	a  an address that allows 2 MiB pages	n  touch nothing
 *	o  open only, no mapping		c  close the file once it is mapped
 *	u  unlink the file once it is mapped	d  write again on SIGUSR1
 *	v  vmsplice the first page into a pipe	q  register the first page with io_uring
 *	h  MADV_HWPOISON the first page, after all else
 *
 * What was done goes to standard output, one line a fact; record.c says which page went where.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "pmtruth.h"

#define SPECS_MAX 16

struct spec {
	char path[TEXT_MAX];
	unsigned long offset, length;
	char flags[32];
	char *address;
};

static volatile sig_atomic_t write_again;
static struct spec specs[SPECS_MAX];

static bool has(const struct spec *spec, char flag)
{
	return strchr(spec->flags, flag) != NULL;
}

uint64_t pagemap_entry(int pagemap, unsigned long address)
{
	uint64_t entry = 0;

	if (pread(pagemap, &entry, sizeof(entry), (address >> PAGE_SHIFT) * 8) != sizeof(entry))
		return 0;
	return entry;
}

static void on_user_signal(int signal)
{
	(void)signal;
	write_again = 1;
}

/* A poisoned page was unmapped from this process: tell, and go on. */
static void on_bus_error(int signal, siginfo_t *info, void *context)
{
	char line[TEXT_MAX];
	int length = snprintf(line, sizeof(line), "SIGBUS pid=%d va=%p code=%d\n", getpid(),
			      info->si_addr, info->si_code);

	(void)signal;
	(void)context;
	if (write(STDOUT_FILENO, line, length) < 0)
		_exit(1);
}

/* An address from which BYTES can be mapped by 2 MiB pages. */
static void *aligned_hint(unsigned long length)
{
	char *area = mmap(NULL, length + 2 * PMD_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned long start = ((unsigned long)area + PMD_BYTES - 1) & ~(PMD_BYTES - 1);

	if (area == MAP_FAILED)
		return NULL;
	munmap(area, length + 2 * PMD_BYTES);
	return (void *)start;
}

static void touch(const struct spec *spec, const char *comm)
{
	for (unsigned long at = 0; at < spec->length; at += PAGE_BYTES) {
		if (has(spec, 'r'))
			(void)*(volatile char *)(spec->address + at);
		else
			snprintf(spec->address + at + 64, 2 * TEXT_MAX,
				 "LABDIRTY pid=%d comm=%s path=%s offset=0x%lx", getpid(), comm,
				 spec->path, spec->offset + at);
	}
}

static void map_one(struct spec *spec, const char *comm, int pagemap)
{
	int protection = has(spec, 'r') ? PROT_READ : PROT_READ | PROT_WRITE;
	int how = has(spec, 'p') ? MAP_PRIVATE : has(spec, 's') ? MAP_SHARED_VALIDATE | MAP_SYNC : MAP_SHARED;
	int file = open(spec->path, has(spec, 'r') ? O_RDONLY : O_RDWR);
	struct stat status;
	void *hint = has(spec, 'a') ? aligned_hint(spec->length) : NULL;

	if (file < 0 || fstat(file, &status)) {
		printf("ERROR open %s: %s\n", spec->path, strerror(errno));
		return;
	}
	if (has(spec, 'o')) {
		printf("OPEN pid=%d comm=%s path=%s dev=%u:%u ino=%lu fd=%d\n", getpid(), comm, spec->path,
		       major(status.st_dev), minor(status.st_dev), (unsigned long)status.st_ino, file);
	} else {
		spec->address = mmap(hint, spec->length, protection, how, file, spec->offset);
		if (spec->address == MAP_FAILED) {
			printf("ERROR mmap %s flags=%s: %s\n", spec->path, spec->flags, strerror(errno));
			spec->address = NULL;
			return;
		}
		printf("MAP pid=%d comm=%s path=%s dev=%u:%u ino=%lu mode=%o fileoff=0x%lx len=0x%lx va=0x%lx flags=%s\n",
		       getpid(), comm, spec->path, major(status.st_dev), minor(status.st_dev),
		       (unsigned long)status.st_ino, status.st_mode, spec->offset, spec->length,
		       (unsigned long)spec->address, spec->flags);
		if (!has(spec, 'n'))
			touch(spec, comm);
	}
	if (has(spec, 'v'))
		pin_by_vmsplice(spec->path, spec->offset, spec->address, pagemap);
	if (has(spec, 'q'))
		pin_by_io_uring(spec->path, spec->offset, spec->address, pagemap);
	if (has(spec, 'c'))
		close(file);
	if (has(spec, 'u') && unlink(spec->path))
		printf("ERROR unlink %s: %s\n", spec->path, strerror(errno));
}

static void poison(const struct spec *spec, int pagemap)
{
	uint64_t before = pagemap_entry(pagemap, (unsigned long)spec->address);
	int result = madvise(spec->address, PAGE_BYTES, MADV_HWPOISON);
	int error = errno;
	uint64_t after = pagemap_entry(pagemap, (unsigned long)spec->address);

	printf("HWPOISON pid=%d path=%s fileoff=0x%lx va=0x%lx pfn=0x%llx madvise=%d %s pagemap_after=0x%llx\n",
	       getpid(), spec->path, spec->offset, (unsigned long)spec->address,
	       (unsigned long long)(before & PAGEMAP_PFN), result, result ? strerror(error) : "ok",
	       (unsigned long long)after);
}

int map_files(int argc, char **argv)
{
	struct sigaction bus = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };
	struct sigaction user = { .sa_handler = on_user_signal };
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	const char *comm = argv[0];
	int count = argc - 1 < SPECS_MAX ? argc - 1 : SPECS_MAX;

	prctl(PR_SET_NAME, comm);
	/* tell every process that maps a poisoned page, not only the one that meets it */
	prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
	sigaction(SIGBUS, &bus, NULL);
	sigaction(SIGUSR1, &user, NULL);
	for (int i = 0; i < count; i++) {
		if (sscanf(argv[i + 1], "%255[^:]:%li:%li:%31s", specs[i].path, (long *)&specs[i].offset,
			   (long *)&specs[i].length, specs[i].flags) != 4) {
			printf("ERROR cannot read \"%s\"\n", argv[i + 1]);
			return 2;
		}
		specs[i].offset = scaled(specs[i].offset);
		specs[i].length = scaled(specs[i].length);
		map_one(&specs[i], comm, pagemap);
	}
	for (int i = 0; i < count; i++)
		if (specs[i].address && has(&specs[i], 'h'))
			poison(&specs[i], pagemap);
	printf("READY pid=%d comm=%s\n", getpid(), comm);
	fflush(stdout);

	for (;;) {
		pause();
		if (!write_again)
			continue;
		write_again = 0;
		for (int i = 0; i < count; i++) {
			if (!specs[i].address || !has(&specs[i], 'd'))
				continue;
			touch(&specs[i], comm);
			printf("DIRTY pid=%d comm=%s path=%s fileoff=0x%lx len=0x%lx\n", getpid(), comm,
			       specs[i].path, specs[i].offset, specs[i].length);
		}
		printf("WRITTEN pid=%d comm=%s\n", getpid(), comm);
	}
}
