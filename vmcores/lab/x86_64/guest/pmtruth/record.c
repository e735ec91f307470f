// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What is true right now: the pages of every DAX mapping of every process, by /proc/PID/maps and
 * /proc/PID/pagemap, from outside: also of processes that are stuck in the kernel.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pmtruth.h"

#define DELETED " (deleted)"

struct mapping {
	unsigned long start, end, offset, inode;
	char permissions[8], device[16], path[TEXT_MAX];
	bool deleted;
};

static void read_line(const char *directory, const char *name, char *text, size_t size)
{
	char path[PATH_BYTES];
	FILE *file;

	text[0] = '\0';
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "r");
	if (!file)
		return;
	if (fgets(text, size, file))
		text[strcspn(text, "\n")] = '\0';
	fclose(file);
}

/* The lab mounts DAX file systems below /mnt only. */
static bool parse_mapping(const char *line, struct mapping *mapping)
{
	size_t length;

	mapping->path[0] = '\0';
	if (sscanf(line, "%lx-%lx %7s %lx %15s %lu %255[^\n]", &mapping->start, &mapping->end,
		   mapping->permissions, &mapping->offset, mapping->device, &mapping->inode,
		   mapping->path) != 7)
		return false;
	length = strlen(mapping->path);
	mapping->deleted = length > strlen(DELETED) &&
			   !strcmp(mapping->path + length - strlen(DELETED), DELETED);
	if (mapping->deleted)
		mapping->path[length - strlen(DELETED)] = '\0';
	return !strncmp(mapping->path, "/mnt/", 5) || !strncmp(mapping->path, "/dev/dax", 8);
}

static void record_process(const char *directory, const char *output)
{
	char comm[32], path[PATH_BYTES], line[PATH_BYTES];
	const char *pid = strrchr(directory, '/') + 1;
	struct mapping mapping;
	FILE *maps, *record = NULL;
	int pagemap;

	read_line(directory, "comm", comm, sizeof(comm));
	snprintf(path, sizeof(path), "%s/pagemap", directory);
	pagemap = open(path, O_RDONLY);
	snprintf(path, sizeof(path), "%s/maps", directory);
	maps = fopen(path, "r");
	while (maps && fgets(line, sizeof(line), maps)) {
		if (!parse_mapping(line, &mapping))
			continue;
		if (!record) {
			snprintf(path, sizeof(path), "%s/final.%s.txt", output, comm);
			record = fopen(path, "w");
			if (!record)
				break;
		}
		for (unsigned long at = mapping.start; at < mapping.end; at += PAGE_BYTES) {
			unsigned long long entry = pagemap_entry(pagemap, at);

			fprintf(record,
				"PAGE pid=%s comm=%s path=%s ino=%lu fileoff=0x%lx va=0x%lx present=%d pfn=0x%llx pagemap=0x%llx perms=%s dev=%s deleted=%d\n",
				pid, comm, mapping.path, mapping.inode, mapping.offset + at - mapping.start,
				at, (int)(entry >> PAGEMAP_PRESENT), entry & PAGEMAP_PFN, entry,
				mapping.permissions, mapping.device, mapping.deleted);
		}
	}
	if (record)
		fclose(record);
	if (maps)
		fclose(maps);
	close(pagemap);
}

int record_mappings(int argc, char **argv)
{
	DIR *processes = opendir("/proc");
	struct dirent *entry;
	char path[TEXT_MAX];

	(void)argc;
	mkdir(argv[0], 0755);
	while (processes && (entry = readdir(processes))) {
		if (!isdigit((unsigned char)entry->d_name[0]) || atoi(entry->d_name) == getpid())
			continue;
		snprintf(path, sizeof(path), "/proc/%.16s", entry->d_name);
		record_process(path, argv[0]);
	}
	return 0;
}

static void print_value(const char *directory, const char *name, const char *shown)
{
	char path[PATH_BYTES], text[PAGE_BYTES + 1];
	int file;
	ssize_t length;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = open(path, O_RDONLY | O_NONBLOCK);
	length = file < 0 ? -1 : read(file, text, PAGE_BYTES);
	if (file >= 0)
		close(file);
	if (length < 0)
		return;
	text[length] = '\0';
	for (char *c = text; *c; c++)
		if (*c == '\n')
			*c = '|';
	printf("%s/%s=%s\n", shown, name, text);
}

/* A directory below that is a device of its own is listed where it belongs. */
static bool is_device(const char *directory)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%.512s/uevent", directory);
	return !access(path, F_OK);
}

static void walk(const char *directory, const char *shown, int depth)
{
	char path[PATH_BYTES], label[PATH_BYTES];
	struct dirent **entries;
	struct stat status;
	int count = scandir(directory, &entries, NULL, alphasort);

	for (int i = 0; i < count; i++) {
		const char *name = entries[i]->d_name;

		snprintf(path, sizeof(path), "%.255s/%.255s", directory, name);
		snprintf(label, sizeof(label), "%.255s/%.255s", shown, name);
		if (name[0] == '.' || !strcmp(name, "power") || lstat(path, &status))
			continue;
		if (S_ISREG(status.st_mode) && (status.st_mode & 0444))
			print_value(directory, name, shown);
		else if (S_ISDIR(status.st_mode) && depth > 1 && !is_device(path))
			walk(path, label, depth - 1);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
}

int print_tree(int argc, char **argv)
{
	struct dirent **entries;
	char path[PATH_BYTES];
	int count = scandir(argv[0], &entries, NULL, alphasort);

	(void)argc;
	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/%.255s", argv[0], entries[i]->d_name);
		if (entries[i]->d_name[0] != '.')
			walk(path, entries[i]->d_name, atoi(argv[1]));
	}
	return 0;
}
