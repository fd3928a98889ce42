/* container DIR [user]: starts a container with the root directory DIR, in new mount and pid namespaces. Its process 1
 * writes "on" and waits for ever. Without "user" there is no user namespace, so its root is the machine's root. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		_exit(1);
	}
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	must(fd, path);
	must(write(fd, text, strlen(text)), path);
	close(fd);
}

static void map_root(unsigned uid, unsigned gid)
{
	char text[64];
	write_file("/proc/self/setgroups", "deny");
	snprintf(text, sizeof text, "0 %u 1", uid);
	write_file("/proc/self/uid_map", text);
	snprintf(text, sizeof text, "0 %u 1", gid);
	write_file("/proc/self/gid_map", text);
}

int main(int argc, char **argv)
{
	int user = argc > 2;
	unsigned uid = geteuid(), gid = getegid();
	must(unshare(CLONE_NEWNS | CLONE_NEWPID | (user ? CLONE_NEWUSER : 0)), "unshare");
	if (user)
		map_root(uid, gid);
	pid_t child = fork();
	must(child, "fork");
	if (child > 0) {
		waitpid(child, NULL, 0);
		return 0;
	}
	must(prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl");
	must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private mounts");
	must(mount(argv[1], argv[1], NULL, MS_BIND | MS_REC, NULL), "bind the root directory");
	must(chdir(argv[1]), "chdir");
	must(mount("proc", "proc", "proc", 0, NULL), "mount proc");
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "umount");
	must(chdir("/"), "chdir");
	/* So the kernel reaps orphans, which become children of this process. */
	signal(SIGCHLD, SIG_IGN);
	must(write(1, "on\n", 3), "write");
	for (;;)
		pause();
}
