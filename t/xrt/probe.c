/* SPDX-License-Identifier: MIT
 *
 * probe.c - a small XRT host program, to try the test device alone, without vfun
 *
 *	probe <COMMANDS		with XRT's emulation environment (see ../xrt-device.t)
 *
 * Commands are lines; each is answered by one line: its own words, then `ok` or `failed` and what there is to say, and
 * the milliseconds it took.
 *
 *	open [INDEX]
 *	fault [WORD [NUMBER]]	written to the model's file, which $FAULT names
 *	load FILE		from memory
 *	loadfile FILE		by name
 *	number KERNEL N [REPS]	factorial or fibonacci: prints the answer, hexadecimal
 *	vadd COUNT [SEED]	compares with the sums made here
 *	userptr COUNT		the same, with buffers of the program's own, the inputs mapped read-only
 *	buffer BYTES		a new buffer, not cleared: prints its first word as read from the device
 *	fill BYTES WORD		a new buffer filled with this, freed again
 *	threads N RUNS		N threads with a run and a buffer each, RUNS times factorial: how many were right
 *	queue N RUNS		N runs started at once, then waited for; RUNS times
 *	sleep MS
 *	close
 *
 * It ends by _exit(): XRT's destructors may hang, or crash, in a process that didn't close the device, and closing
 *takes ten seconds. It has a process group of its own, because the shim sends its fatal signals to the group.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ANSWER 256
#define DONE 4 /* ERT_CMD_STATE_COMPLETED */

/* XRT's functions, found at run time. */
#define API(X)                                                                                                         \
	X(void *, xrtDeviceOpen, (unsigned int))                                                                       \
	X(int, xrtDeviceClose, (void *))                                                                               \
	X(int, xrtDeviceLoadXclbin, (void *, const void *))                                                            \
	X(int, xrtDeviceLoadXclbinFile, (void *, const char *))                                                        \
	X(int, xrtDeviceGetXclbinUUID, (void *, unsigned char *))                                                      \
	X(void *, xrtPLKernelOpen, (void *, const unsigned char *, const char *))                                      \
	X(int, xrtKernelClose, (void *))                                                                               \
	X(int, xrtKernelArgGroupId, (void *, int))                                                                     \
	X(void *, xrtRunOpen, (void *))                                                                                \
	X(int, xrtRunSetArg, (void *, int, ...))                                                                       \
	X(int, xrtRunStart, (void *))                                                                                  \
	X(int, xrtRunWait, (void *))                                                                                   \
	X(int, xrtRunClose, (void *))                                                                                  \
	X(void *, xrtBOAlloc, (void *, size_t, uint64_t, uint32_t))                                                    \
	X(void *, xrtBOAllocUserPtr, (void *, void *, size_t, uint64_t, uint32_t))                                     \
	X(int, xrtBOFree, (void *))                                                                                    \
	X(int, xrtBOSync, (void *, int, size_t, size_t))                                                               \
	X(void *, xrtBOMap, (void *))                                                                                  \
	X(int, xrtIniStringSet, (const char *, const char *))

#define X(type, name, args) static type(*name) args;
API(X)
#undef X

enum { TO_DEVICE, FROM_DEVICE };

static void *device;
static unsigned char uuid[16];
static char said[4096];

