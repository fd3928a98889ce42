/* attacker FD busy|writable: repeatedly tries to open the file of descriptor FD for writing, and writes to it if an open
 * succeeds. Ends some time after /gone exists: then the launcher has ended, and no process executes the file any more.
 *
 * /report has a line "exe DEV INO", a line "opened DEV INO HOW WRITTEN" for each way in which an open succeeded, and a
 * last line "tries N": the number of tries after /gone. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_AFTER 100
#define ROUNDS_MAX 20000

static const struct {
	const char *name;
	int flags;
} WAYS[] = {
	{ "O_WRONLY", O_WRONLY },
	{ "O_RDWR", O_RDWR },
	{ "O_WRONLY|O_APPEND", O_WRONLY | O_APPEND },
	/* The last one, since it empties the file. */
	{ "O_WRONLY|O_TRUNC", O_WRONLY | O_TRUNC },
};
#define WAYS_COUNT (sizeof WAYS / sizeof WAYS[0])

static void report_open(FILE *report, int fd, const char *how)
{
	struct stat found;
	if (fstat(fd, &found) != 0)
		return;
	ssize_t written = write(fd, "overwritten", 11);
	fprintf(report, "opened %llu %llu %s %zd\n", (unsigned long long)found.st_dev,
		(unsigned long long)found.st_ino, how, written < 0 ? (ssize_t)-errno : written);
}

int main(int argc, char **argv)
{
	struct stat exe;
	char path[32];
	int done[WAYS_COUNT] = { 0 };
	struct timespec pause = { 0, 1000000 };
	int fd = atoi(argv[1]), after = 0;
	FILE *report = fopen("/report.part", "w");
	if (argc != 3 || !report || fstat(fd, &exe) != 0)
		return 1;
	fprintf(report, "exe %llu %llu\n", (unsigned long long)exe.st_dev, (unsigned long long)exe.st_ino);
	if (strcmp(argv[2], "busy") != 0)
		fprintf(report, "opened %llu %llu while-executed 0\n", (unsigned long long)exe.st_dev,
			(unsigned long long)exe.st_ino);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	for (int round = 0; round < ROUNDS_MAX && after < ROUNDS_AFTER; round++) {
		if (access("/gone", F_OK) == 0)
			after++;
		/* The permission bits may forbid the open. */
		fchmod(fd, 0777);
		for (size_t way = 0; way < WAYS_COUNT; way++) {
			int opened = done[way] ? -1 : open(path, WAYS[way].flags | O_CLOEXEC);
			if (opened < 0)
				continue;
			report_open(report, opened, WAYS[way].name);
			close(opened);
			done[way] = 1;
		}
		nanosleep(&pause, NULL);
	}
	fprintf(report, "tries %d\n", after);
	if (fclose(report) != 0)
		return 1;
	return rename("/report.part", "/report");
}
