/* Makes every system call with arguments that mean nothing, and prints what the kernel answers.
 *
 *     survey ABI FIRST LAST ARGUMENT      ABI is x86_64, x32 or i386, and the one it was compiled for on other machines
 *
 * One line for each call, "NUMBER RESULT": the errno, 0 for success, "ended" when the process that made it did not live
 * to tell, "waits" when it was still at it after a while. Each call is made in a process of its own.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MS 300
#define X32_BIT 0x40000000L
#define ENDED 100000
#define WAITS 100001

#if defined(__x86_64__)
static inline long call(long number, long argument)
{
	register long r10 __asm__("r10") = argument, r8 __asm__("r8") = argument, r9 __asm__("r9") = argument;
	long result;
	__asm__ volatile("syscall" : "=a"(result)
		: "a"(number), "D"(argument), "S"(argument), "d"(argument), "r"(r10), "r"(r8), "r"(r9)
		: "rcx", "r11", "memory");
	return result;
}

static inline long call_32(long number, long argument)
{
	long result;
	/* The red zone below the stack pointer and rbp are ours; the sixth argument goes in ebp. */
	__asm__ volatile("push %%rbp\n\tmov %%edx, %%ebp\n\tint $0x80\n\tpop %%rbp" : "=a"(result)
		: "a"(number), "b"(argument), "c"(argument), "d"(argument), "S"(argument), "D"(argument)
		: "r8", "r9", "r10", "r11", "memory");
	return (int)result;
}
#elif defined(__aarch64__)
static inline long call(long number, long argument)
{
	register long x8 __asm__("x8") = number, x0 __asm__("x0") = argument, x1 __asm__("x1") = argument;
	register long x2 __asm__("x2") = argument, x3 __asm__("x3") = argument;
	register long x4 __asm__("x4") = argument, x5 __asm__("x5") = argument;
	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
#define call_32 call
#elif defined(__arm__)
static inline long call(long number, long argument)
{
	register long r7 __asm__("r7") = number, r0 __asm__("r0") = argument, r1 __asm__("r1") = argument;
	register long r2 __asm__("r2") = argument, r3 __asm__("r3") = argument;
	register long r4 __asm__("r4") = argument, r5 __asm__("r5") = argument;
	__asm__ volatile("svc #0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5) : "memory");
	return r0;
}
#define call_32 call
#endif

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	int is_32 = !strcmp(argv[1], "i386");
	long offset = strcmp(argv[1], "x32") ? 0 : X32_BIT;
	long argument = atol(argv[4]);
	volatile long *answer = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct rlimit none = {0, 0};
	setrlimit(RLIMIT_CORE, &none);
	setvbuf(stdout, NULL, _IONBF, 0);
	for (long number = atol(argv[2]); number <= atol(argv[3]); number++) {
		answer[0] = ENDED;
		pid_t child = fork();
		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			pid_t self = getpid();
			long result = is_32 ? call_32(number, argument) : call(number | offset, argument);
			/* A new process, of fork(2) or one like it: its parent has the answer. */
			if (call(SYS_getpid, 0) == self)
				answer[0] = result < 0 && result > -4096 ? -result : 0;
			call(SYS_exit_group, 0);
		}
		int pidfd = syscall(SYS_pidfd_open, child, 0);
		struct pollfd ends = {pidfd, POLLIN, 0};
		if (poll(&ends, 1, PATIENCE_MS) == 0 && answer[0] == ENDED)
			answer[0] = WAITS;
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		close(pidfd);
		if (answer[0] == ENDED)
			printf("%ld ended\n", number);
		else if (answer[0] == WAITS)
			printf("%ld waits\n", number);
		else
			printf("%ld %ld\n", number, answer[0]);
	}
	return 0;
}