static void
find_api(void)
{
	void *lib = dlopen("libxrt_coreutil.so.2", RTLD_NOW);

	if (!lib) {
		fprintf(stderr, "probe: %s\n", dlerror());
		exit(1);
	}
#define X(type, name, args)                                                                                            \
	name = (type(*) args)dlsym(lib, #name);                                                                        \
	if (!name) {                                                                                                   \
		fprintf(stderr, "probe: no %s\n", #name);                                                              \
		exit(1);                                                                                               \
	}
	API(X)
#undef X
}

static int64_t
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

/* What is usually in a file xrt.ini; connect to a model that runs already, and keep its folder. */
static int
open_device(unsigned int index)
{
	xrtIniStringSet("Emulation.dont_run", "true");
	xrtIniStringSet("Emulation.keep_run_dir", "true");
	device = xrtDeviceOpen(index);
	return device ? 0 : -1;
}

static int
fault(const char *word, const char *number)
{
	const char *path = getenv("FAULT");
	FILE *f = path ? fopen(path, "we") : NULL;

	if (!f)
		return -1;
	fprintf(f, "%s %s\n", word, number);
	return fclose(f);
}

static int
load(const char *path, int from_memory)
{
	static unsigned char image[1 << 20] __attribute__((aligned(8)));
	FILE *f = fopen(path, "re");
	size_t n = f ? fread(image, 1, sizeof(image), f) : 0;
	int r;

	if (f)
		fclose(f);
	if (!n)
		return -1;
	r = from_memory ? xrtDeviceLoadXclbin(device, image) : xrtDeviceLoadXclbinFile(device, path);
	if (!r)
		r = xrtDeviceGetXclbinUUID(device, uuid);
	for (unsigned int i = 0; i < sizeof(uuid); i++)
		sprintf(said + 2 * i, "%02x", uuid[i]);
	return r;
}

/* A kernel with a run and a buffer for the answer; every call of it can be seen to have written that. */
struct calculator {
	void *kernel, *run, *bo;
	unsigned char *answer;
};

static int
calculator_open(struct calculator *c, const char *name)
{
	memset(c, 0, sizeof(*c));
	c->kernel = xrtPLKernelOpen(device, uuid, name);
	c->run = c->kernel ? xrtRunOpen(c->kernel) : NULL;
	c->bo = c->run ? xrtBOAlloc(device, ANSWER, 0, xrtKernelArgGroupId(c->kernel, 2)) : NULL;
	c->answer = c->bo ? xrtBOMap(c->bo) : NULL;
	return c->answer ? 0 : -1;
}

static void
calculator_close(struct calculator *c)
{
	if (c->bo)
		xrtBOFree(c->bo);
	if (c->run)
		xrtRunClose(c->run);
	if (c->kernel)
		xrtKernelClose(c->kernel);
}

static int
calculator_start(struct calculator *c, uint64_t n, uint64_t reps)
{
	int r = xrtRunSetArg(c->run, 0, n);

	memset(c->answer, 0xee, ANSWER);
	r = r ? r : xrtRunSetArg(c->run, 1, reps);
	r = r ? r : xrtRunSetArg(c->run, 2, c->bo);
	r = r ? r : xrtBOSync(c->bo, TO_DEVICE, ANSWER, 0);
	return r ? r : xrtRunStart(c->run);
}

static int
calculator_wait(struct calculator *c)
{
	int state = xrtRunWait(c->run);

	if (state != DONE)
		return state ? state : -1;
	return xrtBOSync(c->bo, FROM_DEVICE, ANSWER, 0);
}

static int
number(const char *kernel, uint64_t n, uint64_t reps)
{
	struct calculator c;
	int r = calculator_open(&c, kernel);

	r = r ? r : calculator_start(&c, n, reps);
	r = r ? r : calculator_wait(&c);
	for (unsigned int i = 0; i < ANSWER && !r; i++)
		sprintf(said + 2 * i, "%02x", c.answer[ANSWER - 1 - i]);
	calculator_close(&c);
	return r;
}

static void *
own_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int
vadd(uint32_t count, uint32_t seed, int own)
{
	void *kernel = xrtPLKernelOpen(device, uuid, "vadd"), *run = kernel ? xrtRunOpen(kernel) : NULL;
	const size_t size = count * 4UL;
	uint32_t *p[3] = { NULL }, wrong = 0;
	void *bo[3] = { NULL };
	int r = run ? 0 : -1;

	for (int i = 0; i < 3 && !r; i++) {
		p[i] = own ? own_memory(size) : NULL;
		bo[i] = own ? xrtBOAllocUserPtr(device, p[i], size, 0, xrtKernelArgGroupId(kernel, i))
			    : xrtBOAlloc(device, size, 0, xrtKernelArgGroupId(kernel, i));
		if (bo[i] && !own)
			p[i] = xrtBOMap(bo[i]);
		if (!bo[i] || !p[i])
			r = -1;
		for (uint32_t j = 0; j < count && !r; j++)
			p[i][j] = (seed = seed * 1664525 + 1013904223);
		if (own && i < 2 && !r)
			mprotect(p[i], size, PROT_READ);
		r = r ? r : xrtBOSync(bo[i], TO_DEVICE, size, 0);
		r = r ? r : xrtRunSetArg(run, i, bo[i]);
	}
	r = r ? r : xrtRunSetArg(run, 3, count);
	r = r ? r : xrtRunStart(run);
	if (!r && xrtRunWait(run) != DONE)
		r = -1;
	if (own && !r && count && p[2][0] == p[0][0] + p[1][0])
		sprintf(said, "zero-copy: seen before it was synchronised, ");
	r = r ? r : xrtBOSync(bo[2], FROM_DEVICE, size, 0);
	for (uint32_t j = 0; j < count && !r; j++)
		wrong += p[2][j] != p[0][j] + p[1][j];
	sprintf(said + strlen(said), "%u wrong", wrong);
	for (int i = 0; i < 3; i++) {
		if (bo[i])
			xrtBOFree(bo[i]);
		if (own && p[i])
			munmap(p[i], size);
	}
	if (run)
		xrtRunClose(run);
	if (kernel)
		xrtKernelClose(kernel);
	return r ? r : wrong ? -2 : 0;
}

static int
buffer(size_t size, int fill, uint32_t word)
{
	void *bo = xrtBOAlloc(device, size, 0, 0);
	uint32_t *p = bo ? xrtBOMap(bo) : NULL;
	int r = p ? 0 : -1;

	sprintf(said, bo ? "not mapped" : "no buffer");
	for (size_t i = 0; i < size / 4 && fill && !r; i++)
		p[i] = word;
	r = r ? r : xrtBOSync(bo, fill ? TO_DEVICE : FROM_DEVICE, size, 0);
	if (!r)
		sprintf(said, "%08x", p[0]);
	if (bo)
		xrtBOFree(bo);
	return r;
}

static int
is_factorial_of_20(const struct calculator *c)
{
	const uint64_t want = 2432902008176640000;

	return !memcmp(c->answer, &want, sizeof(want)) && !c->answer[sizeof(want)];
}

static void *
thread(void *runs)
{
	uintptr_t right = 0;
	struct calculator c;

	if (!calculator_open(&c, "factorial")) {
		for (uintptr_t i = 0; i < (uintptr_t)runs; i++)
			right += !calculator_start(&c, 20, 1) && !calculator_wait(&c) && is_factorial_of_20(&c);
	}
	calculator_close(&c);
	return (void *)right;
}

static int
threads(unsigned int n, uintptr_t runs)
{
	pthread_t t[16];
	uintptr_t right = 0;
	void *part;

	n = n > 16 ? 16 : n;
	for (unsigned int i = 0; i < n; i++)
		pthread_create(&t[i], NULL, thread, (void *)runs);
	for (unsigned int i = 0; i < n; i++) {
		pthread_join(t[i], &part);
		right += (uintptr_t)part;
	}
	sprintf(said, "%lu right", (unsigned long)right);
	return right == n * runs ? 0 : -2;
}

static int
queue(unsigned int n, unsigned int runs)
{
	struct calculator c[16];
	unsigned int right = 0;
	int r = 0;

	n = n > 16 ? 16 : n;
	memset(c, 0, sizeof(c));
	for (unsigned int i = 0; i < n && !r; i++)
		r = calculator_open(&c[i], "factorial");
	for (unsigned int round = 0; round < runs && !r; round++) {
		for (unsigned int i = 0; i < n && !r; i++)
			r = calculator_start(&c[i], 20, 1);
		for (unsigned int i = 0; i < n && !r; i++)
			right += !calculator_wait(&c[i]) && is_factorial_of_20(&c[i]);
	}
	for (unsigned int i = 0; i < n; i++)
		calculator_close(&c[i]);
	sprintf(said, "%u right", right);
	return r ? r : right == n * runs ? 0 : -2;
}

static int
command(char *const word[], int words)
{
	const uint64_t a = words > 1 ? strtoull(word[1], NULL, 0) : 0, b = words > 2 ? strtoull(word[2], NULL, 0) : 0;

	if (!strcmp(word[0], "open"))
		return open_device(a);
	if (!strcmp(word[0], "fault"))
		return fault(words > 1 ? word[1] : "", words > 2 ? word[2] : "");
	if (!strcmp(word[0], "load") && words > 1)
		return load(word[1], 1);
	if (!strcmp(word[0], "loadfile") && words > 1)
		return load(word[1], 0);
	if (!strcmp(word[0], "number") && words > 2)
		return number(word[1], b, words > 3 ? strtoull(word[3], NULL, 0) : 1);
	if (!strcmp(word[0], "vadd"))
		return vadd(a, b, 0);
	if (!strcmp(word[0], "userptr"))
		return vadd(a, b, 1);
	if (!strcmp(word[0], "buffer"))
		return buffer(a, 0, 0);
	if (!strcmp(word[0], "fill"))
		return buffer(a, 1, b);
	if (!strcmp(word[0], "threads"))
		return threads(a, b);
	if (!strcmp(word[0], "queue"))
		return queue(a, b);
	if (!strcmp(word[0], "sleep"))
		return usleep(a * 1000);
	if (!strcmp(word[0], "close"))
		return xrtDeviceClose(device);
	sprintf(said, "unknown");
	return -1;
}

int
main(void)
{
	char line[1024], *word[8], *rest;

	setpgid(0, 0);
	find_api();
	while (fgets(line, sizeof(line), stdin)) {
		int64_t since = now_us();
		int words = 0, r;

		for (char *w = strtok_r(line, " \n", &rest); w && words < 8; w = strtok_r(NULL, " \n", &rest))
			word[words++] = w;
		if (!words)
			continue;
		said[0] = 0;
		r = command(word, words);
		printf("probe:");
		for (int i = 0; i < words; i++)
			printf(" %s", word[i]);
		if (r)
			printf(": failed %d %s (%.3f ms)\n", r, said, (now_us() - since) / 1e3);
		else
			printf(": ok %s (%.3f ms)\n", said, (now_us() - since) / 1e3);
		fflush(stdout);
	}
	_exit(0);
}
